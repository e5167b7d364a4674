import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { UnreadableEvent, type RecordedEvent } from "#domain/events/events.ts";
import type { KurrentEventStore, KurrentEventStoreOptions } from "#infra/event-store/kurrent.ts";
import { NEEDS_FAULTS, openStore, realServerUrl } from "#test/kurrent-stand-in/harness.ts";
import type { Proposed } from "#test/kurrent-stand-in/log.ts";
import { startStandIn, type StandIn, type StandInOptions } from "#test/kurrent-stand-in/server.ts";
import { admissions, fence } from "./event-samples.ts";
import { position, take } from "./event-store-suite.ts";

/** The event store on a server, when the server and the way to it are at their worst. */

const JOURNAL = "journal-us-1";
const whole = { from: "start", direction: "forward", max: 100_000 } as const;
const signal = () => AbortSignal.timeout(30_000);
const revisions = (events: readonly RecordedEvent[]) =>
  events.map(({ revision }) => Number(revision));
const upTo = (count: number) => Array.from({ length: count }, (_, at) => at);

describe("the event store on a server, with faults", () => {
  let standIns: StandIn[];
  let stores: KurrentEventStore[];
  let server: StandIn;

  beforeEach(async (context) => {
    standIns = [];
    stores = [];
    if (realServerUrl !== undefined) context.skip(NEEDS_FAULTS);
    server = await start();
  });
  afterEach(async () => {
    await Promise.all(stores.map((store) => store.close()));
    await Promise.all(standIns.map((standIn) => standIn.close()));
  });

  async function start(options: StandInOptions = {}): Promise<StandIn> {
    const standIn = await startStandIn(options);
    standIns.push(standIn);
    return standIn;
  }

  async function open(options: Partial<KurrentEventStoreOptions> = {}): Promise<KurrentEventStore> {
    const store = await openStore(options.url ?? server.url(), options);
    stores.push(store);
    return store;
  }

  /** Makes the server wait; the returned function lets it go on. */
  function stall(standIn = server): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    standIn.faults.stall = promise;
    return () => {
      standIn.faults.stall = undefined;
      resolve();
    };
  }

  /** Appends event number `at`, the identical call again while its outcome is unknown; says how often it was. */
  async function appendUntilIn(store: KurrentEventStore, at: number): Promise<number> {
    const expected = at === 0 ? "no_stream" : BigInt(at - 1);
    for (let unknown = 0; ; unknown += 1) {
      const { outcome } = await store.append(JOURNAL, admissions(JOURNAL, at, 1), expected);
      if (outcome === "appended") return unknown;
      expect(outcome).toBe("unknown");
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  describe("appends", () => {
    it("are unknown when the reply is lost after the commit, and a repeat is answered as the first time", async () => {
      const store = await open();
      await appendUntilIn(store, 0);
      server.faults.loseReply = true;
      const batch = admissions(JOURNAL, 1, 3);
      expect(await store.append(JOURNAL, batch, 0n)).toMatchObject({ outcome: "unknown" });
      expect(server.log.stream(JOURNAL)).toHaveLength(4);
      expect(await appendUntilIn(store, 4)).toBeLessThan(5);
      const { position: at } = server.log.stream(JOURNAL)?.[3] ?? {};
      const repeat = await store.append(JOURNAL, batch, 0n);
      expect(repeat).toEqual({ outcome: "appended", revision: 3n, position: at });
    });

    it("are unknown when the connection is cut in the middle, and nothing of them is written", async () => {
      const store = await open();
      server.faults.cutMidAppend = true;
      const outcome = await store.append(JOURNAL, admissions(JOURNAL, 0, 400), "no_stream");
      expect(outcome).toMatchObject({ outcome: "unknown" });
      expect(server.log.stream(JOURNAL)).toBeUndefined();
      await appendUntilIn(store, 0);
      expect(server.log.stream(JOURNAL)).toHaveLength(1);
    });

    it("are unknown when the server does not answer in time, and those behind them are not sent", async () => {
      const store = await open({ answerMsMax: 300 });
      const other = await open({ url: (await start()).url() });
      await appendUntilIn(store, 0);
      const goOn = stall();
      const begunMs = performance.now();
      const outcomes = Promise.all([
        store.append(JOURNAL, admissions(JOURNAL, 1, 1), 0n),
        store.append(JOURNAL, admissions(JOURNAL, 2, 1), 1n),
      ]);
      // Another store of the same process is not touched.
      await appendUntilIn(other, 0);
      expect((await outcomes).map(({ outcome }) => outcome)).toEqual(["unknown", "unknown"]);
      expect(performance.now() - begunMs).toBeLessThan(3_000);
      goOn();
      await expect.poll(() => server.log.stream(JOURNAL)?.length).toBe(2);
      expect(await appendUntilIn(store, 1)).toBe(0);
      expect(await appendUntilIn(store, 2)).toBe(0);
    });

    it("are refused beyond what may wait, in number and in bytes", async () => {
      const store = await open({ queueEventsMax: 5, queueBytesMax: 6_000 });
      const outcomes = await Promise.all(
        [3, 2, 1].map((count, at) =>
          store.append(`journal-us-${at + 2}`, admissions("x", at * 10, count), "no_stream"),
        ),
      );
      expect(outcomes.map((one) => ("reason" in one ? one.reason : one.outcome))).toEqual([
        "appended",
        "appended",
        "queue_full",
      ]);
      const bytes = admissions(JOURNAL, 0, 5).map((event) => ({
        ...event,
        dataJson: "x".repeat(1_500),
      }));
      expect(await store.append(JOURNAL, bytes, "no_stream")).toMatchObject({
        reason: "queue_full",
      });
      await appendUntilIn(store, 0);
    });

    it("go on when the server comes back on the same port", async () => {
      const store = await open();
      await appendUntilIn(store, 0);
      await server.stop();
      expect(await store.append(JOURNAL, admissions(JOURNAL, 1, 1), 0n)).toMatchObject({
        outcome: "unknown",
      });
      const coming = appendUntilIn(store, 1);
      await server.restart();
      await coming;
      expect(server.log.stream(JOURNAL)).toHaveLength(2);
    });

    it("to a stream that no follower would be given are a fault of the caller", async () => {
      const store = await open();
      await expect(store.append("cakes", admissions("cakes", 0, 1), "no_stream")).rejects.toThrow(
        TypeError,
      );
    });
  });

  it("a fence that is repeated after the server forgot it is found in the stream", async () => {
    const store = await open();
    await appendUntilIn(store, 0);
    const first = await store.fence(JOURNAL, fence(JOURNAL, 7));
    await store.append(JOURNAL, admissions(JOURNAL, 1, 3), 1n);
    await server.stop();
    await server.restart();
    await expect.poll(() => store.fence(JOURNAL, fence(JOURNAL, 7)).catch(() => 0n)).toBe(first);
    expect(server.log.stream(JOURNAL)).toHaveLength(5);
  });

  describe("followers", () => {
    it("go on without gap or repeat over drops, cuts and restarts", async () => {
      const store = await open();
      const followed = take(store.follow({ after: "start", signal: signal() }), 60);
      const faults = [
        server.dropSubscriptions,
        server.cut,
        () => server.stop().then(server.restart),
      ];
      for (let at = 0; at < 60; at += 1) {
        await appendUntilIn(store, at);
        if (at % 7 === 6) {
          await expect.poll(server.openSubscriptions).toBe(1);
          faults[Math.floor(at / 7) % faults.length]?.();
        }
      }
      expect(revisions(await followed)).toEqual(upTo(60));
    });

    it("go on after what was processed, not after what had arrived", async () => {
      const store = await open({ followEventsMax: 5 });
      await store.append(JOURNAL, admissions(JOURNAL, 0, 100), "no_stream");
      const events: RecordedEvent[] = [];
      for await (const batch of store.follow({ after: "start", signal: signal() })) {
        expect(batch.length).toBeLessThanOrEqual(5);
        events.push(...batch);
        if (events.length % 20 === 0) server.dropSubscriptions();
        if (events.length === 100) break;
      }
      expect(revisions(events)).toEqual(upTo(100));
    });

    it("that are slow leave what they have not taken on the server", async () => {
      const store = await open({ followEventsMax: 20 });
      for (let at = 0; at < 20; at += 1)
        await store.append(
          JOURNAL,
          admissions(JOURNAL, at * 500, 500),
          at === 0 ? "no_stream" : BigInt(at * 500 - 1),
        );
      const before = server.sentEvents();
      let taken = 0;
      for await (const batch of store.follow({ after: "start", signal: signal() })) {
        taken += batch.length;
        await new Promise((resolve) => setTimeout(resolve, 300));
        if (taken >= 40) break;
      }
      expect(server.sentEvents() - before).toBeLessThan(1_000);
    });

    it("are told when the server stays away", async () => {
      const store = await open({ troubleMsMax: 300 });
      await appendUntilIn(store, 0);
      const follower = store.follow({ after: "start", signal: signal() })[Symbol.asyncIterator]();
      await follower.next();
      await server.stop();
      await expect(follower.next()).rejects.toThrow("UNAVAILABLE");
    });

    it("are told when the server takes no subscription", async () => {
      const store = await open({ troubleMsMax: 300, answerMsMax: 200 });
      const goOn = stall();
      const follower = store.follow({ after: "start", signal: signal() })[Symbol.asyncIterator]();
      await expect(follower.next()).rejects.toThrow("did not answer in time");
      goOn();
    });

    it("are given our events only, and head is the newest of ours", async () => {
      const store = await open();
      const others = (count: number) =>
        server.log.append(
          "$stats-1",
          Array.from({ length: count }, () => foreign("$stats")),
          "any",
        );
      others(700);
      const ours = await store.append(JOURNAL, admissions(JOURNAL, 0, 2), "no_stream");
      others(700);
      server.log.append("cakes", [foreign("CakeBaked")], "any");
      expect(await store.head()).toBe(position(ours));
      const followed = take(store.follow({ after: "start", signal: signal() }), 3);
      await appendUntilIn(store, 2);
      expect(revisions(await followed)).toEqual([0, 1, 2]);
    });

    it.for([
      ["a type that is not known", foreign("UsageRecorded.v9")],
      [
        "a number that is not safe",
        foreign("RequestAdmitted.v1", '{"holdMicro":90071992547409930}'),
      ],
      ["bytes", { ...foreign("RequestAdmitted.v1"), contentType: "application/octet-stream" }],
      ["half an object", foreign("RequestAdmitted.v1", '{"holdMicro":')],
    ] as const)("throw at once for an event with %s", async ([, event]) => {
      const store = await open();
      await appendUntilIn(store, 0);
      server.log.append(JOURNAL, [event], 0n);
      await expect(store.read(JOURNAL, whole)).rejects.toThrow(UnreadableEvent);
      const follower = store.follow({ after: "start", signal: signal() });
      await expect(take(follower, 2)).rejects.toThrow(UnreadableEvent);
    });
  });

  it("recordedAt is the server's time and never goes back, wherever a follower begins", async () => {
    let nowMs = 1_790_000_000_500;
    const moving = await start({ now: () => nowMs });
    const store = await open({ url: moving.url() });
    for (const [at, changeMs] of [0, -30_000, 10_000, 60_000].entries()) {
      nowMs += changeMs;
      await appendUntilIn(store, at);
    }
    const all = await take(store.follow({ after: "start", signal: signal() }), 4);
    const highest = 1_790_000_000_500;
    const times = [highest, highest, highest, highest + 40_000];
    expect(all.map(({ recordedAt }) => recordedAt)).toEqual(times);
    for (const [at, event] of all.entries()) {
      expect(await store.eventAt(event.position)).toEqual({ id: event.id, recordedAt: times[at] });
      if (at === 3) break;
      const [next] = await take(store.follow({ after: event.position, signal: signal() }), 1);
      expect(next?.recordedAt).toBe(times[at + 1]);
    }
  });

  describe("who it is", () => {
    it("is the same for all that open it at once", async () => {
      const many = await Promise.all([1, 2, 3, 4, 5].map(() => open()));
      const identities = await Promise.all(many.map((store) => store.identity()));
      expect(new Set(identities).size).toBe(1);
      expect(server.log.stream("store")).toHaveLength(1);
    });

    it("is the newest word, so that a restored backup can be given another", async () => {
      const first = await (await open()).identity();
      const word = foreign("StoreCreated.v1", `{"sid":"${"5e".repeat(16)}"}`);
      server.log.append("store", [word], 0n);
      expect(await (await open()).identity()).toBe("5e".repeat(16));
      expect(first).not.toBe("5e".repeat(16));
    });

    it("is found although the reply to the first word is lost", async () => {
      server.faults.loseReply = true;
      await expect
        .poll(() =>
          open().then(
            () => true,
            () => false,
          ),
        )
        .toBe(true);
      expect(server.log.stream("store")).toHaveLength(1);
    });

    it("is refused where the stream is somebody else's", async () => {
      server.log.append("store", [foreign("ShopOpened")], "any");
      await expect(open()).rejects.toThrow("is not relai's");
    });
  });

  describe("a cluster", () => {
    /** The stand-in as one member of two, of which the other is away. */
    const members = () => {
      const port = Number(new URL(server.url()).port);
      return `esdb://127.0.0.1:${port},127.0.0.1:1?tls=false&maxDiscoverAttempts=1&discoveryInterval=10`;
    };

    it("is asked for its leader, again when that is gone", async () => {
      const store = await open({ url: members() });
      const followed = take(store.follow({ after: "start", signal: signal() }), 2);
      await appendUntilIn(store, 0);
      await server.stop();
      for (let attempt = 0; attempt < 3; attempt += 1) {
        const outcome = await store.append(JOURNAL, admissions(JOURNAL, 1, 1), 0n);
        expect(outcome).toMatchObject({ outcome: "unknown" });
      }
      await server.restart();
      await appendUntilIn(store, 1);
      expect(revisions(await followed)).toEqual([0, 1]);
    });

    it("that cannot be asked when a subscription is lost ends no more than the calls", async () => {
      const store = await open({ url: members() });
      const followed = take(store.follow({ after: "start", signal: signal() }), 2);
      await appendUntilIn(store, 0);
      await expect.poll(server.openSubscriptions).toBe(1);
      // The client looks for the leader anew, for the read, while the subscription is still on the old connection.
      server.faults.isBusy = true;
      expect(await store.append(JOURNAL, admissions(JOURNAL, 1, 1), 0n)).toMatchObject({
        outcome: "unknown",
      });
      const goOn = stall();
      const reading = store.head().then(() => "read", String);
      await new Promise((resolve) => setTimeout(resolve, 50));
      server.dropSubscriptions();
      await new Promise((resolve) => setTimeout(resolve, 50));
      await server.stop();
      expect(await reading).toContain("Failed to discover");
      goOn();
      await server.restart();
      await appendUntilIn(store, 1);
      expect(revisions(await followed)).toEqual([0, 1]);
    });
  });

  describe("a server that does not answer", () => {
    it("ends a read with an error", async () => {
      const store = await open({ answerMsMax: 200 });
      await appendUntilIn(store, 0);
      const goOn = stall();
      await expect(store.read(JOURNAL, whole)).rejects.toThrow("did not answer in time");
      goOn();
      server.faults.readPauseMs = 500;
      await expect(store.read(JOURNAL, whole)).rejects.toThrow("did not answer in time");
    });

    it("ends a close no later than its appends", async () => {
      const store = await open({ answerMsMax: 500 });
      await appendUntilIn(store, 0);
      const goOn = stall();
      const ended = take(store.follow({ after: "start", signal: signal() }), 10);
      const appending = store.append(JOURNAL, admissions(JOURNAL, 1, 1), 0n);
      const begunMs = performance.now();
      await store.close();
      expect(performance.now() - begunMs).toBeLessThan(5_000);
      expect(await appending).toMatchObject({ outcome: "unknown" });
      expect(await ended).toEqual([]);
      await expect(store.head()).rejects.toThrow("the event store is closed");
      goOn();
    });
  });
});

/** An event that relai did not write. */
function foreign(type: string, json = "{}"): Proposed {
  const [id, data] = [crypto.randomUUID(), Buffer.from(json)];
  return { id, type, contentType: "application/json", data, metadata: Buffer.from("{}") };
}
