import { describe, expect, test } from "vitest";
import { newEvent } from "#domain/events/events.ts";
import type { AppendOutcome } from "#services/ports.ts";
import { fence } from "#test/conformance/event-store/event-samples.ts";
import {
  chat,
  chunk,
  completion,
  DONE,
  FUNDED_MICRO,
  gatewayWorld,
  ORG,
  settled,
  type GatewayWorld,
} from "#test/worlds/gateway-world.ts";
import { handleChat } from "#test/worlds/chat-way.ts";

/** The way of a request when the store, the admission store or the journal fails under it. */

const UNKNOWN: AppendOutcome = { outcome: "unknown", reason: "no answer" };
const REFUSED: AppendOutcome = { outcome: "refused", reason: "disk_full" };

async function lastOf(world: GatewayWorld) {
  return ((await world.recorded()).at(-1)?.data ?? {}) as Record<string, unknown>;
}

/** The gateway's journal sealed by a ledger that took it for dead. */
async function sealUnder(world: GatewayWorld): Promise<void> {
  const life = world.gateway.writer.life();
  if (!life) throw new Error("the gateway has no life");
  const { stream } = life.journal;
  const metadata = {
    at: 1,
    region: "us",
    actor: "ledger",
    $correlationId: "seal",
    schema: 1,
  } as const;
  const event = newEvent(stream, "sealed", "JournalSealed.v1", { by: "ledger" }, metadata);
  const [last] = await world.store.read(stream, { from: "end", direction: "backward", max: 1 });
  await world.store.append(stream, [event], last ? last.revision : "no_stream");
}

describe("a store that is slow at admission", () => {
  test("is a 503 after 5 s, and RequestReleased {ledger_timeout} if it turns out to be recorded", async () => {
    const world = await gatewayWorld();
    world.stall();
    const answer = world.ask(handleChat);
    await world.clock.advance(4_999);
    expect(answer.status).toBe(undefined);
    await world.clock.advance(2);
    await answer.done;
    expect([answer.status, answer.json().error["code"], answer.headers["retry-after"]]).toEqual([
      503,
      "ledger_unavailable",
      "1",
    ]);
    expect((await world.balance()).held).toBeGreaterThan(0);
    world.release();
    await settled();
    expect(world.calls).toHaveLength(0);
    expect(await world.types()).toEqual(["RequestAdmitted.v1", "RequestReleased.v1"]);
    expect(await lastOf(world)).toMatchObject({
      reason: "ledger_timeout",
      forwarded: false,
      unbilledMicro: 0,
      attempts: [],
    });
    await world.expectAtRest();
  });

  test("also where the outcome stays unknown", async () => {
    const world = await gatewayWorld();
    world.judge = () => UNKNOWN;
    const answer = world.ask(handleChat);
    await world.clock.advance(6_000);
    await answer.done;
    expect(answer.status).toBe(503);
    world.judge = undefined;
    await world.clock.advance(2_000);
    expect(await world.types()).toEqual(["RequestAdmitted.v1", "RequestReleased.v1"]);
    await world.expectAtRest();
  });

  test("and one that refuses is a 503 at once, that took nothing", async () => {
    const world = await gatewayWorld();
    world.judge = () => REFUSED;
    const answer = world.ask(handleChat);
    await settled();
    expect([answer.status, answer.json().error["code"]]).toEqual([503, "ledger_unavailable"]);
    expect(await world.balance()).toEqual({ available: FUNDED_MICRO, held: 0, spent: 0 });
    world.judge = undefined;
    // However long nothing came meanwhile, the next request is taken.
    await world.clock.advance(60_000);
    world.ask(handleChat);
    await settled();
    expect(world.calls).toHaveLength(1);
  });

  test("gets no new requests once it is stuck: ledger_unavailable, with nothing taken", async () => {
    const world = await gatewayWorld();
    world.stall();
    world.ask(handleChat);
    await world.clock.advance(5_100);
    const { held } = await world.balance();
    const answer = world.ask(handleChat);
    await answer.done;
    expect([answer.status, answer.json().error["code"]]).toEqual([503, "ledger_unavailable"]);
    expect((await world.balance()).held).toBe(held);
    world.release();
    await world.expectAtRest();
  });
});

describe("a store that is slow at the end", () => {
  test("of a plain answer: 503 that is not to be repeated, charged later, and UsageUndelivered", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleChat);
    await settled();
    world.stall();
    world.calls[0]?.answer(completion([7, 5]));
    await world.clock.advance(5_001);
    await answer.done;
    expect([answer.status, answer.json().error["code"]]).toEqual([503, "ledger_unavailable"]);
    expect([answer.headers["x-should-retry"], answer.headers["retry-after"]]).toEqual([
      "false",
      undefined,
    ]);
    expect(world.counted).toEqual([{ status: 503, code: "ledger_unavailable" }]);
    // Not recorded, so not spent, and not free either.
    const { held, ...rest } = await world.balance();
    expect(held).toBeGreaterThan(0);
    expect(rest).toEqual({ available: FUNDED_MICRO - held, spent: 0 });
    world.release();
    await settled();
    expect(await world.types()).toEqual([
      "RequestAdmitted.v1",
      "UsageRecorded.v1",
      "UsageUndelivered.v1",
    ]);
    expect((await world.balance()).spent).toBe(12);
    await world.expectAtRest();
  });

  test("of a stream: an error inside it and no [DONE], charged later, and UsageUndelivered", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleChat, { text: chat({ stream: true }) });
    await settled();
    const [call] = world.calls;
    call?.head();
    call?.data(chunk({ content: "Hello" }) + chunk({}, { finish_reason: "stop" }));
    world.stall();
    call?.data(chunk(undefined, { usage: { prompt_tokens: 7, completion_tokens: 5 } }) + DONE);
    await world.clock.advance(5_001);
    await answer.done;
    expect(answer.text).toContain('"code":"ledger_unavailable"');
    expect(answer.text).not.toContain("[DONE]");
    expect(world.counted).toEqual([{ status: 200, code: "ledger_unavailable" }]);
    world.release();
    await settled();
    expect(await world.types()).toEqual([
      "RequestAdmitted.v1",
      "UsageRecorded.v1",
      "UsageUndelivered.v1",
    ]);
    await world.expectAtRest();
  });

  test("of a released request: its error after 5 s, and the release later", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleChat);
    await settled();
    world.stall();
    world.calls[0]?.fail("reset");
    await world.clock.advance(5_001);
    await answer.done;
    expect(answer.status).toBe(502);
    world.release();
    await world.expectAtRest();
  });
});

describe("an end that no append can carry", () => {
  const TOO_LARGE: AppendOutcome = { outcome: "refused", reason: "too_large" };

  test("is an alarm and a note, charges nobody, and keeps its hold until the journal is sealed", async () => {
    const world = await gatewayWorld();
    world.judge = (events) =>
      events.some(({ type }) => type === "UsageRecorded.v1") ? TOO_LARGE : undefined;
    const answer = world.ask(handleChat);
    await settled();
    world.calls[0]?.answer(completion([7, 5]));
    await world.clock.advance(1_000);
    await answer.done;
    expect([answer.status, answer.json().error["code"]]).toEqual([503, "ledger_unavailable"]);
    expect(answer.headers["x-should-retry"]).toBe("false");
    expect(world.alarms).toEqual(["entry_too_large"]);
    expect(await world.types()).toEqual(["RequestAdmitted.v1", "UsageLate.v1"]);
    const { held } = await world.balance();
    expect(held).toBeGreaterThan(0);
    // Nobody else waits for it.
    const next = world.ask(handleChat);
    await settled();
    world.calls[1]?.fail("connect");
    await next.done;
    expect((await world.types()).at(-1)).toBe("RequestReleased.v1");
    await world.clock.advance(60_000);
    expect(world.alarms).toEqual(["entry_too_large"]);
    expect(await world.balance()).toMatchObject({ held, spent: 0 });
  });

  test("because of what was taken beyond the hold is recorded without that, and the rest is the company's", async () => {
    const world = await gatewayWorld();
    world.judge = (events) =>
      events.some(({ type }) => type === "HoldExtended.v1") ? TOO_LARGE : undefined;
    const answer = world.ask(handleChat);
    await settled();
    world.calls[0]?.answer(completion([FUNDED_MICRO, 77]));
    await world.clock.advance(1_000);
    await answer.done;
    expect(answer.status).toBe(200);
    expect(await world.types()).toEqual(["RequestAdmitted.v1", "UsageRecorded.v1"]);
    const { chargedMicro, holdMicro, overHoldMicro } = await lastOf(world);
    expect(chargedMicro).toBe(holdMicro);
    expect(Number(chargedMicro) + Number(overHoldMicro)).toBe(FUNDED_MICRO + 77);
    await world.expectAtRest();
  });
});

describe("a journal that is sealed under a running gateway", () => {
  test("cuts what runs: an error inside the stream without [DONE], a UsageLate note, and nobody is charged", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleChat, { text: chat({ stream: true }) });
    await settled();
    const [call] = world.calls;
    call?.head();
    call?.data(chunk({ content: "Hello there" }));
    const before = world.gateway.writer.life()?.journal.writerEpoch;
    await sealUnder(world);
    // The gateway finds out by its next append.
    const next = world.ask(handleChat);
    await world.clock.advance(1_000);
    await Promise.all([answer.done, next.done]);
    expect(call?.aborted).toBe(true);
    expect(answer.text).toContain('"code":"ledger_unavailable"');
    expect(answer.text).not.toContain("[DONE]");
    expect([next.status, next.json().error["code"]]).toEqual([503, "ledger_unavailable"]);
    const events = await world.recorded();
    expect(events.map((event) => event.type)).toEqual([
      "RequestAdmitted.v1",
      "JournalSealed.v1",
      "UsageLate.v1",
    ]);
    expect(events[2]?.data).toMatchObject({ orgId: ORG, epoch: before, tokens: { output: 4 } });
    expect(world.gateway.writer.life()?.journal.writerEpoch).toBeGreaterThan(before ?? 0);
    expect((await world.balance()).spent).toBe(0);
    expect(world.alarms).toContain("journal_sealed_under_us");
  });

  test("is found before anything is taken, after half a minute without a record", async () => {
    const world = await gatewayWorld();
    await world.clock.advance(31_000);
    await sealUnder(world);
    let asked = 0;
    const { admit } = world.admission;
    world.admission.admit = (ask) => admit(ask).finally(() => (asked += 1));
    const answer = world.ask(handleChat);
    await world.clock.advance(1_000);
    await answer.done;
    expect([answer.status, answer.json().error["code"]]).toEqual([503, "ledger_unavailable"]);
    expect(asked).toBe(0);
    const next = world.ask(handleChat);
    await settled();
    world.calls[0]?.answer(completion([1, 1]));
    await next.done;
    expect([next.status, asked]).toEqual([200, 1]);
  });

  test("is found before anything is forwarded, by a process that was stopped with its hold on the way", async () => {
    const world = await gatewayWorld();
    const { append } = world.store;
    world.store.append = async (...given) => {
      const answer = await append(...given);
      world.store.append = append;
      await sealUnder(world);
      world.clock.elapsed = () => 70_000;
      return answer;
    };
    const answer = world.ask(handleChat);
    await world.clock.advance(1_000);
    await answer.done;
    expect([answer.status, world.calls]).toEqual([503, []]);
  });

  test("that cannot be looked for is a 503 within its limit, and nothing is taken", async () => {
    const world = await gatewayWorld();
    await world.clock.advance(31_000);
    const { read } = world.store;
    world.store.read = () => new Promise(() => {});
    const answer = world.ask(handleChat);
    await world.clock.advance(1_001);
    await answer.done;
    expect([answer.status, answer.headers["retry-after"]]).toEqual([503, "1"]);
    world.store.read = read;
    await world.expectAtRest();
    expect(world.calls).toEqual([]);
  });

  test("keeps no money of a request that was admitted after the sweep of its journal", async () => {
    const world = await gatewayWorld();
    await sealUnder(world);
    // The ledger has carried the seal, and swept; the gateway does not know yet.
    await world.clock.advance(1_000);
    const answer = world.ask(handleChat);
    await world.clock.advance(1_000);
    await answer.done;
    expect(answer.status).toBe(503);
    expect(await world.balance()).toEqual({ available: FUNDED_MICRO, held: 0, spent: 0 });
    const next = world.ask(handleChat);
    await settled();
    world.calls[0]?.answer(completion([1, 1]));
    await next.done;
    expect(next.status).toBe(200);
  });

  test("before the upstream has answered is a 503 that may be repeated", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleChat);
    await settled();
    await sealUnder(world);
    world.ask(handleChat);
    await world.clock.advance(1_000);
    expect([answer.status, answer.json().error["code"]]).toEqual([503, "ledger_unavailable"]);
    expect(answer.headers["x-should-retry"] ?? answer.headers["retry-after"]).toBe("1");
  });
});

describe("a fence", () => {
  test("drops a taking of an older owner: 503, nothing forwarded, nothing held, and the next asks the newest owner", async () => {
    const world = await gatewayWorld();
    const stream = world.gateway.writer.life()?.journal.stream ?? "";
    await world.store.fence(stream, fence(stream, 99));
    let reads = 0;
    const { refreshOwner } = world.gateway.writer;
    world.gateway.writer.refreshOwner = () => {
      reads += 1;
      return refreshOwner();
    };
    const answer = world.ask(handleChat);
    await settled();
    expect([answer.status, answer.json().error["code"], reads]).toEqual([
      503,
      "ledger_unavailable",
      1,
    ]);
    expect(world.calls).toHaveLength(0);
    expect(await world.balance()).toEqual({ available: FUNDED_MICRO, held: 0, spent: 0 });
  });

  test("drops an extension of an older owner, and the charge is computed anew without it", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleChat);
    await settled();
    const { holdMicro } = await lastOf(world);
    const stream = world.gateway.writer.life()?.journal.stream ?? "";
    // The admission store answers to nobody any more, as after the loss of its owner.
    let asked = 0;
    const { extend } = world.admission;
    world.admission.extend = (ask) => {
      asked += 1;
      return asked === 1 ? extend(ask) : Promise.resolve({ outcome: "fenced", fenced: "older" });
    };
    await world.store.fence(stream, fence(stream, 99));
    world.calls[0]?.answer(completion([2_000, 500]));
    await world.clock.advance(4_000);
    await answer.done;
    expect(answer.status).toBe(200);
    expect(await world.types()).toEqual(["RequestAdmitted.v1", "UsageRecorded.v1"]);
    expect(await lastOf(world)).toMatchObject({
      holdMicro,
      chargedMicro: holdMicro,
      overHoldMicro: 2_500 - Number(holdMicro),
    });
    await world.expectAtRest();
  });

  test("of the admission store is asked again for a second, then a 503", async () => {
    const world = await gatewayWorld();
    const wanted: string[] = [];
    world.admission.admit = () => Promise.resolve({ outcome: "fenced", fenced: "absent" });
    world.admission.want = (orgId) => Promise.resolve(void wanted.push(orgId));
    const answer = world.ask(handleChat);
    await world.clock.advance(900);
    expect(answer.status).toBe(undefined);
    await world.clock.advance(1_000);
    await answer.done;
    expect([answer.status, answer.headers["retry-after"]]).toEqual([503, "1"]);
    expect(wanted.length).toBeGreaterThan(2);
  });
});
