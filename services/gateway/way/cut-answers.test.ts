import { describe, expect, test } from "vitest";
import type { UpstreamFailure } from "#services/ports.ts";
import {
  chat,
  chunk,
  completion,
  DONE,
  gatewayWorld,
  settled,
} from "#test/worlds/gateway-world.ts";
import type { SeenCall } from "#test/worlds/gateway-ends.ts";
import { handleChat } from "#test/worlds/chat-way.ts";
import { createReadOns } from "./read-ons.ts";

/** Answers that are cut, or come to nothing after the provider has begun: who pays, what the books say, what is repeated. */

type Options = Parameters<typeof gatewayWorld>[0];

async function asked(text: string, options: Options = {}) {
  const world = await gatewayWorld(options);
  const answer = world.ask(handleChat, { text });
  await settled();
  const [call] = world.calls;
  if (!call) throw new Error(`nothing was forwarded: ${answer.status} ${answer.text}`);
  const last = async () => ((await world.recorded()).at(-1)?.data ?? {}) as Record<string, unknown>;
  const { holdCostMicro } = await last();
  return { world, answer, call, last, holdCostMicro: Number(holdCostMicro) };
}

const BEGUN = chunk({ role: "assistant", content: "" });
const WORD = chunk({ content: "Hello" });
const USAGE = chunk(undefined, {
  usage: { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 },
});
const ROOM = {
  limits: { bodyBytesMax: 100_000, inFlightBytesMax: 1_000_000 },
  fundedMicro: 10_000_000,
};

const text = (words: string) => ({ type: "text", text: words });
const image = (url: string) => ({ type: "image_url", image_url: { url } });
const audio = (format: string, bytes: number) => ({
  type: "input_audio",
  input_audio: { format, data: Buffer.alloc(bytes).toString("base64") },
});
const asking = (model: string, content: object[], more: object = {}) =>
  chat({ model, stream: true, messages: [{ role: "user", content }], ...more });

describe("a cut answer is charged for all that can be sized, and what the provider may bill beyond is booked", () => {
  const vision = "sim-vision";
  test.each<[string, string, Record<string, number>]>([
    ["text", asking("sim-flat", [text("x".repeat(400))]), { input: 100 }],
    [
      "an image in the body",
      asking(vision, [text("what?"), image("data:image/png;base64,AAAA")]),
      { input: 2, inputImage: 2_000 },
    ],
    [
      "two images that are elsewhere",
      asking(vision, [image("https://a.example/b.png"), image("https://a.example/c.png")]),
      { inputImage: 4_000 },
    ],
    [
      "a second of uncompressed audio",
      asking("sim-audio", [audio("wav", 48_000)]),
      { inputAudio: 10 },
    ],
    ["compressed audio", asking("sim-audio", [audio("mp3", 8_000)]), { inputAudio: 10 }],
  ])("%s", async (_what, body, input) => {
    const { world, answer, call, last, holdCostMicro } = await asked(body, ROOM);
    call.head();
    call.data(BEGUN + WORD);
    answer.leave();
    await world.clock.advance(60_000);
    await answer.done;
    expect(call.aborted).toBe(true);
    const usage = await last();
    expect(usage).toMatchObject({
      billedBy: "estimate",
      clientGone: true,
      tokens: { ...input, output: 2 },
    });
    expect(Number(usage["chargedMicro"])).toBeGreaterThan(0);
    expect(Number(usage["providerCostMicro"]) + Number(usage["unbilledMicro"])).toBe(holdCostMicro);
    expect(world.counted).toEqual([{ status: 499, code: "client_gone" }]);
    await world.expectAtRest();
  });

  test("the prompt is charged also when nothing had shown yet, as while a model reasons", async () => {
    const { world, answer, call, last } = await asked(asking("sim-flat", [text("x".repeat(400))]));
    call.head();
    call.data(BEGUN);
    answer.leave();
    await world.clock.advance(60_000);
    await answer.done;
    expect(await last()).toMatchObject({ tokens: { input: 100 }, chargedMicro: 100 });
    await world.expectAtRest();
  });

  test("audio that was answered is counted by its bytes, also when it is compressed", async () => {
    const heard = chunk({
      audio: { data: Buffer.alloc(24_000).toString("base64"), transcript: "Hi" },
    });
    for (const [format, outputAudio] of [
      ["pcm16", 10],
      ["mp3", 60],
    ] as const) {
      const body = asking("sim-audio", [text("sing")], {
        modalities: ["text", "audio"],
        audio: { voice: "a", format },
      });
      const { world, answer, call, last } = await asked(body, ROOM);
      call.head();
      call.data(BEGUN + heard);
      call.fail("reset");
      await answer.done;
      expect(await last()).toMatchObject({ tokens: { input: 1, output: 1, outputAudio } });
      await world.expectAtRest();
    }
  });

  test("a plain answer is charged by what had come of it", async () => {
    const { world, answer, call, last, holdCostMicro } = await asked(chat({ max_tokens: 100 }));
    call.head();
    call.data("x".repeat(60));
    answer.leave();
    await world.clock.advance(60_000);
    await answer.done;
    expect(await last()).toMatchObject({
      tokens: { input: 2, output: 20 },
      finish: "read_on_over",
      unbilledMicro: holdCostMicro - 18,
    });
    await world.expectAtRest();
  });

  test("an answer whose usage came hides nothing: the provider's word is all that it bills", async () => {
    const { world, answer, call, last } = await asked(asking("sim-flat", [text("hello")]));
    call.head();
    call.data(BEGUN + WORD);
    answer.leave();
    call.data(USAGE + DONE);
    await answer.done;
    const usage = await last();
    expect(usage).toMatchObject({ billedBy: "provider", chargedMicro: 12 });
    expect(usage).not.toHaveProperty("unbilledMicro");
    expect(world.counted).toEqual([{ status: 499, code: "client_gone" }]);
    await world.expectAtRest();
  });
});

describe("answers that are read on after their client left have a bounded number of places", () => {
  test("an organization has 64 of them; the newest beyond is cut at once, and a place that is free is taken", async () => {
    const world = await gatewayWorld();
    const body = asking("sim-flat", [text("hi")], { max_tokens: 5 });
    const answers: ReturnType<typeof world.ask>[] = [];
    for (let number = 0; number < 66; number++) {
      const answer = world.ask(handleChat, { text: body });
      await settled();
      const call = world.calls[number];
      call?.head();
      call?.data(BEGUN + WORD);
      answers.push(answer);
    }
    const leave = (at: number) => answers[at]?.leave();
    for (let number = 0; number < 65; number++) leave(number);
    await settled();
    const cut = () => world.calls.flatMap((call, at) => (call.aborted ? [at] : []));
    expect(cut()).toEqual([64]);
    world.calls[3]?.data(USAGE + DONE);
    await settled();
    leave(65);
    await settled();
    expect(cut()).toEqual([64]);
    for (const [at, call] of world.calls.entries())
      if (at !== 3 && at !== 64) call.data(USAGE + DONE);
    await Promise.all(answers.map((answer) => answer.done));
    await world.expectAtRest();
  });

  test("the process has places too, whoever takes them, and nothing stays behind of who gave them back", () => {
    const readOns = createReadOns(3, 2);
    const places = ["a", "a", "b"].map((orgId) => readOns.begin(orgId));
    expect(places.every(Boolean)).toBe(true);
    expect([readOns.begin("a"), readOns.begin("b")]).toEqual([undefined, undefined]);
    places[0]?.();
    expect(readOns.begin("a")).toBeDefined();
    expect(readOns.begin("a")).toBeUndefined();
  });
});

describe("once the provider has answered, or was waited for to the limit, nothing asks for a repeat", () => {
  const TOO_LARGE = { limits: { answerBytesMax: 500 } };
  const NO_ROOM = { limits: { answerBytesMax: 100_000, inFlightBytesMax: 1_000 } };
  const fails = (failure: UpstreamFailure) => (call: SeenCall) => call.fail(failure);
  test.each<[string, Options, number, string, (call: SeenCall) => void]>([
    ["too large", TOO_LARGE, 502, "upstream_error", (call) => void call.data("x".repeat(501))],
    ["without room", NO_ROOM, 503, "overloaded", (call) => void call.data("x".repeat(2_000))],
    [
      "garbage",
      {},
      502,
      "upstream_error",
      (call) => (call.data("<html>busy</html>"), call.receiver.end()),
    ],
    ["empty", {}, 502, "upstream_error", (call) => call.receiver.end()],
    ["reset behind its head", {}, 502, "upstream_error", fails("reset")],
    ["silent behind its head", {}, 502, "upstream_timeout", fails("first_byte_timeout")],
    [
      "silent in its middle",
      {},
      502,
      "upstream_timeout",
      (call) => (call.data('{"id"'), call.fail("idle_timeout")),
    ],
  ])("a plain answer that is %s", async (_what, options, status, code, end) => {
    const { world, answer, call, last, holdCostMicro } = await asked(chat(), options);
    call.head();
    end(call);
    await answer.done;
    expect([answer.status, answer.json().error["code"]]).toEqual([status, code]);
    expect(answer.headers["x-should-retry"]).toBe("false");
    expect(answer.headers).not.toHaveProperty("retry-after");
    expect(await last()).toMatchObject({ unbilledMicro: holdCostMicro, forwarded: true });
    await world.expectAtRest();
  });

  test("a stream that comes to nothing before its first byte", async () => {
    const { world, answer, call } = await asked(chat({ stream: true }));
    call.head();
    call.fail("reset");
    await answer.done;
    expect([answer.status, answer.headers["x-should-retry"]]).toEqual([502, "false"]);
    await world.expectAtRest();
  });

  test("an upstream that gave no sign within the limit", async () => {
    const { world, answer, call, last, holdCostMicro } = await asked(chat());
    call.fail("first_byte_timeout");
    await answer.done;
    expect([answer.status, answer.headers["x-should-retry"]]).toEqual([502, "false"]);
    expect(await last()).toMatchObject({ unbilledMicro: holdCostMicro });
    await world.expectAtRest();
  });

  test("but a connection that broke before any answer may be tried again", async () => {
    for (const failure of ["connect", "reset"] as const) {
      const { world, answer, call } = await asked(chat());
      call.fail(failure);
      await answer.done;
      expect([answer.status, answer.headers["x-should-retry"]]).toEqual([502, undefined]);
      await world.expectAtRest();
    }
  });

  test.each<[string, (call: SeenCall) => void]>([
    ["is longer than what is kept of it", (call) => void call.data("x".repeat(70_000))],
    ["breaks off", (call) => (call.data("{"), call.fail("reset"))],
    ["stalls", (call) => call.fail("first_byte_timeout")],
  ])("a refusal whose body %s is what its status says, and costs nothing", async (_what, end) => {
    const { world, answer, call, last } = await asked(chat(), ROOM);
    call.head(429, { "retry-after": "7" });
    end(call);
    await answer.done;
    expect([answer.status, answer.headers["retry-after"]]).toEqual([429, "7"]);
    expect(await last()).toMatchObject({
      unbilledMicro: 0,
      attempts: [{ outcome: "rate_limited", status: 429 }],
    });
    await world.expectAtRest();
  });
});

describe("a client that takes its plain answer slowly", () => {
  const LARGE = { limits: { answerBytesMax: 1_000_000, inFlightBytesMax: 4_000_000 } };
  const whole = JSON.stringify(completion([7, 5], "x".repeat(400_000)));

  test("has the limit for each piece that it takes, not for all of them", async () => {
    const { world, answer, call } = await asked(chat(), LARGE);
    answer.slow = true;
    call.answer(whole);
    await settled();
    for (let turn = 0; turn < 20 && !answer.ended; turn++) {
      await world.clock.advance(29_000);
      answer.drain();
    }
    await answer.done;
    expect([answer.destroyed, answer.text === whole]).toEqual([false, true]);
    await world.expectAtRest();
  });

  test("is left when it takes nothing for that long", async () => {
    const { world, answer, call } = await asked(chat(), LARGE);
    answer.slow = true;
    call.answer(whole);
    await world.clock.advance(29_000);
    answer.drain();
    await world.clock.advance(30_001);
    await answer.done;
    expect([answer.destroyed, answer.ended]).toEqual([true, false]);
    await world.expectAtRest();
  });
});
