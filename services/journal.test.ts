import { describe, expect, test } from "vitest";
import { newEvent, UnreadableEvent } from "#domain/events/events.ts";
import { admitted, fence, largeEvent, usage } from "#test/conformance/event-store/event-samples.ts";
import {
  ending,
  scripted,
  STREAM,
  taking,
  watcher,
  type Script,
} from "#test/worlds/journal-world.ts";
import { settled } from "#test/doubles/manual-clock.ts";
import { APPEND_BYTES_MAX, APPEND_EVENTS_MAX, type AppendOutcome } from "./ports.ts";
import { bytesOf } from "./writers.ts";

const REFUSED = (reason: "disk_full" | "queue_full"): AppendOutcome => ({
  outcome: "refused",
  reason,
});
const UNKNOWN: AppendOutcome = { outcome: "unknown", reason: "no answer" };

describe("one append is in flight at a time", () => {
  test("what waits meanwhile forms the next one, in order, at explicit revisions", async () => {
    const world = scripted();
    const journal = await world.open();
    const { told, give } = watcher(journal);
    world.scripts.push("hang");
    void give("1", taking(1));
    await settled();
    void give("2", ending(2));
    void give("3", taking(3));
    await settled();
    expect(world.appends.map((append) => append.ids.length)).toEqual([1]);
    expect(told).toEqual([]);
    world.free();
    await settled();
    expect(world.appends.map(({ ids, expected }) => [ids.length, expected])).toEqual([
      [1, "no_stream"],
      [2, 0n],
    ]);
    expect(told).toEqual(["1 recorded", "2 recorded", "3 recorded"]);
    expect(await world.ids()).toEqual(
      [taking(1), ending(2), taking(3)].map((entry) => entry.events[0]?.id),
    );
  });

  test("what one turn of the event loop brings is one append", async () => {
    const world = scripted();
    const journal = await world.open();
    await Promise.all([journal.record(taking(1)), journal.record(ending(2))]);
    expect(world.appends.map((append) => append.ids.length)).toEqual([2]);
  });

  test("an append carries at most 500 events, and an entry is never split", async () => {
    const world = scripted();
    const journal = await world.open();
    const { give } = watcher(journal);
    const pair = (number: number) => ({
      events: [admitted(STREAM, number), usage(STREAM, number)],
    });
    const first = give("first", taking(0));
    await settled();
    const all = [first, ...Array.from({ length: 601 }, (_, at) => give("pair", pair(at + 1)))];
    await Promise.all(all);
    expect(world.appends.map((append) => append.ids.length)).toEqual([
      1,
      APPEND_EVENTS_MAX,
      APPEND_EVENTS_MAX,
      202,
    ]);
    expect(await world.ids()).toHaveLength(1_203);
  });

  test("an append is cut by the bytes that the store counts, so none is refused as too large", async () => {
    const world = scripted();
    const journal = await world.open();
    const { told, give } = watcher(journal);
    const umlauts = "ü".repeat(250);
    const sized = (number: number) => {
      const event = largeEvent(STREAM, number, 3_000);
      const data = { ...event.data, clientRequestId: umlauts } as (typeof event)["data"];
      return newEvent(STREAM, `sized:${number}`, event.type, data, event.metadata);
    };
    await Promise.all(
      Array.from({ length: 900 }, (_, at) => give("one", { events: [sized(at)], takingUnder: 1 })),
    );
    expect(new Set(told)).toEqual(new Set(["one recorded"]));
    const each = bytesOf(sized(1));
    for (const append of world.appends)
      expect(append.ids.length * each).toBeLessThanOrEqual(APPEND_BYTES_MAX + 900);
    expect(world.appends.length).toBeLessThan(10);
    expect(await world.ids()).toHaveLength(900);
  });
});

describe("a conflict is certain: whoever was faster left a mark", () => {
  test("takings of older owners are dropped, newer ones and ends are kept, in their order", async () => {
    const world = scripted();
    const journal = await world.open();
    const { told, give } = watcher(journal);
    await give("0", taking(0, 1));
    await world.store.fence(STREAM, fence(STREAM, 2));
    world.scripts.push("hang");
    const all = [
      give("1", taking(1, 1)),
      give("2", ending(2)),
      give("3", taking(3, 2)),
      give("4", taking(4, 1)),
      give("5", taking(5, 3)),
    ];
    await settled();
    world.free();
    await Promise.all(all);
    expect(told.slice(1).sort()).toEqual([
      "1 dropped fenced",
      "2 recorded",
      "3 recorded",
      "4 dropped fenced",
      "5 recorded",
    ]);
    expect(await world.ids()).toEqual(
      [
        admitted(STREAM, 0),
        fence(STREAM, 2),
        usage(STREAM, 2),
        admitted(STREAM, 3),
        admitted(STREAM, 5),
      ].map((event) => event.id),
    );
    // From then on, whenever the store's answer to it comes, none of an older owner is appended.
    const asked = world.appends.length;
    expect(await journal.record(taking(6, 1))).toEqual({ outcome: "dropped", why: "fenced" });
    expect(world.appends.length).toBe(asked);
    expect(await journal.record(taking(7, 2))).toMatchObject({ outcome: "recorded" });
  });

  test("marks that stand there before the journal is opened count", async () => {
    const world = scripted();
    await world.store.fence(STREAM, fence(STREAM, 5));
    const journal = await world.open();
    expect(await journal.record(taking(1, 4))).toEqual({ outcome: "dropped", why: "fenced" });
    expect(await journal.record(taking(2, 5))).toMatchObject({ outcome: "recorded" });
  });

  test("a seal by another ends everything: nothing more is written, and whoever waits is told", async () => {
    const world = scripted();
    const journal = await world.open();
    const { told, give } = watcher(journal);
    const by = { at: 1, region: "us", actor: "ledger", $correlationId: "seal", schema: 1 } as const;
    await world.store.append(
      STREAM,
      [newEvent(STREAM, "sealed", "JournalSealed.v1", { by: "ledger" }, by)],
      "no_stream",
    );
    let isToldSealed = false;
    void journal.sealedByOther.then(() => (isToldSealed = true));
    await Promise.all([give("1", taking(1)), give("2", ending(2))]);
    expect(told).toEqual(["1 sealed", "2 sealed"]);
    expect([journal.isSealed(), isToldSealed, journal.reserve()]).toEqual([true, true, false]);
    expect(await journal.record(ending(3))).toEqual({ outcome: "sealed" });
    await journal.seal();
    expect(await world.ids()).toHaveLength(1);
  });

  test("a mark that cannot be read at once is waited for, and the batch is not cut anew before", async () => {
    const world = scripted();
    const journal = await world.open();
    await world.store.fence(STREAM, fence(STREAM, 2));
    world.failReads(3);
    const recording = journal.record(taking(1, 1));
    await settled();
    expect(world.appends).toHaveLength(1);
    await world.clock.advance(1_000);
    expect(await recording).toEqual({ outcome: "dropped", why: "fenced" });
  });
});

test("a mark of a newer version's is told once; nothing is taken that it may forbid", async () => {
  const world = scripted();
  const journal = await world.open();
  await world.store.fence(STREAM, fence(STREAM, 2));
  world.failReads(
    Number.POSITIVE_INFINITY,
    new UnreadableEvent("event Later.v9 is of no known type"),
  );
  const { told, give } = watcher(journal);
  void give("1", taking(1, 1));
  await world.clock.advance(20_000);
  expect(await journal.look()).toBe(false);
  expect([told, journal.reserve()]).toEqual([[], false]);
  const reason = "event Later.v9 is of no known type";
  expect(world.alarms).toEqual([["event_unreadable", { stream: STREAM, reason }]]);
});

describe("an unknown outcome", () => {
  test.each<[string, Script]>([
    ["an answer that did not come", UNKNOWN],
    ["an answer lost after the commit", "lose"],
    ["a call that failed", "reject"],
  ])("after %s the identical call is repeated, and the fact stands once", async (_name, script) => {
    const world = scripted();
    const journal = await world.open();
    world.scripts.push(script, UNKNOWN);
    const first = journal.record(taking(1));
    // More arrives while the first answer is still on its way: a batch that is cut anew would take it along.
    while (world.appends.length === 0) await Promise.resolve();
    const second = journal.record(ending(2));
    await world.clock.advance(200);
    expect(await first).toMatchObject({ outcome: "recorded" });
    expect(await second).toMatchObject({ outcome: "recorded" });
    expect(await world.ids()).toEqual([admitted(STREAM, 1).id, usage(STREAM, 2).id]);
    const [one, two, three, four] = world.appends;
    expect([two, three]).toEqual([one, one]);
    expect(four?.ids).toEqual([usage(STREAM, 2).id]);
  });

  test("a full queue afterwards has not looked: it stays unknown, and the taking is not dropped", async () => {
    const world = scripted();
    const journal = await world.open();
    const { told, give } = watcher(journal);
    world.scripts.push("lose", REFUSED("queue_full"), { outcome: "refused", reason: "closed" });
    void give("1", taking(1));
    await world.clock.advance(25);
    expect(told).toEqual([]);
    await world.clock.advance(500);
    expect(told).toEqual(["1 recorded"]);
    expect(world.appends.map((append) => append.ids)).toEqual(
      Array.from({ length: 4 }, () => world.appends[0]?.ids),
    );
  });

  test("a full disk afterwards has looked: certainly not written", async () => {
    const world = scripted();
    const journal = await world.open();
    const { told, give } = watcher(journal);
    world.scripts.push(UNKNOWN, REFUSED("disk_full"));
    void give("1", taking(1));
    await world.clock.advance(500);
    expect(told).toEqual(["1 dropped refused"]);
    expect(await world.ids()).toEqual([]);
  });
});

describe("a refusal is certain", () => {
  test.each(["disk_full", "queue_full"] as const)(
    "%s: takings are dropped, ends are repeated until they are in",
    async (reason) => {
      const world = scripted();
      const journal = await world.open();
      const { told, give } = watcher(journal);
      world.scripts.push("hang", ...Array.from({ length: 5 }, () => REFUSED(reason)));
      void give("0", ending(0));
      await settled();
      void give("1", taking(1));
      void give("2", ending(2));
      void give("3", taking(3));
      void give("4", ending(4));
      await settled();
      world.free();
      await settled();
      expect(told).toEqual(["0 recorded", "1 dropped refused", "3 dropped refused"]);
      await world.clock.advance(5_000);
      expect(told.slice(3)).toEqual(["2 recorded", "4 recorded"]);
      expect(await world.ids()).toEqual([0, 2, 4].map((number) => usage(STREAM, number).id));
    },
  );

  test("when nothing waits any more the journal takes requests again, however long ago it was", async () => {
    const world = scripted();
    const journal = await world.open();
    world.scripts.push(REFUSED("disk_full"));
    expect(await journal.record(taking(1))).toEqual({ outcome: "dropped", why: "refused" });
    await world.clock.advance(3_600_000);
    expect(journal.reserve()).toBe(true);
    expect(await journal.record(taking(2))).toMatchObject({ outcome: "recorded" });
  });

  test("takings that a fence dropped leave nothing stuck behind", async () => {
    const world = scripted();
    const journal = await world.open();
    await world.store.fence(STREAM, fence(STREAM, 9));
    expect(await journal.record(taking(1))).toMatchObject({ outcome: "dropped" });
    await world.clock.advance(3_600_000);
    expect(journal.reserve()).toBe(true);
  });
});

describe("places", () => {
  test("are bounded, and given back", async () => {
    const world = scripted();
    const journal = await world.open(2);
    expect([journal.reserve(), journal.reserve(), journal.reserve()]).toEqual([true, true, false]);
    journal.release();
    expect([journal.reserve(), journal.reserve()]).toEqual([true, false]);
  });

  test.each<[string, Script[]]>([
    ["hangs", ["hang"]],
    ["gives no answer", Array.from({ length: 60 }, () => UNKNOWN)],
    ["refuses", Array.from({ length: 60 }, () => REFUSED("disk_full"))],
  ])(
    "are refused while the store %s for more than 5 s, and there again afterwards",
    async (_name, scripts) => {
      const world = scripted();
      const journal = await world.open();
      world.scripts.push(...scripts);
      const recording = journal.record(ending(1));
      await world.clock.advance(4_900);
      expect(journal.reserve()).toBe(true);
      await world.clock.advance(200);
      expect(journal.reserve()).toBe(false);
      world.scripts.length = 0;
      world.free();
      await world.clock.advance(2_000);
      expect(await recording).toMatchObject({ outcome: "recorded" });
      expect(journal.reserve()).toBe(true);
    },
  );

  test("a journal that was hard to open is not stuck", async () => {
    const world = scripted();
    world.failReads(4);
    const opening = world.open();
    await world.clock.advance(2_000);
    const journal = await opening;
    await world.clock.advance(60_000);
    expect(journal.reserve()).toBe(true);
  });
});

describe("a clean seal", () => {
  test("comes last, after everything that waited, and takes nothing new", async () => {
    const world = scripted();
    const journal = await world.open();
    const { told, give } = watcher(journal);
    world.scripts.push("hang");
    void give("1", taking(1));
    void give("2", ending(2));
    const sealing = journal.seal();
    const again = journal.seal();
    await settled();
    world.free();
    await Promise.all([sealing, again]);
    expect(told).toEqual(["1 recorded", "2 recorded"]);
    expect(await journal.record(ending(3))).toEqual({ outcome: "sealed" });
    expect([journal.isSealed(), journal.reserve()]).toEqual([true, false]);
    const events = await world.store.read(STREAM, { from: "start", direction: "forward", max: 10 });
    expect(events.map((event) => event.type)).toEqual([
      "RequestAdmitted.v1",
      "UsageRecorded.v1",
      "JournalSealed.v1",
    ]);
    expect(events.at(-1)?.data).toEqual({ by: "writer" });
    let isTold = false;
    void journal.sealedByOther.then(() => (isTold = true));
    await settled();
    expect(isTold).toBe(false);
  });

  test("is put behind a fence that came first", async () => {
    const world = scripted();
    const journal = await world.open();
    await journal.record(taking(1));
    await world.store.fence(STREAM, fence(STREAM, 2));
    await journal.seal();
    const events = await world.store.read(STREAM, { from: "start", direction: "forward", max: 10 });
    expect(events.map((event) => event.type)).toEqual([
      "RequestAdmitted.v1",
      "OwnerFenced.v1",
      "JournalSealed.v1",
    ]);
  });

  test("leaves no timer behind", async () => {
    const world = scripted();
    const journal = await world.open();
    await journal.record(taking(1));
    await journal.seal();
    expect(world.clock.armed()).toBe(0);
  });
});
