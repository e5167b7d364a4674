import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { UnreadableEvent, type RecordedEvent } from "#domain/events/events.ts";
import { NEEDS_FAULTS, realServerUrl } from "#test/kurrent-stand-in/harness.ts";
import type { StandIn } from "#test/kurrent-stand-in/server.ts";
import {
  appendUntilIn,
  createKurrentWorld,
  foreign,
  JOURNAL,
  type KurrentWorld,
} from "#test/kurrent-stand-in/world.ts";
import { admissions } from "./event-samples.ts";
import { position, take } from "./event-store-suite.ts";

/** Those who follow the event store on a server, over everything that ends a subscription. */

const whole = { from: "start", direction: "forward", max: 100_000 } as const;
const signal = () => AbortSignal.timeout(30_000);
const revisions = (events: readonly RecordedEvent[]) =>
  events.map(({ revision }) => Number(revision));
const upTo = (count: number) => Array.from({ length: count }, (_, at) => at);

describe("followers of the event store on a server", () => {
  let world: KurrentWorld;
  let server: StandIn;

  beforeEach(async (context) => {
    if (realServerUrl !== undefined) context.skip(NEEDS_FAULTS);
    world = await createKurrentWorld();
    ({ server } = world);
  });
  afterEach(() => world?.close());

  it("go on without gap or repeat over drops, cuts and restarts", async () => {
    const store = await world.open();
    const followed = take(store.follow({ after: "start", signal: signal() }), 60);
    const faults = [server.dropSubscriptions, server.cut, () => server.stop().then(server.restart)];
    for (let at = 0; at < 60; at += 1) {
      await appendUntilIn(store, at);
      if (at % 7 === 6) {
        await expect.poll(server.openSubscriptions, { timeout: 20_000 }).toBe(1);
        faults[Math.floor(at / 7) % faults.length]?.();
      }
    }
    expect(revisions(await followed)).toEqual(upTo(60));
  });

  it("go on after what was processed, not after what had arrived", async () => {
    const store = await world.open({ followEventsMax: 5 });
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
    const store = await world.open({ followEventsMax: 20 });
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
    const store = await world.open({ troubleMsMax: 300 });
    await appendUntilIn(store, 0);
    const follower = store.follow({ after: "start", signal: signal() })[Symbol.asyncIterator]();
    await follower.next();
    await server.stop();
    await expect(follower.next()).rejects.toThrow("UNAVAILABLE");
  });

  it("are told when the server takes no subscription", async () => {
    const store = await world.open({ troubleMsMax: 300, answerMsMax: 1_000 });
    const goOn = world.stall();
    const follower = store.follow({ after: "start", signal: signal() })[Symbol.asyncIterator]();
    await expect(follower.next()).rejects.toThrow("did not answer in time");
    goOn();
  });

  it("are given our events only, and head is the newest of ours", async () => {
    const store = await world.open();
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
    ["a number that is not safe", foreign("RequestAdmitted.v1", '{"holdMicro":90071992547409930}')],
    ["bytes", { ...foreign("RequestAdmitted.v1"), contentType: "application/octet-stream" }],
    ["half an object", foreign("RequestAdmitted.v1", '{"holdMicro":')],
  ] as const)("are given what precedes an event with %s, and throw", async ([, event]) => {
    const store = await world.open();
    await appendUntilIn(store, 0);
    server.log.append(JOURNAL, [event], 0n);
    await expect(store.read(JOURNAL, whole)).rejects.toThrow(UnreadableEvent);
    const follower = store.follow({ after: "start", signal: signal() })[Symbol.asyncIterator]();
    const { value } = (await follower.next()) as IteratorYieldResult<RecordedEvent[]>;
    expect(revisions(value)).toEqual([0]);
    await expect(follower.next()).rejects.toThrow(UnreadableEvent);
  });

  it("recordedAt is the server's time and never goes back, wherever a follower begins", async () => {
    let nowMs = 1_790_000_000_500;
    const moving = await world.start({ now: () => nowMs });
    const store = await world.open({ url: moving.url() });
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

  describe("a cluster", () => {
    /** The stand-in as one member of two, of which the other is away. */
    const members = () => {
      const port = Number(new URL(server.url()).port);
      return `esdb://127.0.0.1:${port},127.0.0.1:1?tls=false&maxDiscoverAttempts=1&discoveryInterval=10`;
    };

    it("is asked for its leader, again when that is gone", async () => {
      const store = await world.open({ url: members() });
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
      const store = await world.open({ url: members() });
      const followed = take(store.follow({ after: "start", signal: signal() }), 2);
      await appendUntilIn(store, 0);
      await expect.poll(server.openSubscriptions, { timeout: 20_000 }).toBe(1);
      // The client looks for the leader anew, for the read, while the subscription is still on the old connection.
      server.faults.isBusy = true;
      expect(await store.append(JOURNAL, admissions(JOURNAL, 1, 1), 0n)).toMatchObject({
        outcome: "unknown",
      });
      const goOn = world.stall();
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
});
