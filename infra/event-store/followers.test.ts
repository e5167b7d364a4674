import { expect, it } from "vitest";
import type { RecordedEvent } from "#domain/events/events.ts";
import { createFollowers } from "./followers.ts";

function eventAt(position: number): RecordedEvent {
  return {
    id: `00000000-0000-5000-8000-${String(position).padStart(12, "0")}`,
    type: "WriterAlive.v1",
    data: {},
    metadata: { at: 0, region: "us", actor: "gateway", $correlationId: "", schema: 1 },
    stream: "journal-us-1",
    revision: BigInt(position),
    position: BigInt(position),
    recordedAt: 0,
  };
}

/** A store of which a test says what is stored, read two events at a time, and what is handed over. */
function setUp(bufferEventsMax = 100) {
  const stored: RecordedEvent[] = [];
  let reads = 0;
  const followers: ReturnType<typeof createFollowers> = createFollowers({
    after(position) {
      reads += 1;
      const events = stored.filter((event) => event.position > position).slice(0, 2);
      return {
        events,
        position: Number(events.at(-1)?.position ?? position),
        atEnd: events.length < 2,
      };
    },
    pause: () => Promise.resolve(),
    bufferEventsMax,
  });
  const seen: number[] = [];
  const stop = new AbortController();
  const start = async () => {
    for await (const batch of followers.follow({ after: "start", signal: stop.signal }))
      seen.push(...batch.map((event) => Number(event.position)));
  };
  /** Lets everything that waits on nothing but promises go on. */
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  return { stored, followers, seen, stop, start, settle, reads: () => reads };
}

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, at) => from + at);
const events = (from: number, to: number) => range(from, to).map((position) => eventAt(position));

it("gives what was handed over without reading again, and sleeps in between", async () => {
  const { stored, followers, seen, stop, start, settle, reads } = setUp();
  stored.push(...events(1, 3));
  const done = start();
  await settle();
  expect(seen).toEqual([1, 2, 3]);
  const before = reads();
  for (let position = 4; position < 8; position += 1) {
    followers.handOver(events(position, position));
    await settle();
  }
  expect(seen).toEqual(range(1, 7));
  expect(reads()).toBe(before);
  stop.abort();
  await done;
  expect(followers.any()).toBe(false);
});

it("does not repeat what it had already read, wholly or in part", async () => {
  const { stored, followers, seen, stop, start, settle } = setUp();
  stored.push(...events(1, 5));
  const done = start();
  await settle();
  followers.handOver(events(1, 3));
  followers.handOver(events(4, 5));
  followers.handOver(events(4, 7));
  await settle();
  expect(seen).toEqual(range(1, 7));
  stop.abort();
  await done;
});

it("reads the store when what is handed over does not join", async () => {
  const { stored, followers, seen, stop, start, settle } = setUp();
  const done = start();
  await settle();
  stored.push(...events(1, 6));
  followers.handOver(events(5, 6));
  await settle();
  expect(seen).toEqual(range(1, 6));
  stop.abort();
  await done;
});

it("reads the store when its buffer is full, and joins again", async () => {
  const { stored, followers, seen, stop, start, settle } = setUp(3);
  const done = start();
  await settle();
  stored.push(...events(1, 6));
  followers.handOver(events(1, 2));
  followers.handOver(events(3, 4));
  followers.handOver(events(5, 6));
  await settle();
  expect(seen).toEqual(range(1, 6));
  followers.handOver(events(7, 8));
  await settle();
  expect(seen).toEqual(range(1, 8));
  stop.abort();
  await done;
});

it("looks again when told to", async () => {
  const { stored, followers, seen, stop, start, settle } = setUp();
  const done = start();
  await settle();
  stored.push(...events(1, 2));
  await settle();
  expect(seen).toEqual([]);
  followers.lookAgain();
  await settle();
  expect(seen).toEqual([1, 2]);
  stop.abort();
  await done;
});

it("ends all when the store ends", async () => {
  const { followers, start, settle } = setUp();
  const all = [start(), start()];
  await settle();
  followers.end();
  await Promise.all(all);
  await start();
});
