import { expect, test } from "vitest";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { newEvent, streams } from "#domain/events/events.ts";
import type { EventStore } from "#services/ports.ts";
import { manualClock, settled } from "#test/doubles/manual-clock.ts";
import { openWriter, registerGateway } from "./writer.ts";

const author = { region: "us", actor: "gateway" };
const metadata = { at: 1, region: "us", actor: "ledger", $correlationId: "c", schema: 1 } as const;

/** A writer on a store whose reads can be held back. */
async function writing(beats = false) {
  const clock = manualClock();
  const inner = createMemoryEventStore({ clock });
  const alarms: string[] = [];
  let gate: Promise<void> | undefined;
  let open = () => {};
  const store: EventStore = {
    ...inner,
    async read(stream, options) {
      const events = await inner.read(stream, options);
      // The answer is what stood there when the question came, however late it arrives.
      await gate;
      return events;
    },
  };
  const telemetry = { requestDone: () => {}, alarm: (what: string) => void alarms.push(what) };
  const sought: (readonly string[])[] = [];
  const admission = {
    async seek(meant: readonly string[]) {
      sought.push(meant);
      throw new Error("no server answers");
    },
  };
  const parts = { store, admission, clock, telemetry, author, instance: "one", beats };
  const epoch = await registerGateway(parts);
  const writer = await openWriter(parts, epoch);
  const tail = async (stream: string) =>
    (await inner.read(stream, { from: "end", direction: "backward", max: 1 }))[0]?.revision ??
    "no_stream";
  return {
    clock,
    writer,
    alarms,
    sought,
    journal: (at: number) =>
      inner.read(streams.journal("us", at), { from: "start", direction: "forward", max: 100 }),
    stall() {
      gate = new Promise((resolve) => (open = resolve));
    },
    release() {
      gate = undefined;
      open();
    },
    async own(ownerEpoch: number) {
      const stream = streams.writers("us");
      const data = { ownerEpoch, writerEpoch: 99, servers: [`server-${ownerEpoch}`] };
      await inner.append(
        stream,
        [newEvent(stream, `owner:${ownerEpoch}`, "OwnerChanged.v1", data, metadata)],
        await tail(stream),
      );
    },
    async fence(ownerEpoch: number) {
      const stream = writer.life()?.journal.stream ?? "";
      const event = newEvent(
        stream,
        `fence:${ownerEpoch}`,
        "OwnerFenced.v1",
        { ownerEpoch },
        metadata,
      );
      await inner.fence(stream, event);
    },
    async seal(at: number) {
      const stream = streams.journal("us", at);
      await inner.append(
        stream,
        [newEvent(stream, "sealed", "JournalSealed.v1", { by: "ledger" }, metadata)],
        await tail(stream),
      );
    },
  };
}

const someEvent = (stream: string) => ({
  events: [newEvent(stream, "alive:x", "WriterAlive.v1", {}, metadata)],
});

test("calls at the same time share one read of the newest owner, and an epoch never goes back", async () => {
  const world = await writing();
  expect(world.writer.ownerEpoch()).toBe(0);
  await world.own(3);
  await Promise.all([world.writer.refreshOwner(), world.writer.refreshOwner()]);
  expect(world.writer.ownerEpoch()).toBe(3);
});

test("whoever reads the newest owner looks for its server; one that is not found keeps nobody from the epoch", async () => {
  const world = await writing();
  expect(world.sought).toEqual([]);
  for (const ownerEpoch of [3, 4]) {
    await world.own(ownerEpoch);
    await world.writer.refreshOwner();
    expect(world.sought.at(-1)).toEqual([`server-${ownerEpoch}`]);
  }
  expect(world.writer.ownerEpoch()).toBe(4);
});

test("however many look for the owner who can wait, it is read once in 250 ms, and once in 1 s while nothing is new", async () => {
  const world = await writing();
  await world.own(1);
  /** How many reads there are while everybody asks, every 10 ms. */
  const readsIn = async (ms: number) => {
    const before = world.sought.length;
    for (let at = 0; at < ms; at += 10) {
      for (let each = 0; each < 10; each++) void world.writer.lookForOwner();
      await world.clock.advance(10);
    }
    return world.sought.length - before;
  };
  expect([await readsIn(10), world.writer.ownerEpoch()]).toEqual([1, 1]);
  // At 250, 500, 1000, 2000, 3000…
  expect(await readsIn(10_000)).toBe(12);
  // Who takes cannot wait.
  await world.own(2);
  await world.writer.refreshOwner();
  expect(world.writer.ownerEpoch()).toBe(2);
  await world.own(3);
  expect([await readsIn(1_000), world.writer.ownerEpoch()]).toEqual([1, 3]);
});

test("a journal sealed under it ends its life and begins another, with an epoch and a journal of its own", async () => {
  const world = await writing();
  const first = world.writer.life();
  if (!first) throw new Error("there is no life");
  await world.seal(first.journal.writerEpoch);
  expect(await first.journal.record(someEvent(first.journal.stream))).toEqual({
    outcome: "sealed",
  });
  await settled();
  const second = world.writer.life();
  expect(first.over.aborted).toBe(true);
  expect(second?.over.aborted).toBe(false);
  expect(second?.journal.writerEpoch).toBeGreaterThan(first.journal.writerEpoch);
  expect(world.alarms).toEqual(["journal_sealed_under_us"]);
});

test("a new life reads the owner after it was registered, never with a read that had begun before", async () => {
  const world = await writing();
  const first = world.writer.life();
  if (!first) throw new Error("there is no life");
  await world.seal(first.journal.writerEpoch);
  await first.journal.record(someEvent(first.journal.stream));
  // A request that was fenced asks who owns the store, and the answer is slow.
  world.stall();
  void world.writer.refreshOwner();
  await settled();
  await world.own(7);
  world.release();
  await world.clock.advance(1_000);
  expect(world.writer.life()).toBeDefined();
  expect(world.writer.ownerEpoch()).toBe(7);
});

test("a stop while a new life begins seals that one too, and nothing beats on", async () => {
  const world = await writing(true);
  const first = world.writer.life();
  if (!first) throw new Error("there is no life");
  await world.seal(first.journal.writerEpoch);
  await first.journal.record(someEvent(first.journal.stream));
  world.stall();
  await settled();
  const stopping = world.writer.stop();
  world.release();
  await settled();
  await stopping;
  const [last] = (await world.journal(world.writer.life()?.journal.writerEpoch ?? -1)).slice(-1);
  expect(last).toMatchObject({ type: "JournalSealed.v1", data: { by: "writer" } });
  await world.clock.advance(60_000);
  expect(world.clock.armed()).toBe(0);
});

test("one that takes nothing learns of a new owner by its sign of life, and looks for its server", async () => {
  const world = await writing(true);
  await world.own(3);
  await world.fence(3);
  await world.clock.advance(9_900);
  expect(world.writer.ownerEpoch()).toBe(0);
  await world.clock.advance(200);
  expect(world.writer.ownerEpoch()).toBe(3);
  expect(new Set(world.sought.map(String))).toEqual(new Set(["server-3"]));
});

test("with each sign of life it looks for its server, also where nobody asks anything", async () => {
  const world = await writing(true);
  await world.own(3);
  await world.clock.advance(25_000);
  expect(world.sought).toEqual([["server-3"], ["server-3"]]);
});

test("where silence seals it gives a sign of life every 10 s", async () => {
  const world = await writing(true);
  await world.clock.advance(35_000);
  const events = await world.journal(world.writer.life()?.journal.writerEpoch ?? -1);
  expect(events.map((event) => event.type)).toEqual([
    "WriterAlive.v1",
    "WriterAlive.v1",
    "WriterAlive.v1",
  ]);
});
