import { randomUUID } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, type TestContext } from "vitest";
import type { NewEvent, RecordedEvent } from "#domain/events/events.ts";
import { APPEND_BYTES_MAX, APPEND_EVENTS_MAX } from "#services/ports.ts";
import type { AppendOutcome, Clock, EventStore } from "#services/ports.ts";
import { admissions, admitted, fence, largeEvent, usage } from "./event-samples.ts";

export interface StoreUnderTest extends EventStore {
  close(): Promise<void>;
}

/** Trouble that a harness can really make in the store, and end again while it runs. */
export interface Trouble {
  begin(): Promise<void>;
  end(): Promise<void>;
}

/** What an adapter's tests bring along: one store's data, opened as often as a test wants. A string says why not. */
export interface StoreHarness<S extends StoreUnderTest = StoreUnderTest> {
  open(options?: { clock?: Clock; followEventsMax?: number }): Promise<S>;
  readonly survivesClosing: true | string;
  /** Every harness has a store of its own, which is empty at first. */
  readonly isItsOwn: true | string;
  /** The store dates events by the clock that it is opened with. */
  readonly keepsOurTime: true | string;
  /** A live follower is given each append in one piece. */
  readonly givesWholeAppends: true | string;
  readonly trouble: {
    readonly [reason in "disk_full" | "read_only"]: ((store: S) => Trouble) | string;
  };
  remove(): Promise<void>;
}

/** Streams that no run has used, and where the store ended before: a server's store is older than its tests. */
let region = "";
let before: bigint | "start" = "start";
const journal = (writer: number) => `journal-${region}-${writer}`;

/** Reads batches until `count` events have come. */
export async function take(
  batches: AsyncIterable<RecordedEvent[]>,
  count: number,
): Promise<RecordedEvent[]> {
  const events: RecordedEvent[] = [];
  for await (const batch of batches) {
    expect(batch.length).toBeGreaterThan(0);
    events.push(...batch);
    if (events.length >= count) break;
  }
  return events;
}

export function position(outcome: AppendOutcome): bigint {
  if (outcome.outcome !== "appended") throw new Error(`not appended: ${JSON.stringify(outcome)}`);
  return outcome.position;
}

const ids = (events: readonly { id: string }[]) => events.map((event) => event.id);
const appended = (revision: bigint): unknown =>
  expect.objectContaining({ outcome: "appended", revision });

/** Holds an event store to its port. Every failure is provoked for real; what a harness cannot do is skipped with its reason. */
export function eventStoreSuite<S extends StoreUnderTest>(
  name: string,
  make: () => Promise<StoreHarness<S>>,
): void {
  describe(`event store: ${name}`, () => {
    let harness: StoreHarness<S>;
    let store: S;

    beforeEach(async () => {
      harness = await make();
      store = await harness.open();
      region = randomUUID().slice(0, 8);
      before = await store.head();
    });
    afterEach(async () => {
      await store.close();
      await harness.remove();
    });

    describe("append", () => {
      appendTests(() => store);
    });
    describe("trouble", () => {
      troubleTests(
        () => store,
        () => harness,
      );
    });
    describe("read", () => {
      readTests(
        () => store,
        () => harness,
      );
    });
    describe("fence", () => {
      fenceTests(() => store);
    });
    describe("follow", () => {
      followTests(
        () => store,
        () => harness,
      );
    });

    it("keeps everything over a restart, and knows a repeat", async (context: TestContext) => {
      if (harness.survivesClosing !== true) context.skip(harness.survivesClosing);
      const batch = admissions(journal(1), 1, 3);
      const outcome = await store.append(journal(1), batch, "no_stream");
      await store.append(journal(1), [usage(journal(1), 1)], 2n);
      const before = await store.read(journal(1), { from: "start", direction: "forward", max: 10 });
      await store.close();
      store = await harness.open();
      expect(await store.append(journal(1), batch, "no_stream")).toEqual(outcome);
      expect(
        await store.read(journal(1), { from: "start", direction: "forward", max: 10 }),
      ).toEqual(before);
      expect(await store.append(journal(1), [usage(journal(1), 2)], 3n)).toEqual(appended(4n));
    });

    it("has an identity that no other store has, and keeps it", async (context: TestContext) => {
      const identity = await store.identity();
      expect(identity).toMatch(/^[0-9a-f]{32}$/);
      if (harness.survivesClosing === true) {
        await store.close();
        store = await harness.open();
        expect(await store.identity()).toBe(identity);
      }
      if (harness.isItsOwn !== true) context.skip(harness.isItsOwn);
      const other = await make();
      const elsewhere = await other.open();
      expect(await elsewhere.identity()).not.toBe(identity);
      await elsewhere.close();
      await other.remove();
      if (harness.survivesClosing !== true) context.skip(harness.survivesClosing);
    });

    it("says which event stands at a position, and that none stands between two", async () => {
      await store.append(journal(1), admissions(journal(1), 1, 3), "no_stream");
      const events = await store.read(journal(1), { from: "start", direction: "forward", max: 3 });
      const marks = new Map(
        events.map(({ id, recordedAt, position }) => [position, { id, recordedAt }]),
      );
      // In some stores the next position is the next event's.
      for (const at of [...marks.keys()].flatMap((one) => [one, one + 1n]))
        expect(await store.eventAt(at)).toEqual(marks.get(at));
    });

    it("never lets recordedAt go back, also when the clock does", async (context: TestContext) => {
      if (harness.keepsOurTime !== true) context.skip(harness.keepsOurTime);
      await store.close();
      let nowMs = 1_790_000_000_500;
      const clock: Clock = { now: () => nowMs, elapsed: () => 0, timer: () => () => undefined };
      store = await harness.open({ clock });
      await store.append(journal(1), admissions(journal(1), 1, 1), "no_stream");
      nowMs -= 60_000;
      await store.append(journal(2), admissions(journal(2), 2, 1), "no_stream");
      nowMs += 120_000;
      await store.append(journal(1), admissions(journal(1), 3, 1), 0n);
      const events = await take(
        store.follow({ after: before, signal: AbortSignal.timeout(10_000) }),
        3,
      );
      expect(events.map((event) => event.recordedAt)).toEqual([
        1_790_000_000_500, 1_790_000_000_500, 1_790_000_060_500,
      ]);
    });

    it("refuses appends after close, and ends its followers", async () => {
      await store.append(journal(1), admissions(journal(1), 1, 1), "no_stream");
      const ended = (async () => {
        for await (const _ of store.follow({
          after: before,
          signal: new AbortController().signal,
        }));
        return "ended";
      })();
      await store.close();
      expect(await store.append(journal(1), admissions(journal(1), 2, 1), 0n)).toEqual({
        outcome: "refused",
        reason: "closed",
      });
      expect(await ended).toBe("ended");
    });
  });
}

function appendTests(store: () => StoreUnderTest): void {
  it("gives the last event's revision and position, and counts both up", async () => {
    const first = await store().append(journal(1), admissions(journal(1), 1, 3), "no_stream");
    expect(first).toEqual(appended(2n));
    const second = await store().append(journal(1), admissions(journal(1), 4, 2), 2n);
    expect(second).toEqual(appended(4n));
    expect(position(second)).toBeGreaterThan(position(first));
    expect(await store().head()).toBe(position(second));
  });

  it("tells a conflict and the actual revision", async () => {
    expect(await store().append(journal(1), admissions(journal(1), 1, 1), 0n)).toEqual({
      outcome: "conflict",
      actual: "no_stream",
    });
    await store().append(journal(1), admissions(journal(1), 1, 2), "no_stream");
    for (const expected of ["no_stream", 0n, 2n, 2n ** 60n] as const) {
      const outcome = await store().append(journal(1), admissions(journal(1), 8, 1), expected);
      expect(outcome).toEqual({ outcome: "conflict", actual: 1n });
    }
    expect(
      await store().read(journal(1), { from: "start", direction: "forward", max: 10 }),
    ).toHaveLength(2);
  });

  it("answers an identical repeat as the first time, also after others", async () => {
    const batch = admissions(journal(1), 2, 3);
    await store().append(journal(1), admissions(journal(1), 1, 1), "no_stream");
    const first = await store().append(journal(1), batch, 0n);
    expect(await store().append(journal(1), batch, 0n)).toEqual(first);
    await store().append(journal(2), admissions(journal(2), 9, 1), "no_stream");
    await store().append(journal(1), admissions(journal(1), 5, 1), 3n);
    expect(await store().append(journal(1), batch, 0n)).toEqual(first);
    expect(
      await store().read(journal(1), { from: "start", direction: "forward", max: 10 }),
    ).toHaveLength(5);
  });

  it("finds a repeat in the same burst as the first call", async () => {
    const batch = admissions(journal(1), 1, 2);
    const [first, second] = await Promise.all([
      store().append(journal(1), batch, "no_stream"),
      store().append(journal(1), batch, "no_stream"),
    ]);
    expect(first).toEqual(appended(1n));
    expect(second).toEqual(first);
    expect(
      await store().read(journal(1), { from: "start", direction: "forward", max: 10 }),
    ).toHaveLength(2);
  });

  it("refuses to mix old and new: a batch that was cut anew is a conflict", async () => {
    await store().append(journal(1), admissions(journal(1), 1, 3), "no_stream");
    const actual = { outcome: "conflict", actual: 2n };
    expect(await store().append(journal(1), admissions(journal(1), 1, 4), "no_stream")).toEqual(
      actual,
    );
    expect(await store().append(journal(1), admissions(journal(1), 2, 3), 0n)).toEqual(actual);
    const mixed = [admitted(journal(1), 1), admitted(journal(1), 99), admitted(journal(1), 3)];
    expect(await store().append(journal(1), mixed, "no_stream")).toEqual(actual);
    // A shorter cut is a part of what was written, at its place: the same facts, so a success.
    expect(await store().append(journal(1), admissions(journal(1), 1, 2), "no_stream")).toEqual(
      appended(1n),
    );
  });

  it("lets exactly one of many concurrent appenders win", async () => {
    await store().append(journal(1), admissions(journal(1), 1, 1), "no_stream");
    const outcomes = await Promise.all(
      Array.from({ length: 50 }, (_, at) =>
        store().append(journal(1), admissions(journal(1), 100 + at, 2), 0n),
      ),
    );
    expect(outcomes.filter(({ outcome }) => outcome === "appended")).toHaveLength(1);
    expect(outcomes.filter(({ outcome }) => outcome === "conflict")).toHaveLength(49);
    expect(
      await store().read(journal(1), { from: "start", direction: "forward", max: 10 }),
    ).toHaveLength(3);
  });

  it("refuses what is too large, and only that", async () => {
    const tooLarge = { outcome: "refused", reason: "too_large" };
    const many = admissions(journal(1), 1, APPEND_EVENTS_MAX + 1);
    const [count, bytes, small] = await Promise.all([
      store().append(journal(1), many, "no_stream"),
      store().append(journal(1), [largeEvent(journal(1), 1, APPEND_BYTES_MAX)], "no_stream"),
      store().append(journal(1), many.slice(1), "no_stream"),
    ]);
    expect([count, bytes]).toEqual([tooLarge, tooLarge]);
    expect(small).toEqual(appended(499n));
    const fits = largeEvent(journal(1), 2, APPEND_BYTES_MAX - 2_000);
    expect(await store().append(journal(1), [fits], 499n)).toEqual(appended(500n));
  });

  it("throws for an append of nothing", async () => {
    await expect(store().append(journal(1), [], "no_stream")).rejects.toThrow(TypeError);
  });
}

function troubleTests<S extends StoreUnderTest>(
  store: () => S,
  harness: () => StoreHarness<S>,
): void {
  for (const reason of ["disk_full", "read_only"] as const) {
    it(`refuses with ${reason}, writes nothing of it, and recovers`, async (context) => {
      const make = harness().trouble[reason];
      if (typeof make === "string") return context.skip(make);
      const trouble = make(store());
      const old = admissions(journal(1), 1, 2);
      const first = await store().append(journal(1), old, "no_stream");
      await trouble.begin();
      // Large enough that no free page of the file could take it.
      const batch = admissions(journal(1), 10, 400);
      const other = admissions(journal(2), 1, 400);
      const [refused, alsoRefused, repeated] = await Promise.all([
        store().append(journal(1), batch, 1n),
        store().append(journal(2), other, "no_stream"),
        // It is in the file, so it must not hear that it is certainly not written.
        store().append(journal(1), old, "no_stream"),
      ]);
      expect([refused, alsoRefused]).toEqual([
        { outcome: "refused", reason },
        { outcome: "refused", reason },
      ]);
      expect(repeated).toEqual(first);
      expect(
        ids(await store().read(journal(1), { from: "start", direction: "forward", max: 500 })),
      ).toEqual(ids(old));
      expect(
        await store().read(journal(2), { from: "start", direction: "forward", max: 500 }),
      ).toEqual([]);
      await trouble.end();
      // Cut anew, as a refusal allows.
      expect(await store().append(journal(1), batch.slice(1), 1n)).toEqual(appended(400n));
      expect(await store().append(journal(2), other, "no_stream")).toEqual(appended(399n));
      return undefined;
    });
  }
}

/** An event's own members and its metadata, which an event that was read parses when it is asked for. */
function plain(event: RecordedEvent): RecordedEvent {
  return { ...event, metadata: event.metadata };
}

function readTests<S extends StoreUnderTest>(store: () => S, harness: () => StoreHarness<S>): void {
  it("gives back what was appended, with all fields", async () => {
    const event = admitted(journal(1), 1);
    const outcome = await store().append(journal(1), [event], "no_stream");
    const [recorded] = await store().read(journal(1), {
      from: "start",
      direction: "forward",
      max: 1,
    });
    expect(recorded && plain(recorded)).toEqual({
      id: event.id,
      type: event.type,
      data: event.data,
      metadata: event.metadata,
      stream: journal(1),
      revision: 0n,
      position: position(outcome),
      recordedAt: expect.any(Number) as unknown,
    });
  });

  it("reads both ways, from either end or a revision, inclusive", async () => {
    const events: NewEvent[] = admissions(journal(1), 1, 5);
    await store().append(journal(1), events, "no_stream");
    const read = async (
      from: bigint | "start" | "end",
      direction: "forward" | "backward",
      max: number,
    ) =>
      (await store().read(journal(1), { from, direction, max })).map((event) =>
        Number(event.revision),
      );
    expect(await read("start", "forward", 10)).toEqual([0, 1, 2, 3, 4]);
    expect(await read(3n, "forward", 10)).toEqual([3, 4]);
    expect(await read(1n, "forward", 2)).toEqual([1, 2]);
    expect(await read(5n, "forward", 2)).toEqual([]);
    expect(await read("end", "backward", 2)).toEqual([4, 3]);
    expect(await read(1n, "backward", 10)).toEqual([1, 0]);
    expect(await read("start", "backward", 10)).toEqual([0]);
    expect(await read("end", "forward", 10)).toEqual([]);
    expect(await read("start", "forward", 0)).toEqual([]);
  });

  it("reads more than fits in one slice", async () => {
    for (let at = 0; at < 5; at += 1) {
      const expected = at === 0 ? "no_stream" : BigInt(at * 500 - 1);
      await store().append(journal(1), admissions(journal(1), 1 + at * 500, 500), expected);
    }
    const all = await store().read(journal(1), {
      from: "start",
      direction: "forward",
      max: 10_000,
    });
    expect(all.map((event) => Number(event.revision))).toEqual(
      Array.from({ length: 2_500 }, (_, at) => at),
    );
    const back = await store().read(journal(1), { from: "end", direction: "backward", max: 2_400 });
    expect(back.map((event) => Number(event.revision))).toEqual(
      Array.from({ length: 2_400 }, (_, at) => 2_499 - at),
    );
  });

  it("finds an unknown stream empty", async () => {
    expect(await store().read(journal(9), { from: "start", direction: "forward", max: 5 })).toEqual(
      [],
    );
  });

  it("finds an empty store empty", async (context: TestContext) => {
    const { isItsOwn } = harness();
    if (isItsOwn !== true) context.skip(isItsOwn);
    expect(await store().head()).toBe("start");
  });
}

function fenceTests(store: () => StoreUnderTest): void {
  it("appends at any revision, once", async () => {
    const first = await store().fence(journal(1), fence(journal(1), 7));
    await store().append(journal(1), admissions(journal(1), 1, 2), 0n);
    const second = await store().fence(journal(1), fence(journal(1), 8));
    expect(second).toBeGreaterThan(first);
    await store().append(journal(1), admissions(journal(1), 3, 1), 3n);
    expect(await store().fence(journal(1), fence(journal(1), 7))).toBe(first);
    expect(await store().fence(journal(1), fence(journal(1), 8))).toBe(second);
    const events = await store().read(journal(1), { from: "start", direction: "forward", max: 10 });
    expect(events.map((event) => event.type)).toEqual([
      "OwnerFenced.v1",
      "RequestAdmitted.v1",
      "RequestAdmitted.v1",
      "OwnerFenced.v1",
      "RequestAdmitted.v1",
    ]);
  });

  it("makes a writer that did not know of it meet a conflict", async () => {
    await store().append(journal(1), admissions(journal(1), 1, 1), "no_stream");
    await store().fence(journal(1), fence(journal(1), 7));
    expect(await store().append(journal(1), admissions(journal(1), 2, 1), 0n)).toEqual({
      outcome: "conflict",
      actual: 1n,
    });
  });
}

/** Four appenders, each on a stream of its own, `batches` × 5 events each. */
async function appendConcurrently(store: EventStore, batches: number): Promise<void> {
  await Promise.all(
    [1, 2, 3, 4].map(async (writer) => {
      const stream = journal(writer);
      for (let batch = 0; batch < batches; batch += 1) {
        const expected = batch === 0 ? "no_stream" : BigInt(batch * 5 - 1);
        const outcome = await store.append(stream, admissions(stream, batch * 5, 5), expected);
        expect(outcome.outcome).toBe("appended");
      }
    }),
  );
}

function followTests<S extends StoreUnderTest>(
  store: () => S,
  harness: () => StoreHarness<S>,
): void {
  const signal = () => AbortSignal.timeout(50_000);

  function expectWhole(events: readonly RecordedEvent[]): void {
    const positions = events.map((event) => event.position);
    expect(positions).toEqual(
      [...new Set(positions)].sort((left, right) => (left < right ? -1 : 1)),
    );
    const next = new Map<string, bigint>();
    for (const { stream, revision } of events) {
      expect(revision).toBe(next.get(stream) ?? 0n);
      next.set(stream, revision + 1n);
    }
  }

  it("has no gap, no repeat and no other order over the switch to live, with appends going on", async () => {
    const writing = appendConcurrently(store(), 500);
    const early = take(store().follow({ after: before, signal: signal() }), 10_000);
    const newest = { from: "end", direction: "backward", max: 1 } as const;
    for (let written = 0n; written < 750n; await new Promise((resolve) => setTimeout(resolve, 1)))
      written = (await store().read(journal(1), newest))[0]?.revision ?? 0n;
    const [first, second] = await Promise.all([
      early,
      take(store().follow({ after: before, signal: signal() }), 10_000),
      writing,
    ]);
    expect(first).toHaveLength(10_000);
    expectWhole(first);
    expect(second.map(plain)).toEqual(first.map(plain));
    const stored = await store().read(journal(3), {
      from: "start",
      direction: "forward",
      max: 10_000,
    });
    expect(first.filter((event) => event.stream === journal(3)).map(plain)).toEqual(
      stored.map(plain),
    );
  });

  it("serves a follower that is slower than its buffer", async () => {
    await store().close();
    const slow = await harness().open({ followEventsMax: 20 });
    const writing = appendConcurrently(slow, 50);
    const events: RecordedEvent[] = [];
    for await (const batch of slow.follow({ after: before, signal: signal() })) {
      events.push(...batch);
      if (events.length >= 1_000) break;
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
    await writing;
    expectWhole(events);
    expect(events).toHaveLength(1_000);
    await slow.close();
  });

  it("gives only what stands after a position, stored and live", async () => {
    await appendConcurrently(store(), 3);
    const all = await take(store().follow({ after: before, signal: signal() }), 60);
    const after = all[10]?.position ?? "start";
    const org = `org-${region}`;
    const later = take(store().follow({ after, signal: signal() }), 50);
    await store().append(org, admissions(org, 1, 1), "no_stream");
    expect(ids(await later)).toEqual([...ids(all.slice(11)), ...ids(admissions(org, 1, 1))]);
  });

  it("gives live what is stored: the same objects as a read would", async () => {
    const live = take(store().follow({ after: before, signal: signal() }), 2);
    await new Promise((resolve) => setImmediate(resolve));
    await store().append(journal(1), [admitted(journal(1), 1), usage(journal(1), 1)], "no_stream");
    const read = await store().read(journal(1), { from: "start", direction: "forward", max: 5 });
    expect((await live).map(plain)).toEqual(read.map(plain));
  });

  it("gives live an append at a time", async (context: TestContext) => {
    const { givesWholeAppends } = harness();
    if (givesWholeAppends !== true) context.skip(givesWholeAppends);
    const live = store().follow({ after: before, signal: signal() })[Symbol.asyncIterator]();
    const coming = live.next();
    await new Promise((resolve) => setImmediate(resolve));
    await store().append(journal(1), admissions(journal(1), 1, 3), "no_stream");
    const next = await coming;
    expect(next.done ? [] : ids(next.value)).toEqual(ids(admissions(journal(1), 1, 3)));
    await live.return?.();
  });

  it("ends when its signal aborts, also while it waits", async () => {
    const stop = new AbortController();
    const ended = (async () => {
      for await (const _ of store().follow({ after: before, signal: stop.signal }));
      return "ended";
    })();
    await store().append(journal(1), admissions(journal(1), 1, 1), "no_stream");
    stop.abort();
    expect(await ended).toBe("ended");
  });
}
