import { expect, test } from "vitest";
import { newEvent, streams } from "#domain/events/events.ts";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import type { EventStore } from "#services/ports.ts";
import { funded, KEY, ORG } from "#test/worlds/accounts-world.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { lookAfterWanted } from "./wanted.ts";

const WRITER = 7;
const stream = streams.journal("us", WRITER);
const metadata = { at: 1, region: "us", actor: "ledger", $correlationId: "c", schema: 1 } as const;

/** A ledger that looks after one organization, in which a writer has taken money; the test says what is carried. */
async function looking() {
  const clock = manualClock();
  const inner = createMemoryEventStore({ clock });
  const { admission: state } = funded();
  const admission = createMemoryAdmission({ clock, server: state.server, state });
  const filled = { keys: true, all: true };
  let [reads, failures, lost] = [0, 0, 0];
  let carriedTo: bigint | "start" = "start";
  let hanging: Promise<never> | undefined;
  const store: EventStore = {
    ...inner,
    read(of, options) {
      reads += 1;
      if (hanging) return hanging;
      return failures-- > 0 ? Promise.reject(new Error("no answer")) : inner.read(of, options);
    },
  };
  const parts = { admission, clock, store, author: { region: "us", actor: "ledger" } };
  const ownership = { ownerEpoch: 1, servers: [state.server], position: "start" as const };
  const asked: string[] = [];
  const missed: string[] = [];
  const orgs = new Map([[ORG, 6n]]);
  const behind = new Set<string>();
  const cancel = lookAfterWanted({
    parts,
    ownership,
    adoption: { orgs, wantAll: async (orgIds) => void asked.push(...orgIds) },
    keys: { look: () => Promise.resolve(true) },
    filled,
    carriedTo: () => carriedTo,
    hasAll: (orgId) => !behind.has(orgId),
    catchUp: () => Promise.resolve(),
    onLost: () => void (lost += 1),
    onMissed: (orgId) => void missed.push(orgId),
  });
  await inner.append(
    stream,
    [newEvent(stream, "alive:1", "WriterAlive.v1", {}, metadata)],
    "no_stream",
  );
  let number = 0;
  return {
    clock,
    admission,
    filled,
    asked,
    missed,
    behind,
    cancel,
    reads: () => reads,
    lost: () => lost,
    hangReads: () => void (hanging = new Promise(() => {})),
    failReads: (count: number) => (failures = count),
    carryTo: (position: bigint) => (carriedTo = position),
    held: async () => {
      const found = await admission.figures({ orgId: ORG });
      return found.outcome === "figures" ? found.balance.heldMicro : found;
    },
    take: (writerEpoch = WRITER) =>
      admission.admit({
        orgId: ORG,
        ownerEpoch: 1,
        requestId: `req_${(number += 1)}`,
        writerEpoch,
        keyId: KEY,
        holdMicro: 10,
      }),
    async seal(): Promise<bigint> {
      const event = newEvent(stream, "sealed", "JournalSealed.v1", { by: "ledger" }, metadata);
      const answer = await inner.append(stream, [event], 0n);
      if (answer.outcome !== "appended") throw new Error(`no seal: ${answer.outcome}`);
      return answer.position;
    },
  };
}

test("a live writer's hold is never swept, however slow its writer is", async () => {
  const world = await looking();
  // All that its journal holds is carried; only the seal is missing.
  world.carryTo(1_000n);
  await world.take();
  for (let minute = 0; minute < 60; minute++) {
    await world.clock.advance(60_000);
    expect(await world.held()).toBe(10);
  }
  expect(world.reads()).toBeGreaterThan(50);
});

test("a sealed writer's holds are swept as soon as its seal is carried, and again whenever one is found", async () => {
  const world = await looking();
  await world.take();
  await world.take(8);
  await world.clock.advance(31_000);
  const seal = await world.seal();
  for (const position of [seal - 1n, seal]) {
    expect(await world.held()).toBe(20);
    await world.clock.advance(2_000);
    world.carryTo(position);
  }
  // Something that is recorded still waits for the organization: an end of that very hold, for all that is known.
  world.behind.add(ORG);
  await world.held();
  await world.clock.advance(2_000);
  expect(await world.held()).toBe(20);
  world.behind.clear();
  await world.clock.advance(2_000);
  expect(await world.held()).toBe(10);
  for (let again = 0; again < 3; again++) {
    await world.take();
    await world.clock.advance(31_000);
    expect(await world.held()).toBe(20);
    await world.clock.advance(2_000);
    expect(await world.held()).toBe(10);
  }
});

test("a journal that cannot be read is read again when somebody comes upon the hold again", async () => {
  const world = await looking();
  await world.take();
  world.carryTo(await world.seal());
  await world.clock.advance(31_000);
  world.failReads(1);
  await world.held();
  await world.clock.advance(2_000);
  expect(await world.held()).toBe(10);
  await world.clock.advance(2_000);
  expect(await world.held()).toBe(0);
});

test("a journal that is never read to its end keeps the ledger from nothing else", async () => {
  const world = await looking();
  await world.take();
  world.carryTo(await world.seal());
  await world.clock.advance(31_000);
  world.hangReads();
  await world.held();
  await world.clock.advance(3_000);
  world.admission.seek = () => Promise.resolve(["another"]);
  await world.clock.advance(2_000);
  expect(world.lost()).toBeGreaterThan(0);
});

test("a journal is read once, however often its hold is found, and only when one is old", async () => {
  const world = await looking();
  await world.take();
  await world.clock.advance(29_000);
  await world.held();
  await world.clock.advance(10_000);
  expect(world.reads()).toBe(0);
  await Promise.all([world.held(), world.held(), world.take()]);
  await world.clock.advance(10_000);
  expect(world.reads()).toBe(1);
});

test("while not all are in, one that is wanted is adopted long before whoever wants it gives up", async () => {
  const world = await looking();
  await world.admission.want("org_A");
  await world.clock.advance(400);
  expect(world.asked).toEqual([]);
  world.filled.all = false;
  await world.clock.advance(100);
  expect(world.asked).toEqual(["org_A"]);
  await world.admission.want("org_B");
  await world.clock.advance(100);
  expect(world.asked).toEqual(["org_A", "org_B"]);
  expect(world.lost()).toBe(0);
});

test("an organization that was adopted and is gone, or is on another server, is missed", async () => {
  const world = await looking();
  await world.admission.want(ORG);
  await world.admission.want("org_nobody");
  await world.clock.advance(2_000);
  expect(world.missed).toEqual([]);
  for (const fenced of ["away", "absent", "server"] as const) {
    world.admission.figures = () => Promise.resolve({ outcome: "fenced", fenced });
    await world.admission.want(ORG);
    await world.clock.advance(2_000);
  }
  expect(world.missed).toEqual([ORG, ORG]);
  world.cancel();
  expect(world.clock.armed()).toBe(0);
});

test("a server that is away has lost nothing; one that nobody named has taken another's place", async () => {
  const world = await looking();
  world.admission.seek = (meant) => Promise.resolve(meant);
  await world.clock.advance(5_000);
  expect(world.lost()).toBe(0);
  world.admission.seek = (meant) => Promise.resolve([...meant, "another"]);
  await world.clock.advance(2_000);
  expect(world.lost()).toBeGreaterThan(0);
});
