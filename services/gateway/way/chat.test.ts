import { describe, expect, test } from "vitest";
import {
  chat,
  completion,
  CREDENTIAL,
  FUNDED_MICRO,
  gatewayWorld,
  ORG,
  settled,
} from "#test/worlds/gateway-world.ts";
import type { UpstreamFailure } from "#services/ports.ts";
import { handleChat } from "#test/worlds/chat-way.ts";

/** One plain answer, from the request to the books: what goes out, what comes back, and what it costs. */
async function asked(
  changes: Parameters<Awaited<ReturnType<typeof gatewayWorld>>["ask"]>[1] = {},
  options: Parameters<typeof gatewayWorld>[0] = {},
) {
  const world = await gatewayWorld(options);
  const answer = world.ask(handleChat, changes);
  await settled();
  const [call] = world.calls;
  if (!call) throw new Error(`nothing was forwarded: ${answer.status} ${answer.text}`);
  return { world, answer, call };
}

async function lastOf(world: Awaited<ReturnType<typeof gatewayWorld>>) {
  const events = await world.recorded();
  return (events.at(-1)?.data ?? {}) as Record<string, unknown>;
}

test("an answer is charged by its usage, to the micro, and comes with its headers", async () => {
  const { world, answer, call } = await asked({ more: { "x-client-request-id": "mine" } });
  expect(await world.types()).toEqual(["RequestAdmitted.v1"]);
  const { holdMicro } = await lastOf(world);
  expect((await world.balance()).held).toBe(holdMicro);
  call.answer(completion([7, 5]), 200, {
    "x-ratelimit-remaining-requests": "9999",
    "openai-organization": "org-ours",
    "set-cookie": "session=ours",
    "x-request-id": "req_theirs",
  });
  await answer.done;
  expect(answer.status).toBe(200);
  expect(answer.json()).toEqual(completion([7, 5]));
  expect(answer.headers).toEqual({
    "content-type": "application/json; charset=utf-8",
    "content-length": String(answer.text.length),
    "x-request-id": call.call.requestId,
    "x-client-request-id": "mine",
    "x-relai-region": "us",
    "x-relai-model": "sim-flat",
    "x-relai-attempts": "1",
    "x-relai-cost-micro": "12",
  });
  expect(await world.balance()).toEqual({ available: FUNDED_MICRO - 12, held: 0, spent: 12 });
  expect(await lastOf(world)).toMatchObject({
    requestId: call.call.requestId,
    holdMicro,
    tokens: { input: 7, output: 5 },
    chargedMicro: 12,
    overHoldMicro: 0,
    billedBy: "provider",
    clientGone: false,
    attempts: [{ host: "simulator", hostKey: "sim", outcome: "answered", status: 200 }],
    finish: "stop",
  });
  expect(world.counted).toEqual([{ status: 200, code: "ok" }]);
  await world.expectAtRest();
});

test("what goes upstream is ours: the id, the credential and the cap, and nothing of the caller's key", async () => {
  const { world, answer, call } = await asked({
    text: chat({ unknown_field: [1, { a: "b" }], max_tokens: undefined }),
  });
  expect(call.call).toMatchObject({ path: "/chat/completions", baseUrl: "http://127.0.0.1:1/v1" });
  expect(call.call.headers).toEqual({
    authorization: `Bearer ${CREDENTIAL}`,
    "content-type": "application/json",
    accept: "application/json",
    "x-client-request-id": call.call.requestId,
  });
  const sent = JSON.parse(Buffer.from(call.call.body).toString()) as Record<string, unknown>;
  expect(sent).toMatchObject({ unknown_field: [1, { a: "b" }], max_tokens: 16_384 });
  expect(JSON.stringify(call.call)).not.toContain(world.keys[0]);
  answer.leave();
  await world.expectAtRest();
});

describe("the order is the promise", () => {
  test("nothing is forwarded before RequestAdmitted is durable", async () => {
    const world = await gatewayWorld();
    world.stall();
    const answer = world.ask(handleChat);
    await world.clock.advance(4_900);
    expect(world.calls).toHaveLength(0);
    expect((await world.balance()).held).toBeGreaterThan(0);
    world.release();
    await settled();
    expect(world.calls).toHaveLength(1);
    expect(await world.types()).toEqual(["RequestAdmitted.v1"]);
    world.calls[0]?.answer(completion([1, 1]));
    await answer.done;
    await world.expectAtRest();
  });

  test("not a byte of the answer goes out before UsageRecorded is durable and the hold is closed", async () => {
    const { world, answer, call } = await asked();
    world.stall();
    call.answer(completion([7, 5]));
    await world.clock.advance(4_900);
    expect([answer.status, answer.text]).toEqual([undefined, ""]);
    world.release();
    await answer.done;
    expect(answer.status).toBe(200);
    expect((await world.balance()).held).toBe(0);
    await world.expectAtRest();
  });
});

describe("how an upstream can end, and what it costs", () => {
  test("no connection free is a 503 overloaded, released, with nothing unbilled and no fault of the upstream", async () => {
    const { world, answer, call } = await asked();
    expect(call.call.orgId).toBe(ORG);
    call.fail("overloaded");
    await answer.done;
    expect([answer.status, answer.json().error["code"], answer.headers["retry-after"]]).toEqual([
      503,
      "overloaded",
      "1",
    ]);
    expect(await lastOf(world)).toMatchObject({
      reason: "overloaded",
      forwarded: false,
      attempts: [],
      unbilledMicro: 0,
    });
    expect(await world.balance()).toEqual({ available: FUNDED_MICRO, held: 0, spent: 0 });
    expect(world.counted).toEqual([{ status: 503, code: "overloaded" }]);
    await world.expectAtRest();
  });

  const failures: [UpstreamFailure, "before" | "after", string, boolean][] = [
    ["connect", "before", "upstream_error", false],
    ["reset", "before", "upstream_error", true],
    ["reset", "after", "upstream_error", true],
    ["first_byte_timeout", "before", "upstream_timeout", true],
    ["idle_timeout", "after", "upstream_timeout", true],
  ];
  test.each(failures)(
    "%s %s the first byte is released, free, and a 502",
    async (failure, when, code, isForwarded) => {
      const { world, answer, call } = await asked();
      const { holdCostMicro } = await lastOf(world);
      if (when === "after") {
        call.head();
        call.data('{"id":');
      }
      call.fail(failure);
      await answer.done;
      expect([answer.status, answer.json().error["code"]]).toEqual([502, code]);
      expect(answer.headers["x-request-id"]).toBe(call.call.requestId);
      expect(await lastOf(world)).toMatchObject({
        reason: code,
        forwarded: isForwarded,
        clientGone: false,
        unbilledMicro: isForwarded ? holdCostMicro : 0,
      });
      expect(await world.balance()).toEqual({ available: FUNDED_MICRO, held: 0, spent: 0 });
      expect(world.counted).toEqual([{ status: 502, code }]);
      await world.expectAtRest();
    },
  );

  test.each<[string, object | string]>([
    ["garbage", "<html>busy</html>"],
    ["an empty body", ""],
    ["an error under a 200", { error: { message: "secret", type: "server_error" } }],
    ["an answer without choices", { id: "x" }],
    ["half an answer", JSON.stringify(completion([7, 5])).slice(0, -9)],
  ])("%s is released, free, and a 502 that quotes nothing", async (_name, body) => {
    const { world, answer, call } = await asked();
    call.answer(body);
    await answer.done;
    expect([answer.status, answer.json().error["code"]]).toEqual([502, "upstream_error"]);
    expect(answer.text).not.toMatch(/secret|busy/);
    expect(await lastOf(world)).toMatchObject({ reason: "upstream_error" });
    await world.expectAtRest();
  });

  test("a refusal that is the caller's passes with its status and message", async () => {
    const { world, answer, call } = await asked();
    call.answer(
      { error: { message: "bad top_p", type: "invalid_request_error", code: "x", param: "top_p" } },
      400,
    );
    await answer.done;
    expect(answer.status).toBe(400);
    expect(answer.json()).toEqual({
      error: { message: "bad top_p", type: "invalid_request_error", code: "x", param: "top_p" },
    });
    expect(await lastOf(world)).toMatchObject({
      reason: "upstream_refused",
      forwarded: true,
      unbilledMicro: 0,
      attempts: [{ outcome: "refused", status: 400 }],
    });
    await world.expectAtRest();
  });

  test.each([
    [301, 502, "upstream_error", "refused"],
    [307, 502, "upstream_error", "refused"],
    [401, 502, "upstream_error", "refused"],
    [403, 502, "upstream_error", "refused"],
    [429, 429, "upstream_rate_limited", "rate_limited"],
    [500, 502, "upstream_error", "failed"],
    [503, 502, "upstream_error", "failed"],
  ])("%i of the upstream is %i %s, whatever it says of us", async (status, told, code, outcome) => {
    const { world, answer, call } = await asked();
    call.answer(
      { error: { message: `key ${CREDENTIAL} of org-ours12345 is over its limit` } },
      status,
      { "retry-after": "7", location: "http://elsewhere/" },
    );
    await answer.done;
    expect([answer.status, answer.json().error["code"]]).toEqual([told, code]);
    expect(answer.headers["retry-after"]).toBe(status === 429 ? "7" : undefined);
    expect(JSON.stringify([answer.text, answer.headers])).not.toMatch(
      /credential|org-ours|elsewhere/,
    );
    expect(world.calls).toHaveLength(1);
    expect(await lastOf(world)).toMatchObject({
      attempts: [{ outcome, status }],
      unbilledMicro: 0,
    });
    await world.expectAtRest();
  });

  test("an answer above the limit is cut, released and booked as unbilled", async () => {
    const { world, answer, call } = await asked();
    call.head();
    for (let piece = 0; piece < 11; piece++) call.data("x".repeat(1_000));
    await answer.done;
    expect(call.aborted).toBe(true);
    expect(answer.status).toBe(502);
    await world.expectAtRest();
  });

  test("no usage although asked: estimated from the visible bytes and the prompt, and charged within the hold", async () => {
    const { world, answer, call } = await asked();
    call.answer(completion(undefined, "x".repeat(90)));
    await answer.done;
    const { billedBy, tokens, chargedMicro } = await lastOf(world);
    expect({ billedBy, tokens }).toMatchObject({ billedBy: "estimate", tokens: { output: 30 } });
    expect(answer.headers["x-relai-cost-micro"]).toBe(String(chargedMicro));
    await world.expectAtRest();
  });

  test("a cost beyond every amount ends the hold all the same, and is a 500", async () => {
    const { world, answer, call } = await asked({ text: chat({ model: "sim-large" }) });
    call.answer(completion([Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER]));
    await answer.done;
    expect([answer.status, answer.json().error["code"]]).toEqual([500, "internal_error"]);
    expect(answer.headers["x-request-id"]).toBe(call.call.requestId);
    expect(await lastOf(world)).toMatchObject({ reason: "internal_error", forwarded: true });
    await world.expectAtRest();
  });
});

describe("usage above the hold", () => {
  test("is taken like any money, recorded with its extension in one append, and charged", async () => {
    const { world, answer, call } = await asked();
    const appends: string[][] = [];
    world.judge = (events) => void appends.push(events.map((event) => event.type));
    call.answer(completion([2_000, 500]));
    await answer.done;
    expect(appends).toEqual([["HoldExtended.v1", "UsageRecorded.v1"]]);
    expect(answer.headers["x-relai-cost-micro"]).toBe("2500");
    expect(await lastOf(world)).toMatchObject({
      chargedMicro: 2_500,
      overHoldMicro: 0,
      holdMicro: 2_500,
    });
    expect(await world.balance()).toEqual({
      available: FUNDED_MICRO - 2_500,
      held: 0,
      spent: 2_500,
    });
    await world.expectAtRest();
  });

  test("as far as the money goes; the rest is the company's", async () => {
    const { world, answer, call } = await asked();
    call.answer(completion([FUNDED_MICRO, 77]));
    await answer.done;
    expect(await lastOf(world)).toMatchObject({ chargedMicro: FUNDED_MICRO, overHoldMicro: 77 });
    expect(await world.balance()).toEqual({ available: 0, held: 0, spent: FUNDED_MICRO });
    await world.expectAtRest();
  });

  test("an extension that the store refuses is taken anew until it is in, once", async () => {
    const { world, answer, call } = await asked();
    let refusals = 3;
    world.judge = () => (refusals-- > 0 ? { outcome: "refused", reason: "disk_full" } : undefined);
    call.answer(completion([2_000, 500]));
    await world.clock.advance(3_000);
    await answer.done;
    expect(answer.status).toBe(200);
    expect(await world.types()).toEqual([
      "RequestAdmitted.v1",
      "HoldExtended.v1",
      "UsageRecorded.v1",
    ]);
    expect((await world.balance()).spent).toBe(2_500);
    await world.expectAtRest();
  });
});

describe("a client that leaves", () => {
  test("before its call is made costs nothing and is never forwarded", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleChat, { left: true });
    await answer.done;
    expect(world.calls).toHaveLength(0);
    expect(await lastOf(world)).toMatchObject({
      reason: "client_gone",
      forwarded: false,
      clientGone: true,
      unbilledMicro: 0,
    });
    expect(world.counted).toEqual([{ status: 499, code: "client_gone" }]);
    await world.expectAtRest();
  });

  test.each(["before the head", "before the first byte"])(
    "%s ends the call, and is released",
    async (when) => {
      const { world, answer, call } = await asked();
      if (when === "before the first byte") call.head();
      answer.leave();
      await answer.done;
      expect(call.aborted).toBe(true);
      expect(await lastOf(world)).toMatchObject({
        reason: "client_gone",
        forwarded: true,
        clientGone: true,
      });
      await world.expectAtRest();
    },
  );

  test("after the first byte is read on to the end and charged", async () => {
    const { world, answer, call } = await asked();
    call.head();
    const text = JSON.stringify(completion([7, 5]));
    call.data(text.slice(0, 20));
    answer.leave();
    await world.clock.advance(59_000);
    call.data(text.slice(20));
    call.receiver.end();
    await answer.done;
    expect([call.aborted, answer.status]).toEqual([false, undefined]);
    expect(await lastOf(world)).toMatchObject({ chargedMicro: 12, clientGone: true });
    await world.expectAtRest();
  });

  test("is read on for 60 s at most", async () => {
    const { world, answer, call } = await asked();
    call.head();
    call.data("{");
    answer.leave();
    await world.clock.advance(60_001);
    await answer.done;
    expect(call.aborted).toBe(true);
    // One byte had come: it is charged as the estimate says, like a stream that is cut.
    expect(await lastOf(world)).toMatchObject({
      billedBy: "estimate",
      clientGone: true,
      finish: "read_on_over",
      tokens: { output: 1 },
    });
    await world.expectAtRest();
  });

  test("during the final record is charged", async () => {
    const { world, answer, call } = await asked();
    world.stall();
    call.answer(completion([7, 5]));
    await settled();
    answer.leave();
    world.release();
    await answer.done;
    expect((await world.balance()).spent).toBe(12);
    await world.expectAtRest();
  });
});

describe("a client that takes its answer slowly", () => {
  test("keeps its room until it has it, within the limit", async () => {
    const { world, answer, call } = await asked({ slow: true });
    call.answer(completion([7, 5], "y".repeat(5_000)));
    await settled();
    expect(answer.status).toBe(200);
    expect(answer.ended).toBe(false);
    expect(world.gateway.inFlight.bytes()).toBeGreaterThan(5_000);
    answer.drain();
    await answer.done;
    expect(answer.ended).toBe(true);
    expect(world.clock.armed()).toBeLessThan(5);
    await world.expectAtRest();
  });

  test("and is left after it", async () => {
    const { world, answer, call } = await asked({ slow: true });
    call.answer(completion([7, 5]));
    await world.clock.advance(30_001);
    await answer.done;
    expect([answer.destroyed, answer.ended]).toEqual([true, false]);
    expect((await world.balance()).spent).toBe(12);
    await world.expectAtRest();
  });
});
