import { beforeEach, expect, test } from "vitest";
import { newEvent, streams, type NewEvent } from "#domain/events/events.ts";
import { ALIVE_EVERY_MS } from "#services/journal.ts";
import { metadataOf } from "#services/writers.ts";
import { manualClock, type ManualClock } from "#test/doubles/manual-clock.ts";
import { createMemoryEventStore, type MemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { standBy } from "./stand-by.ts";

const region = "us";
const author = { region, actor: "ledger" };
const OWNER = 3;
let clock: ManualClock;
let store: MemoryEventStore;
let over: boolean;
/** The owner that was over, as the wait gave it. */
let gave: number | undefined;
let stopping: AbortController;

beforeEach(() => {
  clock = manualClock();
  store = createMemoryEventStore({ clock });
  over = false;
  gave = undefined;
  stopping = new AbortController();
});

function begin(): void {
  void standBy({ store, clock, region }, stopping.signal).then((ownerEpoch) => {
    over = true;
    gave = ownerEpoch;
  });
}

async function append(stream: string, event: NewEvent): Promise<void> {
  const [last] = await store.read(stream, { from: "end", direction: "backward", max: 1 });
  await store.append(stream, [event], last?.revision ?? "no_stream");
}

async function claimed(): Promise<void> {
  const stream = streams.writers(region);
  const data = { ownerEpoch: 1, writerEpoch: OWNER, servers: ["one"] };
  const metadata = metadataOf(clock, author, "owner:1");
  await append(stream, newEvent(stream, "owner:1", "OwnerChanged.v1", data, metadata));
}

const journal = streams.journal(region, OWNER);
const alive = (count: number) =>
  append(
    journal,
    newEvent(journal, `alive:${count}`, "WriterAlive.v1", {}, metadataOf(clock, author, journal)),
  );

test("nobody owns the admission store: no wait", async () => {
  begin();
  await clock.advance(1000);
  expect(gave).toBe(0);
});

test("an owner that gives signs of life is left alone; one that falls silent is not, once it is dead to all", async () => {
  await claimed();
  begin();
  for (let count = 0; count < 30; count += 1) {
    await alive(count);
    await clock.advance(ALIVE_EVERY_MS);
  }
  expect(over).toBe(false);
  await clock.advance(5 * ALIVE_EVERY_MS);
  expect(over).toBe(false);
  await clock.advance(3 * ALIVE_EVERY_MS);
  expect(gave).toBe(1);
});

test("a word that is read long after it was asked for, by a process that was stopped, is no silence", async () => {
  await claimed();
  await alive(1);
  begin();
  await clock.advance(3000);
  const { read } = store;
  const wake = Promise.withResolvers<void>();
  store.read = async (...asked) => {
    const answer = await read(...asked);
    if (asked[0] === journal) await wake.promise;
    return answer;
  };
  await clock.advance(9 * ALIVE_EVERY_MS);
  store.read = read;
  await alive(2);
  wake.resolve();
  await clock.advance(3000);
  expect(over).toBe(false);
});

test("an owner that sealed its journal has gone", async () => {
  await claimed();
  await alive(1);
  begin();
  await clock.advance(3000);
  expect(over).toBe(false);
  const sealed = { by: "writer" } as const;
  const metadata = metadataOf(clock, author, journal);
  await append(journal, newEvent(journal, "sealed", "JournalSealed.v1", sealed, metadata));
  await clock.advance(2000);
  expect(gave).toBe(1);
});

test("an event store that cannot be read says nothing of anybody's silence", async () => {
  await claimed();
  await alive(1);
  begin();
  await clock.advance(3000);
  const { read } = store;
  store.read = () => Promise.reject(new Error("away"));
  await clock.advance(30 * ALIVE_EVERY_MS);
  expect(over).toBe(false);
  store.read = read;
  await clock.advance(9 * ALIVE_EVERY_MS);
  expect(over).toBe(true);
});

test("a stop ends the wait", async () => {
  await claimed();
  await alive(1);
  begin();
  await clock.advance(2000);
  stopping.abort();
  await clock.advance(2000);
  expect(over).toBe(true);
});
