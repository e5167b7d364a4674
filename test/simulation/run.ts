import { checkBook, checkHeld, checkReplay, stillHeld } from "./checks.ts";
import { drawAsking } from "./clients.ts";
import { createCustomers, type Customers } from "./customers.ts";
import type { Death, FaultKind } from "./faults.ts";
import { strayCall } from "./stray.ts";
import { Broken } from "./watch.ts";
import { createWorld, type World } from "./world.ts";

export interface RunResult {
  readonly seed: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly requests: number;
  readonly world: World;
  readonly broken: Broken | undefined;
}

const DISTURB_MS = { low: 200, high: 1_500 };
const ARRIVALS_MS = { low: 20, high: 4_000 };
const QUIET_MS = { low: 20_000, high: 80_000 };
const HELD_EVERY_STEPS = 50;
/** So long after faults stop everything must be at rest: a dead writer is sealed after seventy seconds. */
const LIVE_MS = 15 * 60_000;
const SERVED_MS = 60_000;
const BALANCES_EVERY_MS = 20_000;

/**
 * Every fifth seed's world is one process on a locked folder, every second one of these with a server; in the others ledger
 * and gateways are processes apart.
 */
export function deathOf(seed: number): Death {
  if (seed % 5 !== 0) return "silence";
  return seed % 2 === 0 ? "lock" : "lock, apart";
}

/** Lives one world for so many steps, heals it, and sees whether it comes to rest. Throws nothing that is broken: it is told. */
export async function runSeed(
  seed: number,
  steps: number,
  off: readonly FaultKind[] = [],
  death: Death = deathOf(seed),
): Promise<RunResult> {
  const world = createWorld({ seed, off, death });
  const customers = createCustomers(world);
  let broken: Broken | undefined;
  try {
    await live(world, customers, steps);
    await rest(world, customers);
  } catch (error) {
    if (!(error instanceof Broken)) throw error;
    broken = error;
  }
  const { timeline, seen } = world;
  await world.close();
  return {
    seed,
    steps: world.steps(),
    virtualMs: timeline.nowMs(),
    requests: seen.length,
    world,
    broken,
  };
}

/** Customers come and ask, things go wrong. */
async function live(world: World, customers: Customers, steps: number): Promise<void> {
  const { timeline, faults } = world;
  const rich = customers.create(5_000_000);
  customers.issueKey(rich);
  customers.issueKey(rich, { rpm: 5 });
  customers.issueKey(rich, { budgetMicro: 4_000 });
  const poor = customers.create(1_500);
  customers.issueKey(poor);

  const asks = world.dice("asks");
  function ask(): void {
    const org = asks.pick(customers.orgs);
    const key = asks.pick(org.keys);
    world.ask(asks.between(0, world.gateways.length - 1), drawAsking(asks, faults, key.text));
  }
  function arrivals(): void {
    if (faults.isHealed()) return;
    const burst = asks.chance(0.15) ? asks.between(5, 30) : asks.between(0, 3);
    for (let count = 0; count < burst; count++) timeline.after(asks.next() * 200, ask);
    const { low, high } = asks.chance(0.04) ? QUIET_MS : ARRIVALS_MS;
    timeline.after(asks.between(low, high), arrivals);
  }
  const trouble = world.dice("trouble");
  function disturb(): void {
    if (faults.isHealed()) return;
    if (trouble.chance(0.3)) manage(customers, trouble);
    disturbOnce(world, trouble);
    timeline.after(trouble.between(DISTURB_MS.low, DISTURB_MS.high), disturb);
  }
  arrivals();
  disturb();
  for (let step = 0; step < steps; step++) {
    await world.step();
    if (step % HELD_EVERY_STEPS === 0) checkHeld(world.servers.admission().state, world.watch);
  }
}

/** Top-ups, new keys and organizations, revocations. */
function manage(customers: Customers, dice: ReturnType<World["dice"]>): void {
  const org = dice.pick(customers.orgs);
  if (dice.chance(0.6)) customers.topUp(org, dice.between(100, 3_000));
  else if (dice.chance(0.3) && customers.orgs.length < 6) {
    const made = customers.create(dice.between(0, 5_000));
    customers.issueKey(made);
  } else if (dice.chance(0.5) && org.keys.length < 6)
    customers.issueKey(
      org,
      dice.chance(0.5) ? { budgetMicro: dice.between(200, 3_000) } : { rpm: dice.between(1, 10) },
    );
  else {
    const key = dice.pick(org.keys);
    // The first key of the first organization stays: the end of the run asks with it.
    if (!key.revoked && key !== customers.orgs[0]?.keys[0]) customers.revoke(org, key);
  }
}

/** One occasion for trouble of the larger kinds. */
function disturbOnce(world: World, dice: ReturnType<World["dice"]>): void {
  const { timeline, faults, servers } = world;
  if (faults.strikes("stray")) strayCall(world, dice);
  if (faults.strikes("crash")) faults.armCrash();
  if (world.death !== "lock" && faults.strikes("admission_restarted")) servers.restartAdmission();
  if (world.death !== "lock" && faults.strikes("servers_flushed")) servers.flush();
  if (world.death !== "lock" && faults.strikes("admission_failed_over")) {
    servers.failOver();
    // Now and then the old primary stays for ever.
    if (dice.chance(0.6)) timeline.after(dice.between(0, 60_000), servers.demoteOthers);
  }
  if (world.death !== "lock" && faults.strikes("server_away"))
    servers.leave({
      of: dice.pick([0, 1]),
      for: dice.pick([["ledger"], ["ledger"], ["gateway"], ["ledger", "gateway"]]),
      untilMs: timeline.nowMs() + dice.between(500, 60_000),
      forgets: dice.chance(0.3),
    });
  if (faults.strikes("store_refused"))
    servers.fillDiskUntil(timeline.nowMs() + dice.between(500, 8_000));
  if (faults.strikes("gateway_paused"))
    pause(world, dice.pick(world.gateways).process, dice.between(500, 150_000));
  if (faults.strikes("gateway_stopped")) dice.pick(world.gateways).stop(dice.between(0, 5_000));
  if (world.death === "silence" && faults.strikes("ledger_paused")) {
    const { process } = world.ledger();
    const durationMs = dice.between(500, 60_000);
    pause(world, process, durationMs);
    if (dice.chance(0.6))
      timeline.after(dice.between(0, durationMs), () => {
        if (world.ledger().process === process && process.isPaused()) world.replaceLedger();
      });
  }
}

function pause(world: World, process: ReturnType<World["alive"]>[number], durationMs: number) {
  process.pause();
  world.timeline.after(durationMs, () => process.resume());
}

/** The end of every run. Faults stop; 23 LIVE: within a time no hold is open, nothing is held, every call has its outcome, requests pass. */
export async function rest(world: World, customers: Customers): Promise<void> {
  const { faults, servers, watch, gateways, timeline } = world;
  faults.heal();
  servers.fillDiskUntil(0);
  servers.leave({ of: 0, for: [], untilMs: 0, forgets: false });
  for (const process of world.alive()) process.resume();
  // Customers look at their balances, which is what shows the ledger a hold that nobody else would end.
  function lookAtBalances(): void {
    const { port } = servers.admission();
    for (const { orgId } of customers.orgs)
      void port.figures({ orgId }).then((found) => {
        if (found.outcome === "fenced" && found.fenced === "absent") void port.want(orgId);
      });
    timeline.after(BALANCES_EVERY_MS, lookAtBalances);
  }
  lookAtBalances();
  const atRest = () =>
    watch.audit.holds.open.size === 0 &&
    world.ledger().ledger()?.isReady() === true &&
    gateways.every((gateway) => gateway.serving()?.writer.life() && gateway.running() === 0) &&
    stillHeld(servers.admission().state, watch.audit.money.accounts).length === 0;
  try {
    await world.until("the world comes to rest", atRest, LIVE_MS);
  } catch (error) {
    if (error instanceof Broken && error.invariant === "LIVE") throw explained(world, error);
    throw error;
  }
  const [rich] = customers.orgs;
  const [key] = rich?.keys ?? [];
  if (!rich || !key) throw new Error("the first organization has a key");
  customers.topUp(rich, 1_000_000);
  await world.pass(2_000);
  for (const place of gateways.keys()) await askUntilServed(world, place, key.text);
  await world.until("the world comes to rest again", atRest, LIVE_MS);
  for (const stream of watch.audit.holds.sealedWithOpenHolds())
    watch.broken("CLOSE", `${stream} is sealed with open holds`);
  checkHeld(servers.admission().state, watch);
  checkBook(world.book, world.seen, watch);
  for (const sentence of checkReplay(watch.events, [1, 7, 100_000]))
    watch.broken("REPLAY", sentence);
  watch.hold();
}

/** A request that fits is served: at once, or (another owner may just be taking over) when it is asked again. */
async function askUntilServed(world: World, place: number, keyText: string): Promise<void> {
  const endMs = world.timeline.nowMs() + SERVED_MS;
  for (;;) {
    const asked = world.ask(place, {
      keyText,
      model: "sim-flat",
      stream: true,
      outputTokensMax: 10,
      directives: "[sim output=5 chunks=2]",
      slowMs: 0,
    });
    await world.until("a request that fits is answered", () => asked.over, SERVED_MS);
    if (asked.complete) return;
    // Without a status the gateway was just stopping; 503 asks to come again.
    const mayCome = asked.status === undefined || asked.status === 503;
    if (!mayCome || world.timeline.nowMs() > endMs) {
      world.watch.broken("LIVE", `a request that fits is answered ${asked.status} ${asked.code}`);
      world.watch.hold();
    }
    await world.pass(1_000);
  }
}

/** What exactly is not at rest. */
function explained(world: World, error: Broken): Broken {
  const { watch, servers, gateways } = world;
  const open = [...watch.audit.holds.open].map((hold) => `${hold.requestId} in ${hold.stream}`);
  return new Broken(
    "LIVE",
    [
      error.message,
      `open: ${open.join(", ") || "none"}`,
      ...stillHeld(servers.admission().state, watch.audit.money.accounts),
      `ledger ${world.ledger().process.name} ready: ${world.ledger().ledger()?.isReady()}`,
      ...gateways.map(
        (gateway) =>
          `${gateway.process.name} epoch ${gateway.serving()?.writer.life()?.journal.writerEpoch}, running ${gateway.running()}`,
      ),
    ].join("; "),
  );
}
