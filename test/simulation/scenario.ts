import type { KeyLimits } from "#domain/key-limits.ts";
import { offerOf } from "#test/worlds/chat-way.ts";
import { CATALOGUE, requestOf, type Asking } from "./clients.ts";
import { createCustomers, type Customers, type SimKey, type SimOrg } from "./customers.ts";
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

/** The seeds that each scenario is lived with. */
export const SEEDS = Array.from({ length: 20 }, (_, at) => at + 1);

/** A calm world with one customer, who has one key. */
export async function oneCustomer(
  options: Parameters<typeof calmWorld>[0],
  balanceMicro: number,
  limits: KeyLimits = {},
) {
  let org: SimOrg | undefined;
  let key: SimKey | undefined;
  const { world, customers } = await calmWorld(options, (all) => {
    org = all.create(balanceMicro);
    key = all.issueKey(org, limits);
  });
  if (!org || !key) throw new Error("the customer was created");
  return { world, customers, org, key };
}

/** What the events leave of an organization's money. */
export function sumOf(world: World, org: SimOrg) {
  const sum = world.watch.audit.money.orgs.get(org.orgId);
  if (!sum) throw new Error("the organization has money");
  return sum;
}

/** Somebody has sealed a journal. */
export const hasSealed = (world: World) =>
  world.watch.events.some((event) => event.type === "JournalSealed.v1");

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
  if (typeof body === "string") throw new Error("the body fits");
  const offer = offerOf(CATALOGUE, body);
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
