import { buildCatalogue } from "#domain/catalogue/build.ts";
import { makeOffer } from "#services/gateway/offer.ts";
import { requestOf, type Asking } from "./clients.ts";
import { createCustomers, type Customers } from "./customers.ts";
import { FAULT_KINDS } from "./faults.ts";
import { stillHeld } from "./checks.ts";
import { createWorld, type World, type WorldOptions } from "./world.ts";

/** A world in which nothing goes wrong but what the scenario does itself, up and with customers in it. */
export async function calmWorld(
  options: WorldOptions,
  fill: (customers: Customers) => void,
): Promise<{ world: World; customers: Customers }> {
  const world = createWorld({ off: FAULT_KINDS, ...options });
  const customers = createCustomers(world);
  fill(customers);
  const isUp = () =>
    world.ledger().ledger()?.isReady() === true &&
    world.gateways.every((gateway) => gateway.serving() !== undefined);
  await world.until("the region is up", isUp, 20_000);
  await world.pass(500);
  return { world, customers };
}

export const ASKING: Omit<Asking, "keyText"> = {
  model: "sim-flat",
  stream: true,
  outputTokensMax: 20,
  directives: "[sim output=5 chunks=2]",
  slowMs: 0,
};

/** What a request holds. Micro. */
export async function holdMicroOf(asking: Asking): Promise<number> {
  const room = { take: () => true, give: () => {} };
  const body = await requestOf(asking).body(1 << 20, room);
  if (!body.ok) throw new Error("the body fits");
  const catalogue = buildCatalogue({ openai: false, simulator: true, processingArea: "us" });
  const offer = makeOffer(catalogue, "us", body.bytes);
  if ("code" in offer) throw new Error(`the request is refused: ${offer.code}`);
  return offer.holdMicro;
}

/** A request of the flat model whose usage is exactly its hold. */
export async function askingForAllOfItsHold(
  keyText: string,
): Promise<{ asking: Asking; holdMicro: number }> {
  const withInput = (tokens: number): Asking => ({
    ...ASKING,
    keyText,
    stream: false,
    directives: `[sim output=${ASKING.outputTokensMax} input=${String(tokens).padStart(6, "0")}]`,
  });
  const holdMicro = await holdMicroOf(withInput(0));
  return { asking: withInput(holdMicro - ASKING.outputTokensMax), holdMicro };
}

/** Waits until nothing is held anywhere and nothing runs. */
export function atRest(world: World): Promise<void> {
  return world.until(
    "the world comes to rest",
    () =>
      world.watch.audit.holds.open.size === 0 &&
      world.gateways.every((gateway) => gateway.serving() && gateway.running() === 0) &&
      stillHeld(world.servers.admission().state, world.watch.audit.money.accounts).length === 0,
    10 * 60_000,
  );
}
