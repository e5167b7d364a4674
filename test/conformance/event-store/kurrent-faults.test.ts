import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { NEEDS_FAULTS, realServerUrl } from "#test/kurrent-stand-in/harness.ts";
import type { StandIn } from "#test/kurrent-stand-in/server.ts";
import {
  appendUntilIn,
  createKurrentWorld,
  foreign,
  JOURNAL,
  type KurrentWorld,
} from "#test/kurrent-stand-in/world.ts";
import { admissions, fence } from "./event-samples.ts";
import { take } from "./event-store-suite.ts";

/** The event store on a server, when the server and the way to it are at their worst. */

const whole = { from: "start", direction: "forward", max: 100_000 } as const;

describe("the event store on a server, with faults", () => {
  let world: KurrentWorld;
  let server: StandIn;

  beforeEach(async (context) => {
    if (realServerUrl !== undefined) context.skip(NEEDS_FAULTS);
    world = await createKurrentWorld();
    ({ server } = world);
  });
  afterEach(() => world?.close());

  describe("appends", () => {
    it("are unknown when the reply is lost after the commit, and a repeat is answered as the first time", async () => {
      const store = await world.open();
      await appendUntilIn(store, 0);
      server.faults.loseReply = true;
      const batch = admissions(JOURNAL, 1, 3);
      expect(await store.append(JOURNAL, batch, 0n)).toMatchObject({ outcome: "unknown" });
      expect(server.log.stream(JOURNAL)).toHaveLength(4);
      await appendUntilIn(store, 4);
      const { position: at } = server.log.stream(JOURNAL)?.[3] ?? {};
      const repeat = await store.append(JOURNAL, batch, 0n);
      expect(repeat).toEqual({ outcome: "appended", revision: 3n, position: at });
    });

    it("are unknown when the connection is cut in the middle, and nothing of them is written", async () => {
      const store = await world.open();
      server.faults.cutMidAppend = true;
      const outcome = await store.append(JOURNAL, admissions(JOURNAL, 0, 400), "no_stream");
      expect(outcome).toMatchObject({ outcome: "unknown" });
      expect(server.log.stream(JOURNAL)).toBeUndefined();
      await appendUntilIn(store, 0);
      expect(server.log.stream(JOURNAL)).toHaveLength(1);
    });

    it("are unknown when the server does not answer in time, and those behind them are not sent", async () => {
      const store = await world.open({ answerMsMax: 1_000 });
      const other = await world.open({ url: (await world.start()).url() });
      await appendUntilIn(store, 0);
      const goOn = world.stall();
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
      await expect.poll(() => server.log.stream(JOURNAL)?.length, { timeout: 20_000 }).toBe(2);
      expect(await appendUntilIn(store, 1)).toBe(0);
      expect(await appendUntilIn(store, 2)).toBe(0);
    });

    it("are refused beyond what may wait, in number and in bytes", async () => {
      const store = await world.open({ queueEventsMax: 5, queueBytesMax: 6_000 });
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
      const store = await world.open();
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
      const store = await world.open();
      await expect(store.append("cakes", admissions("cakes", 0, 1), "no_stream")).rejects.toThrow(
        TypeError,
      );
    });
  });

  it("a fence that is repeated after the server forgot it is found in the stream", async () => {
    const store = await world.open();
    await appendUntilIn(store, 0);
    const first = await store.fence(JOURNAL, fence(JOURNAL, 7));
    await store.append(JOURNAL, admissions(JOURNAL, 1, 3), 1n);
    await server.stop();
    await server.restart();
    await expect.poll(() => store.fence(JOURNAL, fence(JOURNAL, 7)).catch(() => 0n)).toBe(first);
    expect(server.log.stream(JOURNAL)).toHaveLength(5);
  });

  describe("who it is", () => {
    it("is the same for all that open it at once", async () => {
      const many = await Promise.all([1, 2, 3, 4, 5].map(() => world.open()));
      const identities = await Promise.all(many.map((store) => store.identity()));
      expect(new Set(identities).size).toBe(1);
      expect(server.log.stream("store")).toHaveLength(1);
    });

    it("is the newest word, so that a restored backup can be given another", async () => {
      const first = await (await world.open()).identity();
      const word = foreign("StoreCreated.v1", `{"sid":"${"5e".repeat(16)}"}`);
      server.log.append("store", [word], 0n);
      expect(await (await world.open()).identity()).toBe("5e".repeat(16));
      expect(first).not.toBe("5e".repeat(16));
    });

    it("is found although the reply to the first word is lost", async () => {
      server.faults.loseReply = true;
      await expect
        .poll(() =>
          world.open().then(
            () => true,
            () => false,
          ),
        )
        .toBe(true);
      expect(server.log.stream("store")).toHaveLength(1);
    });

    it("is refused where the stream is somebody else's", async () => {
      server.log.append("store", [foreign("ShopOpened")], "any");
      await expect(world.open()).rejects.toThrow("is not relai's");
    });
  });

  it("a read ends with its answer and resets nothing, whatever is found and however much of it is wanted", async () => {
    const store = await world.open();
    server.faults.endPauseMs = 20;
    const newest = { from: "end", direction: "backward", max: 1 } as const;
    expect(await store.read(JOURNAL, newest)).toEqual([]);
    expect(await store.head()).toBe("start");
    expect(await store.append(JOURNAL, admissions(JOURNAL, 0, 3), "no_stream")).toMatchObject({
      outcome: "appended",
    });
    const [last] = await store.read(JOURNAL, newest);
    const ours = last?.position ?? -1n;
    // More than one look back takes in.
    server.log.append(
      "others",
      Array.from({ length: 400 }, () => foreign("Other")),
      "any",
    );
    expect(await store.head()).toBe(ours);
    expect(await store.eventAt(ours)).toMatchObject({ id: last?.id });
    expect(await store.eventAt(ours + 1n)).toBeUndefined();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(server.resets()).toBe(0);
  });

  describe("a server that does not answer", () => {
    it("ends a read with an error", async () => {
      const store = await world.open({ answerMsMax: 1_000 });
      await appendUntilIn(store, 0);
      const goOn = world.stall();
      await expect(store.read(JOURNAL, whole)).rejects.toThrow("did not answer in time");
      goOn();
      server.faults.readPauseMs = 3_000;
      await expect(store.read(JOURNAL, whole)).rejects.toThrow("did not answer in time");
    });

    it("ends a close no later than its appends", async () => {
      const store = await world.open({ answerMsMax: 1_000 });
      await appendUntilIn(store, 0);
      const goOn = world.stall();
      const signal = AbortSignal.timeout(30_000);
      const ended = take(store.follow({ after: "start", signal }), 10);
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
