import { describe, expect, test } from "vitest";
import {
  chat,
  chunk,
  DONE,
  FUNDED_MICRO,
  gatewayWorld,
  settled,
} from "#test/worlds/gateway-world.ts";
import type { UpstreamFailure } from "#services/ports.ts";
import { handleChat } from "#test/worlds/chat-way.ts";

/** One streamed answer, from the request to the books. */
async function streaming(changes: object = {}, how: { slow?: boolean } = {}) {
  const world = await gatewayWorld();
  const answer = world.ask(handleChat, { text: chat({ stream: true, ...changes }), ...how });
  await settled();
  const [call] = world.calls;
  if (!call) throw new Error(`nothing was forwarded: ${answer.status} ${answer.text}`);
  const last = async () => ((await world.recorded()).at(-1)?.data ?? {}) as Record<string, unknown>;
  return { world, answer, call, last };
}

const FIRST = chunk({ role: "assistant", content: "" });
const WORD = chunk({ content: "Hello" });
const FINISH = chunk({}, { finish_reason: "stop" });
const USAGE = chunk(undefined, {
  usage: { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 },
});
const isWhole = (text: string) => text.includes("[DONE]");

test("bytes go on as they come; usage is asked for, taken out, and charged; [DONE] waits for the record", async () => {
  const { world, answer, call, last } = await streaming();
  expect(JSON.parse(Buffer.from(call.call.body).toString())).toMatchObject({
    stream_options: { include_usage: true },
  });
  call.head();
  expect(answer.status).toBe(undefined);
  call.data(FIRST + WORD);
  expect(answer.text).toBe(FIRST + WORD);
  expect(answer.headers).toMatchObject({
    "content-type": "text/event-stream; charset=utf-8",
    "x-accel-buffering": "no",
    "x-request-id": call.call.requestId,
    "x-relai-region": "us",
    "x-relai-model": "sim-flat",
    "x-relai-attempts": "1",
  });
  call.data(FINISH + USAGE);
  world.stall();
  call.data(DONE);
  await world.clock.advance(4_900);
  expect(answer.text).toBe(FIRST + WORD + FINISH);
  world.release();
  await answer.done;
  expect(answer.text).toBe(FIRST + WORD + FINISH + DONE);
  expect(await last()).toMatchObject({
    tokens: { input: 7, output: 5 },
    chargedMicro: 12,
    billedBy: "provider",
    finish: "stop",
  });
  expect(await world.balance()).toEqual({ available: FUNDED_MICRO - 12, held: 0, spent: 12 });
  expect(world.counted).toEqual([{ status: 200, code: "ok" }]);
  await world.expectAtRest();
});

test("who asked for usage gets it", async () => {
  const { world, answer, call } = await streaming({ stream_options: { include_usage: true } });
  call.head();
  call.data(FIRST + WORD + FINISH + USAGE + DONE);
  await answer.done;
  expect(answer.text).toBe(FIRST + WORD + FINISH + USAGE + DONE);
  await world.expectAtRest();
});

test("a stream that ends cleanly after every choice finished is whole without [DONE]", async () => {
  const { world, answer, call } = await streaming();
  call.head();
  call.data(FIRST + WORD + FINISH + USAGE);
  call.receiver.end();
  await answer.done;
  expect(isWhole(answer.text)).toBe(true);
  await world.expectAtRest();
});

describe("a stream that breaks never looks finished", () => {
  const breaks: [string, string, (world: Awaited<ReturnType<typeof streaming>>["call"]) => void][] =
    [
      ["reset", "upstream_error", (call) => call.fail("reset")],
      ["stalled", "upstream_timeout", (call) => call.fail("idle_timeout")],
      ["truncated", "upstream_error", (call) => call.receiver.end()],
      ["followed by garbage", "upstream_error", (call) => void call.data("<html>\n\n")],
      [
        "followed by an error",
        "upstream_error",
        (call) => void call.data('data: {"error":{"message":"secret"}}\n\n'),
      ],
    ];
  test.each(breaks)(
    "%s after visible bytes: an error inside the stream, and the estimate is charged",
    async (_name, code, end) => {
      const { world, answer, call, last } = await streaming();
      call.head();
      call.data(FIRST + WORD);
      end(call);
      await answer.done;
      expect(answer.text.startsWith(FIRST + WORD)).toBe(true);
      const error = answer.text.slice((FIRST + WORD).length);
      expect(JSON.parse(error.slice(6))).toMatchObject({ error: { code, param: null } });
      expect(isWhole(answer.text)).toBe(false);
      expect(answer.text).not.toContain("secret");
      expect(await last()).toMatchObject({ billedBy: "estimate", tokens: { output: 2 } });
      expect(world.counted).toEqual([{ status: 200, code }]);
      await world.expectAtRest();
    },
  );

  test.each(breaks)("%s after nothing that shows: released and free", async (_name, code, end) => {
    const { world, answer, call, last } = await streaming();
    call.head();
    call.data(FIRST);
    end(call);
    await answer.done;
    expect(isWhole(answer.text)).toBe(false);
    expect(answer.text).toContain(`"code":"${code}"`);
    expect(await last()).toMatchObject({ reason: code, forwarded: true });
    expect((await world.balance()).spent).toBe(0);
    await world.expectAtRest();
  });

  test.each<[string, UpstreamFailure | "end", string]>([
    ["a reset", "reset", "upstream_error"],
    ["a time-out", "first_byte_timeout", "upstream_timeout"],
    ["an empty body", "end", "upstream_error"],
  ])("%s before the first byte keeps its status", async (_name, failure, code) => {
    const { world, answer, call } = await streaming();
    call.head();
    if (failure === "end") call.receiver.end();
    else call.fail(failure);
    await answer.done;
    expect([answer.status, answer.json().error["code"]]).toEqual([502, code]);
    await world.expectAtRest();
  });

  test("usage that came before the break is what is charged", async () => {
    const { world, answer, call, last } = await streaming();
    call.head();
    call.data(FIRST + WORD + USAGE);
    call.fail("reset");
    await answer.done;
    expect(await last()).toMatchObject({
      billedBy: "provider",
      chargedMicro: 12,
      attempts: [{ outcome: "reset" }],
    });
    expect(isWhole(answer.text)).toBe(false);
    await world.expectAtRest();
  });

  test("a refusal of a streamed request is a plain error with its status", async () => {
    const { world, answer, call } = await streaming();
    call.answer({ error: { message: "no", type: "invalid_request_error" } }, 400);
    await answer.done;
    expect([answer.status, answer.headers["content-type"]]).toEqual([
      400,
      "application/json; charset=utf-8",
    ]);
    await world.expectAtRest();
  });
});

describe("a client that leaves a stream", () => {
  test.each([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])(
    "at point %i: aborted and released before the first byte, charged after it",
    async (point) => {
      const { world, answer, call, last } = await streaming();
      const words = Array.from({ length: 6 }, () => WORD);
      const steps = [
        () => call.head(),
        ...[FIRST, ...words, FINISH + USAGE + DONE].map((text) => () => void call.data(text)),
      ];
      for (const [at, step] of steps.entries()) {
        if (at === point) answer.leave();
        await settled();
        if (!call.aborted) step();
      }
      await settled();
      if (point >= steps.length) answer.leave();
      await answer.done;
      if (point < 2) {
        expect(call.aborted).toBe(true);
        expect(await last()).toMatchObject({ reason: "client_gone", clientGone: true });
      } else {
        expect(call.aborted).toBe(false);
        expect(await last()).toMatchObject({
          chargedMicro: 12,
          billedBy: "provider",
          clientGone: point < steps.length,
        });
      }
      await world.expectAtRest();
    },
  );

  test("is read on for 4 MiB at most, and then the estimate is charged", async () => {
    const { world, answer, call, last } = await streaming();
    call.head();
    call.data(FIRST + WORD);
    answer.leave();
    for (let more = 0; more < 60 && !call.aborted; more++) call.data(WORD);
    await answer.done;
    expect(call.aborted).toBe(true);
    expect(await last()).toMatchObject({ billedBy: "estimate", clientGone: true });
    await world.expectAtRest();
  });

  test("while it was slow does not leave the upstream waiting", async () => {
    const { world, answer, call } = await streaming({}, { slow: true });
    call.head();
    expect(call.data(FIRST + WORD)).toBe(false);
    answer.leave();
    expect(call.paused).toBe(false);
    call.data(FINISH + USAGE + DONE);
    await answer.done;
    expect((await world.balance()).spent).toBe(12);
    await world.expectAtRest();
  });
});

describe("a slow reader", () => {
  test("makes the upstream wait, and go on when it has drained", async () => {
    const { world, answer, call } = await streaming({}, { slow: true });
    call.head();
    expect(call.data(FIRST + WORD)).toBe(false);
    await world.clock.advance(29_000);
    answer.drain();
    expect(call.paused).toBe(false);
    await world.clock.advance(29_000);
    expect(answer.destroyed).toBe(false);
    answer.slow = false;
    call.data(FINISH + USAGE + DONE);
    await answer.done;
    expect(isWhole(answer.text)).toBe(true);
    await world.expectAtRest();
  });

  test("that takes nothing for the limit has left", async () => {
    const { world, answer, call } = await streaming({}, { slow: true });
    call.head();
    call.data(FIRST + WORD);
    await world.clock.advance(30_001);
    expect([answer.destroyed, call.paused]).toEqual([true, false]);
    call.data(USAGE + DONE);
    await answer.done;
    await world.expectAtRest();
  });

  test("that is given more while it is waited for, and drains, is not broken off later", async () => {
    const { world, answer, call } = await streaming({}, { slow: true });
    call.head();
    call.data(FIRST + WORD);
    // What was read from the connection before the pause still comes.
    call.data(WORD);
    answer.drain();
    answer.slow = false;
    for (let word = 0; word < 10; word++) {
      call.data(WORD);
      await world.clock.advance(10_000);
    }
    expect(answer.destroyed).toBe(false);
    call.data(FINISH + USAGE + DONE);
    await answer.done;
    expect(isWhole(answer.text)).toBe(true);
    await world.expectAtRest();
  });

  test.each(["in the last bytes", "before them"])(
    "that stops reading %s does not keep the upstream's connection",
    async (when) => {
      const { world, answer, call } = await streaming({}, { slow: true });
      call.head();
      if (when === "before them") call.data(FIRST + WORD);
      const goOn = call.data(FINISH + USAGE + DONE);
      await answer.done;
      answer.drain();
      expect(when === "before them" ? call.paused : !goOn).toBe(false);
      await world.expectAtRest();
    },
  );

  test("costs no more than a timer now and then, however long it takes", async () => {
    const { world, answer, call } = await streaming({}, { slow: true });
    call.head();
    call.data(FIRST + WORD);
    const timer = world.clock.timer.bind(world.clock);
    let armed = 0;
    world.clock.timer = (delayMs, callback) => {
      armed += 1;
      return timer(delayMs, callback);
    };
    await world.clock.advance(29_000);
    expect(armed).toBeLessThan(200);
    answer.leave();
    await world.clock.advance(59_000);
    expect(armed).toBeLessThan(200);
    call.data(USAGE + DONE);
    await answer.done;
    await world.expectAtRest();
  });
});

describe("keep-alive comments", () => {
  test("come after every 15 s of silence once the stream has begun, between whole events", async () => {
    const { world, answer, call } = await streaming();
    call.head();
    await world.clock.advance(60_000);
    expect(answer.text).toBe("");
    call.data(FIRST + WORD.slice(0, 30));
    await world.clock.advance(15_000);
    expect(answer.text).toBe(`${FIRST}: keepalive\n\n`);
    await world.clock.advance(14_000);
    call.data(WORD.slice(30));
    await world.clock.advance(14_000);
    expect(answer.text).toBe(`${FIRST}: keepalive\n\n${WORD}`);
    await world.clock.advance(1_000);
    expect(answer.text).toBe(`${FIRST}: keepalive\n\n${WORD}: keepalive\n\n`);
    call.data(FINISH + USAGE + DONE);
    await answer.done;
    const { text } = answer;
    await world.clock.advance(60_000);
    expect(answer.text).toBe(text);
    await world.expectAtRest();
  });
});
