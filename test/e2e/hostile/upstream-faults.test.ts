import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openRecorder, type Recorder } from "#test/e2e/recorder.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import { ERRORS } from "#services/errors.ts";
import { bookOf, eventsOf, only } from "#test/e2e/money/books.ts";
import {
  balanceOf,
  jsonOf,
  leavesNothingRunning,
  openai,
  post,
  sse,
  startRelai,
  type RelaiProcess,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

let upstream: Recorder;
let relai: RelaiProcess;
beforeAll(async () => {
  upstream = await openRecorder();
  relai = await startRelai({
    settings: {
      RELAI_UPSTREAM_IDLE_MS: "400",
      RELAI_UPSTREAM_FIRST_BYTE_MS: "400",
      OPENAI_API_KEY: "sk-upstream",
      OPENAI_BASE_URL: `${upstream.url}/v1`,
    },
  });
});
afterAll(async () => {
  await relai.stop();
  await upstream.close();
});

/** What a caller gets of a stream: its events, the last one read as JSON, and whether it ends like a finished one. */
async function readStream(answer: Response) {
  const events: string[] = [];
  for await (const event of sse(answer)) events.push(event);
  const last: unknown = events.at(-1) === "[DONE]" ? undefined : JSON.parse(events.at(-1) ?? "{}");
  return { events, last, isDone: events.includes("[DONE]") };
}

/** Asks, waits for the books, and checks what is true after every request: the money held is free again. */
async function settled(content: string, more: Record<string, unknown>) {
  const before = await balanceOf(relai);
  const answer = await post(relai, content, { max_tokens: 50, ...more });
  const read = more["stream"] && answer.status === 200 ? await readStream(answer) : undefined;
  const body = read ? undefined : await answer.text();
  const events = await eventsOf(relai, answer.headers.get("x-request-id") ?? "");
  const after = await balanceOf(relai);
  const ended = events.at(-1);
  const chargedMicro = ended?.type === "UsageRecorded.v1" ? ended.data.chargedMicro : 0;
  expect(after).toMatchObject({
    credits_micro: before.credits_micro - chargedMicro,
    available_micro: before.credits_micro - chargedMicro,
    held_micro: 0,
  });
  return { answer, read, body, events, chargedMicro };
}

const typesOf = (events: readonly RecordedEvent[]) => events.map(({ type }) => type);
type Failure = "upstream_error" | "upstream_timeout";

/** The error that says no more than that the upstream failed, or was too slow. */
const failure = (code: Failure) => ({
  error: { message: ERRORS[code].message, type: "api_error", code, param: null },
});
const CHARGED = ["RequestAdmitted.v1", "UsageRecorded.v1"];
const RELEASED = ["RequestAdmitted.v1", "RequestReleased.v1"];

/** One micro a token on sim-flat; the cost is four fifths of the price, rounded up. */
const holdCost = (content: string) => Math.ceil((24 + Math.ceil(content.length / 2) + 50) * 0.8);

describe("before anything of use came, nothing is charged", () => {
  test.each<[string, string, Failure, string]>([
    ["a connection that is hung up", "[sim hang-up]", "upstream_error", "reset"],
    ["a reset before the first byte", "[sim reset-after=0]", "upstream_error", "reset"],
    ["a first byte that never comes", "[sim first=9000]", "upstream_timeout", "timed_out"],
    ["a head and nothing behind it", "[sim stall-after=0]", "upstream_timeout", "timed_out"],
    ["garbage", "[sim garbage]", "upstream_error", "garbage"],
    ["an end before any event", "[sim end-after=0]", "upstream_error", "reset"],
  ])("%s, of a stream", async (_what, content, code, outcome) => {
    const { answer, body, read, events } = await settled(content, { stream: true });
    // No byte of the answer had come, so the error has a status of its own.
    expect([answer.status, read]).toEqual([502, undefined]);
    expect(JSON.parse(body ?? "")).toEqual(failure(code));
    expect(typesOf(events)).toEqual(RELEASED);
    expect(only(events, "RequestReleased.v1")).toMatchObject({
      reason: code,
      forwarded: true,
      clientGone: false,
      // The upstream may bill us for what it never gave: that is ours to carry.
      unbilledMicro: holdCost(content),
      attempts: [{ host: "simulator", outcome }],
    });
  });

  test.each([
    ["a connection that is hung up", "[sim hang-up]", "upstream_error", "reset"],
    ["a reset in the middle of the body", "[sim reset-after=1]", "upstream_error", "reset"],
    ["a body that stalls", "[sim stall-after=1]", "upstream_timeout", "timed_out"],
    ["garbage", "[sim garbage]", "upstream_error", "garbage"],
    ["a body that ends in its middle", "[sim end-after=1]", "upstream_error", "garbage"],
    ["an empty body", "[sim end-after=0]", "upstream_error", "garbage"],
  ])("%s, of a plain answer", async (_what, content, code, outcome) => {
    const { answer, body, events } = await settled(content, {});
    expect(answer.status).toBe(502);
    expect(JSON.parse(body ?? "")).toMatchObject({ error: { type: "api_error", code } });
    expect(typesOf(events)).toEqual(RELEASED);
    expect(only(events, "RequestReleased.v1")).toMatchObject({
      reason: code,
      unbilledMicro: holdCost(content),
      attempts: [{ outcome }],
    });
  });

  test("a stream that said only who speaks is broken in its own shape, and free", async () => {
    const { answer, read, events } = await settled("[sim reset-after=1]", { stream: true });
    expect([answer.status, read?.isDone]).toEqual([200, false]);
    expect(read?.last).toMatchObject({ error: { code: "upstream_error", param: null } });
    expect(typesOf(events)).toEqual(RELEASED);
  });
});

describe("an upstream that refuses", () => {
  test.each([400, 404, 409, 413, 422])("with %d: it passes, and is free", async (status) => {
    for (const stream of [true, false]) {
      const { answer, body, events } = await settled(`[sim status=${status}]`, { stream });
      expect(answer.status).toBe(status);
      expect(answer.headers.get("content-type")).toContain("application/json");
      expect(JSON.parse(body ?? "")).toEqual({
        error: {
          message: `simulated status ${status}`,
          type: "invalid_request_error",
          code: status === 404 ? "model_not_found" : null,
          param: null,
        },
      });
      expect(typesOf(events)).toEqual(RELEASED);
      expect(only(events, "RequestReleased.v1")).toMatchObject({
        reason: "upstream_refused",
        unbilledMicro: 0,
        attempts: [{ outcome: "refused", status }],
      });
    }
  });

  test.each([
    [401, "refused", "upstream_refused"],
    [403, "refused", "upstream_refused"],
    [418, "refused", "upstream_refused"],
    [500, "failed", "upstream_error"],
    [503, "failed", "upstream_error"],
    [529, "failed", "upstream_error"],
    [307, "refused", "upstream_refused"],
  ])("with %d: it is a 502, and free", async (status, outcome, reason) => {
    const { answer, body, events } = await settled(`[sim status=${status}]`, {});
    expect(answer.status).toBe(502);
    expect(JSON.parse(body ?? "")).toEqual({
      error: {
        message: "The upstream failed",
        type: "api_error",
        code: "upstream_error",
        param: null,
      },
    });
    expect(only(events, "RequestReleased.v1")).toMatchObject({
      reason,
      unbilledMicro: 0,
      attempts: [{ outcome, status }],
    });
  });

  test.each([
    ["[sim status=429 retry-after=3]", "3"],
    ["[sim status=429]", "1"],
    ["[sim status=429 retry-after=0]", "1"],
  ])("because we are too fast: %s", async (content, seconds) => {
    const { answer, body, events } = await settled(content, { stream: true });
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([429, seconds]);
    expect(JSON.parse(body ?? "")).toMatchObject({
      error: { type: "api_error", code: "upstream_rate_limited", param: null },
    });
    expect(only(events, "RequestReleased.v1")).toMatchObject({
      reason: "upstream_refused",
      attempts: [{ outcome: "rate_limited", status: 429 }],
    });
  });
});

describe("a stream that breaks after it said something", () => {
  const words = "chunks=6 input=30 output=40";

  test.each<[string, string, Failure, string]>([
    ["reset", `[sim reset-after=4 ${words}]`, "upstream_error", "reset"],
    ["stalled", `[sim stall-after=4 ${words}]`, "upstream_timeout", "timed_out"],
    ["ended too early", `[sim end-after=4 ${words}]`, "upstream_error", "reset"],
    ["failed with an error event", `[sim error-after=4 ${words}]`, "upstream_error", "failed"],
  ])(
    "%s: an error in the stream, no [DONE], charged by estimate",
    async (_how, content, code, outcome) => {
      const { answer, read, events, chargedMicro } = await settled(content, { stream: true });
      expect(answer.status).toBe(200);
      expect(read?.isDone).toBe(false);
      expect(read?.last).toEqual(failure(code));
      expect(typesOf(events)).toEqual(CHARGED);
      // By the stated formula: a third of the bytes that were to be seen, at least one token a chunk.
      const said = (read?.events ?? []).slice(0, -1).map(contentIn);
      const visible = Buffer.byteLength(said.join(""));
      expect(visible).toBeGreaterThan(0);
      const output = Math.max(Math.ceil(visible / 3), said.filter((text) => text !== "").length);
      const input = Math.ceil(content.length / 4);
      expect(only(events, "UsageRecorded.v1")).toMatchObject({
        billedBy: "estimate",
        tokens: { input, output },
        chargedMicro: input + output,
        attempts: [{ outcome, status: 200 }],
      });
      expect(chargedMicro).toBe(input + output);
    },
  );

  test("the client's library throws instead of taking it for whole", async () => {
    for (const how of ["reset", "end", "error", "stall"]) {
      const chunks = await openai(relai).chat.completions.create({
        model: "sim-flat",
        stream: true,
        messages: [{ role: "user", content: `[sim ${how}-after=4 ${words}]` }],
      });
      await expect(async () => {
        for await (const _ of chunks);
      }).rejects.toThrow(/The upstream/);
    }
  });

  test("turned into garbage: what was good before it is relayed and charged, the rest is not", async () => {
    const good = '{"id":"c","choices":[{"index":0,"delta":{"content":"Good day."}}]}';
    upstream.answer((_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end(`data: ${good}\n\ndata: {"id":"c","choi\n\ndata: [DONE]\n\n`);
    });
    const { read, events } = await settled("Hello", { model: "gpt-4o-mini", stream: true });
    expect(read?.events.slice(0, -1)).toEqual([good]);
    expect(read?.last).toMatchObject({ error: { code: "upstream_error" } });
    expect(only(events, "UsageRecorded.v1")).toMatchObject({
      billedBy: "estimate",
      tokens: { input: 2, output: 3 },
      attempts: [{ outcome: "garbage" }],
    });
  });
});

/** The text of a chunk's first choice. */
function contentIn(event: string): string {
  const chunk = JSON.parse(event) as { choices: { delta: { content?: string } }[] };
  return chunk.choices[0]?.delta.content ?? "";
}

describe("an answer that is whole but for its account", () => {
  test("without [DONE], after every choice has finished: the caller gets its [DONE]", async () => {
    const { read, events, chargedMicro } = await settled("[sim no-done input=30 output=20]", {
      stream: true,
    });
    expect([read?.isDone, chargedMicro]).toEqual([true, 50]);
    expect(only(events, "UsageRecorded.v1")).toMatchObject({
      billedBy: "provider",
      finish: "stop",
    });
  });

  test.each([true, false])("without usage it is estimated; stream: %s", async (stream) => {
    const content = "[sim no-usage input=30 output=20]";
    const { answer, body, read, events } = await settled(content, { stream });
    expect(answer.status).toBe(200);
    const said = read
      ? read.events.slice(0, -1).map(contentIn)
      : [
          (JSON.parse(body ?? "") as { choices: { message: { content: string } }[] }).choices[0],
        ].map((choice) => choice?.message.content ?? "");
    const chunks = said.filter((text) => text !== "").length;
    const output = Math.min(50, Math.max(Math.ceil(Buffer.byteLength(said.join("")) / 3), chunks));
    expect(only(events, "UsageRecorded.v1")).toMatchObject({
      billedBy: "estimate",
      tokens: { input: Math.ceil(content.length / 4), output },
      chargedMicro: Math.ceil(content.length / 4) + output,
      finish: "stop",
    });
    if (!read) return;
    expect(read.isDone).toBe(true);
    expect(await bookOf(relai, answer.headers.get("x-request-id") ?? "")).toMatchObject({
      finished: true,
      usageSent: false,
    });
  });

  test("usage whose parts pass its total is charged by its parts, and somebody is told", async () => {
    const content = "[sim input=10 cached=25 output=4]";
    const { events } = await settled(content, {});
    expect(only(events, "UsageRecorded.v1").tokens).toEqual({ cacheRead: 25, output: 4 });
    expect(relai.stderr()).toContain("usage_parts_exceed_total");
  });

  test("another model and another tier are billed as what was served", async () => {
    const { events } = await settled("[sim model=sim-small input=1000 output=10]", {
      model: "sim-tiers",
    });
    expect(only(events, "UsageRecorded.v1")).toMatchObject({
      model: "sim-tiers",
      bindingId: "sim-small@simulator",
      chargedMicro: 210,
    });
    const flex = await settled("[sim tier=flex input=1000 output=10]", {
      model: "sim-tiers",
      service_tier: "flex",
    });
    expect(only(flex.events, "UsageRecorded.v1")).toMatchObject({
      serviceTier: "flex",
      chargedMicro: 1050,
    });
  });
});

test("an upstream that is not there is a 502, and nothing is unbilled", async () => {
  const alone = await startRelai({
    settings: { OPENAI_API_KEY: "sk-nobody", OPENAI_BASE_URL: "http://127.0.0.1:9/v1" },
  });
  const answer = await post(alone, "Hello", { model: "gpt-4o-mini" });
  expect(answer.status).toBe(502);
  expect((await jsonOf(answer))["error"]).toMatchObject({ code: "upstream_error" });
  const events = await eventsOf(alone, answer.headers.get("x-request-id") ?? "");
  expect(typesOf(events)).toEqual(RELEASED);
  expect(only(events, "RequestReleased.v1")).toMatchObject({
    reason: "upstream_error",
    forwarded: false,
    unbilledMicro: 0,
    attempts: [{ host: "openai", hostKey: "OPENAI_API_KEY", outcome: "unreachable" }],
  });
  expect(await alone.stop()).toBe(0);
});
