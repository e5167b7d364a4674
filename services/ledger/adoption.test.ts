import { afterEach, expect, test } from "vitest";
import { emptyAdmission } from "#domain/accounts/admission.ts";
import { newEvent, streams, type NewEvent } from "#domain/events/events.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { createMemoryEventStore } from "#test/memory-event-store.ts";
import { createMemoryReadModels } from "#test/memory-read-models.ts";
import { manualClock } from "#test/manual-clock.ts";
import type { AdmissionStore, EventStore, Projector } from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import { registerWriter } from "#services/writers.ts";
import { startLedger, type Ledger } from "./ledger.ts";

const metadata = { at: 1, region: "us", actor: "control", $correlationId: "c", schema: 1 } as const;
const SHA = "0".repeat(64);
const CREDIT_MICRO = 1_000;

const idOf = (prefix: string, number: number) => `${prefix}_${String(number).padStart(26, "0")}`;
const orgOf = (number: number) => idOf("org", number);
const hashOf = (number: number) => number.toString(16).padStart(64, "0");

/** Lets calls pass, or holds them until it is opened. */
function gate() {
  let held = Promise.withResolvers<void>();
  held.resolve();
  return {
    shut: () => void (held = Promise.withResolvers<void>()),
    open: () => held.resolve(),
    /** Lets those pass who come from now on; whoever is held stays so until the returned function is called. */
    openToOthers() {
      const { resolve } = held;
      held = Promise.withResolvers<void>();
      held.resolve();
      return resolve;
    },
    pass: () => held.promise,
  };
}

const stops: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

/** A region with so many organizations on record, each with a top-up and a key, whose ledger is about to start. */
async function region(count: number) {
  const clock = manualClock();
  const events = createMemoryEventStore({ clock });
  const state = emptyAdmission({ server: "server-1" });
  const memory = createMemoryAdmission({ clock, server: state.server, state });
  const directory = createMemoryKeyDirectory();
  const [slices, adoptions, following, folding] = [gate(), gate(), gate(), gate()];
  const adopted: string[] = [];
  let [adopting, mostAdopting] = [0, 0];
  const sliced: number[] = [];
  const alarms: string[] = [];
  const telemetry = { requestDone: () => {}, alarm: (what: string) => void alarms.push(what) };

  async function append(stream: string, made: NewEvent[]): Promise<void> {
    const [last] = await events.read(stream, { from: "end", direction: "backward", max: 1 });
    const answer = await events.append(stream, made, last?.revision ?? "no_stream");
    if (answer.outcome !== "appended") throw new Error(`not written: ${answer.outcome}`);
  }
  function topUp(number: number, topUpId: string): Promise<void> {
    const stream = streams.org(orgOf(number));
    const money = { amountMicro: CREDIT_MICRO, source: "manual", pot: "paid" } as const;
    const data = { orgId: orgOf(number), topUpId, ...money, bodySha256: SHA };
    return append(stream, [newEvent(stream, topUpId, "CreditToppedUp.v1", data, metadata)]);
  }
  async function create(number: number): Promise<void> {
    const [orgId, keyId] = [orgOf(number), idOf("key", number)];
    const [org, key] = [streams.org(orgId), streams.key(keyId)];
    const named = { orgId, name: "test", homeRegion: "us", bodySha256: SHA };
    await append(org, [newEvent(org, orgId, "OrganizationCreated.v1", named, metadata)]);
    await topUp(number, idOf("lot", number));
    const facts = { keyId, orgId, scope: "regional", homeRegion: "us", name: "test" } as const;
    const rest = { tokenHash: hashOf(number), displayPrefix: "x", limits: {}, bodySha256: SHA };
    await append(key, [newEvent(key, keyId, "KeyIssued.v1", { ...facts, ...rest }, metadata)]);
  }
  for (let number = 1; number <= count; number++) await create(number);

  /** The same events, as somebody follows them who is held up. */
  const followed = (held: ReturnType<typeof gate>): EventStore => ({
    ...events,
    async *follow(options) {
      for await (const batch of events.follow(options)) {
        await held.pass();
        yield batch;
      }
    },
  });
  const folded = await startProjector({
    store: followed(folding),
    clock,
    readModels: createMemoryReadModels(),
    signal: new AbortController().signal,
    onAlarm: telemetry.alarm,
  });
  const projector: Projector = {
    ...folded,
    async rows(projection, atLeast, tables, slice) {
      if (slice && "in" in slice && projection === "accounts") await slices.pass();
      const found = await folded.rows(projection, atLeast, tables, slice);
      if (slice && "in" in slice) sliced.push(slice.max);
      return found;
    },
  };
  const admission: AdmissionStore = {
    ...memory,
    async adopt(ask) {
      adopted.push(ask.state.orgId);
      mostAdopting = Math.max(mostAdopting, (adopting += 1));
      await adoptions.pass();
      adopting -= 1;
      return memory.adopt(ask);
    },
  };
  let beforeFence = async (_stream: string) => {};
  const store: EventStore = {
    ...followed(following),
    async fence(stream, event) {
      await beforeFence(stream);
      return events.fence(stream, event);
    },
  };
  const author = { region: "us", actor: "ledger" };
  return {
    clock,
    state,
    admission,
    directory,
    projector,
    slices,
    adoptions,
    following,
    folding,
    adopted,
    mostAdopting: () => mostAdopting,
    append,
    interrupt: (by: typeof beforeFence) => void (beforeFence = by),
    sliced,
    alarms,
    create,
    topUp,
    async start(): Promise<Ledger> {
      const data = { process: "ledger", instance: "test" } as const;
      const writerEpoch = await registerWriter(store, clock, author, data);
      const parts = { store, clock, telemetry, author, admission, directory, projector };
      const death = { by: "lock", firstEpoch: writerEpoch } as const;
      // One that lives, and is fenced.
      const gateway = { process: "gateway", instance: "other" } as const;
      await registerWriter(store, clock, author, gateway);
      const starting = startLedger({ ...parts, writerEpoch, death });
      await clock.advance(100);
      const ledger = await starting;
      stops.push(async () => {
        for (const each of [slices, adoptions, following, folding]) each.open();
        await Promise.all([ledger.stop(), clock.advance(10_000)]);
      });
      return ledger;
    },
    /** What is available to an organization, or why that is not known. */
    async available(number: number) {
      const found = await memory.figures({ orgId: orgOf(number) });
      return found.outcome === "figures" ? found.balance.availableMicro : found.fenced;
    },
    async owners(): Promise<number> {
      const stream = streams.writers("us");
      const all = await events.read(stream, { from: "start", direction: "forward", max: 100 });
      return all.filter(({ type }) => type === "OwnerChanged.v1").length;
    },
  };
}

test("a claim waits for no organization, and one that is wanted comes in before the others", async () => {
  const world = await region(3);
  world.slices.shut();
  const ledger = await world.start();
  expect([ledger.isReady(), await world.available(2)]).toEqual([true, "absent"]);
  await world.admission.want(orgOf(2));
  await world.clock.advance(100);
  expect([await world.available(1), await world.available(2)]).toEqual(["absent", CREDIT_MICRO]);
  // Who asks for what a command did waits for that organization, and for no other.
  expect(await ledger.applied(orgOf(3), 1n, 1_000)).toBe(true);
  expect([await world.available(1), await world.available(3)]).toEqual(["absent", CREDIT_MICRO]);
  const filled = ledger.filled("all", 1_000);
  world.slices.open();
  expect([await filled, await world.available(1)]).toEqual([true, CREDIT_MICRO]);
  expect(world.adopted).toEqual([orgOf(2), orgOf(3), orgOf(1)]);
});

test("the others come in behind it, a bounded number at a time", async () => {
  const world = await region(600);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  expect(new Set(world.adopted).size).toBe(600);
  expect(world.adopted).toHaveLength(600);
  expect(world.sliced).toEqual([1_000, 1_000, 500, 500, 500]);
  expect(world.mostAdopting()).toBe(100);
});

test("each comes in once, however many ask for it, and whoever is first", async () => {
  const world = await region(3);
  world.slices.shut();
  world.adoptions.shut();
  const ledger = await world.start();
  await world.admission.want(orgOf(1));
  await world.clock.advance(500);
  expect(world.adopted).toEqual([orgOf(1)]);
  world.slices.open();
  await world.topUp(1, idOf("lot", 11));
  const applied = ledger.applied(orgOf(1), 1n, 60_000);
  await world.clock.advance(500);
  await world.admission.want(orgOf(1));
  await world.clock.advance(500);
  world.adoptions.open();
  expect(await applied).toBe(true);
  await world.clock.advance(500);
  expect(world.adopted.toSorted()).toEqual([orgOf(1), orgOf(2), orgOf(3)]);
  expect(await world.available(1)).toBe(2 * CREDIT_MICRO);
  expect(await world.owners()).toBe(1);
});

test("an event waits for the adoption, however long, and is not behind", async () => {
  const world = await region(2);
  world.slices.shut();
  await world.start();
  world.adoptions.shut();
  await world.topUp(1, idOf("lot", 11));
  await world.clock.advance(20_000);
  expect([world.adopted, await world.available(1)]).toEqual([[orgOf(1)], "absent"]);
  world.adoptions.open();
  await world.clock.advance(100);
  expect([await world.available(1), await world.owners()]).toEqual([2 * CREDIT_MICRO, 1]);
});

test("what was folded since the claim is in an adoption, and is not applied again; what follows joins on", async () => {
  const world = await region(2);
  world.slices.shut();
  world.following.shut();
  await world.start();
  for (const number of [11, 12]) await world.topUp(1, idOf("lot", number));
  await world.clock.advance(1_000);
  await world.admission.want(orgOf(1));
  await world.clock.advance(100);
  expect(await world.available(1)).toBe(3 * CREDIT_MICRO);
  await world.topUp(1, idOf("lot", 13));
  await world.create(5);
  world.following.open();
  await world.clock.advance(1_000);
  expect([await world.available(1), await world.available(5)]).toEqual([
    4 * CREDIT_MICRO,
    CREDIT_MICRO,
  ]);
  expect([await world.owners(), world.alarms]).toEqual([1, []]);
});

test("what an older owner let be taken until the fence is in every adoption", async () => {
  const world = await region(1);
  world.following.shut();
  world.interrupt(async (stream) => {
    if (stream !== streams.journal("us", 1)) return;
    world.folding.shut();
    world.clock.timer(50, world.folding.open);
    const lots = [{ lotId: idOf("lot", 1), pot: "paid" as const, micro: 300 }];
    const taking = {
      requestId: idOf("req", 1),
      orgId: orgOf(1),
      homeRegion: "us",
      keyId: idOf("key", 1),
      processingArea: "us",
      ownerEpoch: 0,
      accounts: [{ account: `${orgOf(1)}/balance`, period: "total", micro: 300, lots }],
      holdMicro: 300,
      holdCostMicro: 300,
      model: "sim-flat",
      bindingIds: ["sim-flat@simulator"],
      priceVersion: "test",
    };
    await world.append(stream, [
      newEvent(stream, "taking", "RequestAdmitted.v1", taking, metadata),
    ]);
  });
  await world.start();
  expect(await world.available(1)).toBe(CREDIT_MICRO - 300);
});

test("an adoption of unknown outcome leads to a new claim, and so does one that is gone after it", async () => {
  const world = await region(2);
  const { adopt } = world.admission;
  let failures = 1;
  world.admission.adopt = (ask) =>
    failures-- > 0 ? Promise.reject(new Error("no answer")) : adopt(ask);
  const ledger = await world.start();
  const filled = ledger.filled("all", 60_000);
  await world.clock.advance(2_000);
  expect([await filled, await world.owners()]).toEqual([true, 2]);
  world.state.orgs.delete(orgOf(2));
  await world.admission.want(orgOf(2));
  await world.clock.advance(5_000);
  expect([await world.owners(), await world.available(2)]).toEqual([3, CREDIT_MICRO]);
});

test("of two that adopt at once, one stopped half way, only the newer's states count, and the older ends", async () => {
  const world = await region(2);
  world.adoptions.shut();
  const older = await world.start();
  await world.clock.advance(500);
  expect(world.adopted).toEqual([orgOf(1), orgOf(2)]);
  const wakeOlder = world.adoptions.openToOthers();
  const newer = await world.start();
  expect(await newer.filled("all", 60_000)).toBe(true);
  const [holder, keyId] = [{ requestId: idOf("req", 1), writerEpoch: 5 }, idOf("key", 1)];
  const ask = { orgId: orgOf(1), ownerEpoch: 2, ...holder, keyId, holdMicro: 400 };
  expect(await world.admission.admit(ask)).toMatchObject({ outcome: "admitted" });
  wakeOlder();
  await Promise.all([older.superseded, world.clock.advance(5_000)]);
  // What the older had read of the accounts knows nothing of the hold, and is not put in its place.
  expect([await world.available(1), await world.available(2)]).toEqual([
    CREDIT_MICRO - 400,
    CREDIT_MICRO,
  ]);
  await world.topUp(2, idOf("lot", 22));
  await world.clock.advance(1_000);
  expect([await world.available(2), newer.isReady(), older.isReady()]).toEqual([
    2 * CREDIT_MICRO,
    true,
    false,
  ]);
  expect(await world.owners()).toBe(2);
});

test("a new organization comes in once, though nothing can be read of the accounts", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  world.projector.rows = () => Promise.reject(new Error("the projector is gone"));
  await world.create(7);
  await world.clock.advance(1_000);
  expect(await world.available(7)).toBe(CREDIT_MICRO);
  expect(world.adopted.filter((orgId) => orgId === orgOf(7))).toHaveLength(1);
  expect(await world.owners()).toBe(1);
});

test("until every key is in, one that is missing is not nobody's; a put that fails is made again", async () => {
  const world = await region(1_100);
  const { put } = world.directory;
  let [puts, failures] = [0, 1];
  world.directory.put = async (all) => {
    puts += all.length;
    const at = all.findIndex(([hash]) => hash === hashOf(1_050));
    if (at < 0 || failures-- <= 0) return put(all);
    // What stands before it is in.
    await put(all.slice(0, at));
    throw new Error("no answer");
  };
  const { rows } = world.projector;
  const keys = gate();
  world.projector.rows = async (projection, ...asked) => {
    if (projection === "key-directory" && puts >= 500) await keys.pass();
    return rows(projection, ...asked);
  };
  keys.shut();
  const ledger = await world.start();
  expect(await world.directory.lookup(hashOf(1))).toMatchObject({ orgId: orgOf(1) });
  await expect(world.directory.lookup(hashOf(1_050))).rejects.toThrow("not been filled");
  const filled = ledger.filled("keys", 10_000);
  keys.open();
  await world.clock.advance(1_000);
  expect([await filled, world.alarms]).toEqual([true, ["ledger_fill_failed"]]);
  for (const number of [1_050, 1_100])
    expect(await world.directory.lookup(hashOf(number))).toMatchObject({ orgId: orgOf(number) });
  expect(await world.directory.lookup(hashOf(1_101))).toBeUndefined();
});

test("keys that were filled in and are gone mean that a server lost its memory", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  const { isKept } = world.directory;
  world.directory.isKept = (ownerEpoch) =>
    ownerEpoch === 1 ? Promise.resolve(false) : isKept(ownerEpoch);
  await world.clock.advance(3_000);
  expect([await world.owners(), ledger.isReady()]).toEqual([2, true]);
});

test("an ownership that had put everything in place is followed at once by the next, however many were lost before", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  const { isKept } = world.directory;
  for (let lost = 1; lost <= 10; lost++) {
    world.directory.isKept = (ownerEpoch) =>
      ownerEpoch <= lost ? Promise.resolve(false) : isKept(ownerEpoch);
    await world.clock.advance(1_000);
    expect([await world.owners(), ledger.isReady()]).toEqual([lost + 1, true]);
  }
});
