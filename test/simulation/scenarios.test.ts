import { describe, expect, test } from "vitest";
import { leftMicro } from "#domain/invariants/money.ts";
import {
  askingForAllOfItsHold,
  ASKING,
  atRest,
  hasSealed,
  holdMicroOf,
  oneCustomer,
  SEEDS,
  sumOf,
} from "./scenario.ts";

describe("a balance for exactly 37", () => {
  test.each(SEEDS)("37 of 500 reach the upstream, seed %i", async (seed) => {
    const parallel = 500;
    let release = () => {};
    const decided = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { world, customers, org, key } = await oneCustomer(
      { seed, heldBack: () => decided, usualDelayMs: 40 },
      1,
    );
    const { asking, holdMicro } = await askingForAllOfItsHold(key.text);
    customers.topUp(org, 37 * holdMicro - 1);
    await world.pass(1_000);

    for (let number = 0; number < parallel; number++) world.ask(number % 2, asking);
    const refused = () => world.seen.filter((seen) => seen.over).length;
    await world.until("all are decided", () => world.book.length + refused() === parallel, 60_000);
    expect(world.book.length).toBe(37);
    release();
    await world.until("all are answered", () => refused() === parallel, 60_000);
    await atRest(world);

    expect(world.seen.filter((seen) => seen.complete).length).toBe(37);
    const codes = new Set(world.seen.filter((seen) => !seen.complete).map((seen) => seen.code));
    expect([...codes]).toEqual(["balance_held"]);
    expect(leftMicro(sumOf(world, org))).toBe(0);
    expect(sumOf(world, org).chargedMicro).toBe(37 * holdMicro);
    await world.close();
  });
});

describe("a gateway that was stopped for too long", () => {
  test.each(SEEDS)("writes UsageLate and charges nobody, seed %i", async (seed) => {
    const { world, org, key } = await oneCustomer({ seed }, 100_000);
    const asking = { ...ASKING, keyText: key.text, directives: "[sim output=5 first=200]" };
    world.ask(0, { ...asking, stream: seed % 2 === 0 });
    await world.until("the upstream has the call", () => world.book.length === 1, 5_000);
    const gateway = world.gateways[0];
    const stream = gateway?.serving()?.writer.life()?.journal.stream;
    if (!gateway || !stream) throw new Error("the gateway serves");
    gateway.process.pause();
    const has = (type: string) => world.watch.events.some((event) => event.type === type);
    await world.until("its journal is sealed", () => has("JournalSealed.v1"), 120_000);
    await world.until("its hold expires", () => has("RequestExpired.v1"), 10_000);
    gateway.process.resume();
    await world.until("it notes the late usage", () => has("UsageLate.v1"), 30_000);
    await atRest(world);
    await world.pass(30_000);

    expect(has("UsageRecorded.v1")).toBe(false);
    expect(sumOf(world, org).chargedMicro).toBe(0);
    const late = world.watch.events.find((event) => event.type === "UsageLate.v1");
    expect(late?.stream).not.toBe(stream);
    expect(world.seen[0]?.complete).toBe(false);
    // It lives on in a new life: the next request is served.
    const next = world.ask(0, asking);
    await world.until("it serves again", () => next.over, 30_000);
    expect(next.complete).toBe(true);
    await world.close();
  });
});

describe("a gateway that wakes up behind its seal with callers waiting", () => {
  test.each(SEEDS)("forwards nothing and keeps nothing held, seed %i", async (seed) => {
    const { world, org, key } = await oneCustomer({ seed }, 100_000);
    const gateway = world.gateways[0];
    if (!gateway) throw new Error("the gateway serves");
    gateway.process.pause();
    await world.until("its journal is sealed", () => hasSealed(world), 120_000);
    await world.pass(5_000);
    for (let number = 0; number < 10; number++) world.ask(0, { ...ASKING, keyText: key.text });
    gateway.process.resume();
    await world.until("all are answered", () => world.seen.every((seen) => seen.over), 30_000);
    expect(world.book).toEqual([]);
    expect(new Set(world.seen.map((seen) => seen.status))).toEqual(new Set([503]));
    // It looked into its journal first: the admission store was asked for nothing.
    expect(world.watch.cells.get("absent admit")).toBeUndefined();
    await atRest(world);
    expect(sumOf(world, org).chargedMicro).toBe(0);
    await world.close();
  });
});

describe("a gateway that dies between its taking and its record", () => {
  test.each(SEEDS)("has its money swept free behind its seal, seed %i", async (seed) => {
    const { world, org, key } = await oneCustomer({ seed }, 100_000);
    const held = () => world.servers.admission().state.orgs.get(org.orgId)?.accounts.heldMicro ?? 0;
    world.ask(0, { ...ASKING, keyText: key.text });
    await world.until("the money is taken", () => held() !== 0, 5_000);
    world.gateways[0]?.process.end();
    await world.pass(5_000);
    expect(held()).toBeGreaterThan(0);
    await atRest(world);
    expect(held()).toBe(0);
    expect(world.watch.events.some((event) => event.type === "RequestAdmitted.v1")).toBe(false);
    expect(world.watch.events.filter((event) => event.type === "OwnerChanged.v1").length).toBe(1);
    await world.close();
  });
});

describe("an admission that arrives behind the sweep of its dead writer", () => {
  test.each(SEEDS)("is swept whenever somebody comes upon it, seed %i", async (seed) => {
    const { world, org, key } = await oneCustomer({ seed }, 100_000);
    const gateway = world.gateways[0];
    const writerEpoch = gateway?.serving()?.writer.life()?.journal.writerEpoch;
    if (!gateway || writerEpoch === undefined) throw new Error("the gateway serves");
    gateway.process.end();
    await world.until("its journal is sealed", () => hasSealed(world), 120_000);
    await world.pass(5_000);
    const { port, state } = world.servers.admission();
    const accounts = () => state.orgs.get(org.orgId)?.accounts;
    const ownerEpoch = state.orgs.get(org.orgId)?.ownerEpoch ?? 0;
    const lookers = [
      () => port.figures({ orgId: org.orgId }),
      () => world.ask(1, { ...ASKING, keyText: key.text }),
    ];
    for (const [number, look] of lookers.entries()) {
      const requestId = `req_0000000000000000000000000${number}`;
      const ask = { orgId: org.orgId, ownerEpoch, requestId, writerEpoch, keyId: key.keyId };
      await port.admit({ ...ask, holdMicro: 500 });
      // Time alone frees nothing: it is a hold until the ledger has looked who took it.
      await world.pass(40_000);
      expect(accounts()?.heldMicro).toBe(500);
      void look();
      await world.until("it is swept", () => !accounts()?.holds.has(requestId), 5_000);
    }
    await atRest(world);
    expect(world.seen.every((seen) => seen.complete)).toBe(true);
    await world.close();
  });
});

describe("an old owner's takings that answer late", () => {
  test.each(SEEDS)("are never appended, seed %i", async (seed) => {
    const { world, org, key } = await oneCustomer({ seed }, 100_000);
    const gateway = world.gateways[0];
    if (!gateway) throw new Error("the gateway serves");
    const asked = world.ask(0, { ...ASKING, keyText: key.text });
    const provisional = () =>
      world.servers.admission().state.orgs.get(org.orgId)?.accounts.heldMicro !== 0;
    await world.until("the money is taken", provisional, 5_000);
    // The store's answer is on its way to a gateway that does not hear it before there is another owner.
    gateway.process.pause();
    world.ledger().process.end();
    const fenced = () =>
      world.watch.events.some(
        (event) => event.type === "OwnerFenced.v1" && event.data.ownerEpoch === 2,
      );
    await world.until("another owner fences", fenced, 30_000);
    await world.until(
      "another owner serves",
      () => world.ledger().ledger()?.isReady() === true,
      30_000,
    );
    gateway.process.resume();
    await world.until("the caller is answered", () => asked.over, 30_000);
    expect(asked.status).toBe(503);
    expect(asked.code).toBe("ledger_unavailable");
    await atRest(world);
    const admitted = world.watch.events.filter((event) => event.type === "RequestAdmitted.v1");
    expect(admitted).toEqual([]);
    expect(world.book).toEqual([]);
    const next = world.ask(0, { ...ASKING, keyText: key.text });
    await world.until("the next request is served", () => next.over, 30_000);
    expect(next.complete).toBe(true);
    await world.close();
  });
});

describe("an admission server that loses everything under load", () => {
  test.each(SEEDS)("overspends nothing and keeps nothing held, seed %i", async (seed) => {
    const { world, org, key } = await oneCustomer({ seed, usualDelayMs: 20 }, 3_000);
    const dice = world.dice("scenario");
    for (let number = 0; number < 200; number++) {
      const first = dice.between(1, 400);
      const directives = `[sim output=${dice.between(1, 40)} first=${first} chunks=3]`;
      const asking = { ...ASKING, keyText: key.text, directives, stream: dice.chance(0.5) };
      world.timeline.after(dice.next() * 4_000, () => world.ask(number % 2, asking));
    }
    for (const atMs of [700, 1_900, 1_950])
      world.timeline.after(atMs, () => world.servers.restartAdmission());
    await world.pass(10_000);
    await atRest(world);
    expect(world.seen.every((seen) => seen.over)).toBe(true);
    expect(leftMicro(sumOf(world, org))).toBeGreaterThanOrEqual(0);
    expect(sumOf(world, org).chargedMicro).toBeGreaterThan(0);
    await world.close();
  });
});

describe("a rate limit", () => {
  test("is never passed in any minute and comes back within a second", async () => {
    const rpm = 5;
    const everyMs = 100;
    const { world, key } = await oneCustomer({ seed: 1, usualDelayMs: 0 }, 1_000_000, { rpm });
    const asking = { ...ASKING, keyText: key.text, stream: false, directives: "[sim output=1]" };
    for (let atMs = 0; atMs < 250_000; atMs += everyMs)
      world.timeline.after(atMs, () => world.ask((atMs / everyMs) % 2, asking));
    await world.pass(260_000);
    const times = world.watch.events
      .filter((event) => event.type === "RequestAdmitted.v1")
      .map((event) => event.recordedAt);
    expect(times.length).toBeGreaterThan(4 * rpm);
    for (const [at, time] of times.entries()) {
      const later = times[at + rpm];
      if (later === undefined) break;
      expect(later - time).toBeGreaterThanOrEqual(60_000);
      expect(later - time).toBeLessThanOrEqual(61_000 + everyMs);
    }
    await world.close();
  });
});

describe("one request after the other on a small balance", () => {
  test.each(SEEDS)("is refused only when the money is used, seed %i", async (seed) => {
    const { world, customers, org, key } = await oneCustomer({ seed, usualDelayMs: 60 }, 1);
    const dice = world.dice("scenario");
    const asking = () => ({
      ...ASKING,
      keyText: key.text,
      stream: dice.chance(0.7),
      directives: `[sim output=${String(dice.between(1, 20)).padStart(2, "0")} chunks=1]`,
    });
    const holdMicro = await holdMicroOf({ ...asking(), stream: true });
    customers.topUp(org, 3 * holdMicro - 1);
    await world.pass(1_000);
    for (let served = 0; ; served++) {
      const asked = world.ask(dice.between(0, 1), asking());
      // The next one goes out in the very moment in which this one's last bytes have come.
      await world.until("it is answered", () => asked.over, 20_000);
      if (asked.complete) continue;
      expect(served).toBeGreaterThan(2);
      expect(asked.code).toBe("insufficient_balance");
      expect(leftMicro(sumOf(world, org))).toBeLessThan(holdMicro);
      break;
    }
    await world.close();
  });
});
