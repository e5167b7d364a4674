import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import OpenAI, { APIConnectionError, InternalServerError, RateLimitError } from "openai";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { systemClock } from "#infra/clock.ts";
import { systemRandom } from "#infra/random.ts";
import { readBook } from "#test/doubles/simulator-book.ts";
import { startSimulator, type Simulator } from "#services/simulator/server.ts";
import type { ChildProcess } from "node:child_process";
import type { BookCall } from "#services/simulator/book.ts";

const KEY = "sk-simulated-key-7890";

let folder = "";
let simulator: Simulator;
let client: OpenAI;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "relai-simulator-"));
  simulator = await startSimulator({
    clock: systemClock(),
    random: systemRandom(),
    port: 0,
    bookPath: join(folder, "book.jsonl"),
  });
  client = new OpenAI({ apiKey: KEY, baseURL: `${simulator.url}/openai/v1`, maxRetries: 0 });
});
afterAll(async () => {
  await simulator.close();
  rmSync(folder, { recursive: true });
});

const user = (content: string): OpenAI.ChatCompletionMessageParam[] => [{ role: "user", content }];
const ask = (content: string, more: Partial<OpenAI.ChatCompletionCreateParamsNonStreaming> = {}) =>
  client.chat.completions.create({ model: "sim-flat", messages: user(content), ...more });
const stream = (content: string, more: Partial<OpenAI.ChatCompletionCreateParamsStreaming> = {}) =>
  client.chat.completions.create({
    model: "sim-flat",
    messages: user(content),
    stream_options: { include_usage: true },
    ...more,
    stream: true,
  });

/** The raw answer, as far as it comes: its bytes, and whether it ended the way HTTP ends. */
async function raw(
  content: string,
  streams: boolean,
): Promise<{ status: number; text: string; ended: boolean }> {
  const response = await fetch(`${simulator.url}/openai/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${KEY}` },
    body: JSON.stringify({ model: "sim-flat", messages: user(content), stream: streams }),
  });
  let text = "";
  try {
    const parts = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await parts?.read(); part?.done === false; part = await parts?.read())
      text += part.value;
    return { status: response.status, text, ended: true };
  } catch {
    return { status: response.status, text, ended: false };
  }
}
const eventsIn = (text: string): number => text.split("\n\n").length - 1;

/** The last call in the file of the book, once it has ended. */
const lastCall = (): Promise<BookCall> =>
  vi.waitFor(
    () => {
      const call = readBook(join(folder, "book.jsonl")).at(-1);
      if (call?.endedAtMs === undefined) throw new Error("the last call has not ended");
      return call;
    },
    { interval: 5 },
  );

describe("with the openai client", () => {
  test("a plain request, and its line in the book", async () => {
    const before = Date.now();
    const answer = await client.chat.completions.create(
      { model: "sim-small", messages: user("[sim input=1200 cached=600 output=500 reasoning=50]") },
      { headers: { "x-client-request-id": "req_1" } },
    );
    expect(answer.choices[0]?.message.content).toContain("simulated model sim-small");
    expect(answer.usage).toMatchObject({
      prompt_tokens: 1200,
      completion_tokens: 500,
      prompt_tokens_details: { cached_tokens: 600 },
      completion_tokens_details: { reasoning_tokens: 50 },
    });
    const { atMs, endedAtMs, call: _, ...call } = await lastCall();
    expect(call).toEqual({
      requestId: "req_1",
      keyLast4: "7890",
      model: "sim-small",
      stream: false,
      status: 200,
      tokens: { input: 600, cacheRead: 600, output: 500 },
      finished: true,
      clientGone: false,
      usageSent: true,
    });
    expect(atMs).toBeGreaterThanOrEqual(before);
    expect(endedAtMs).toBeGreaterThanOrEqual(atMs);
  });

  test("a stream, with the other token classes, tier and model", async () => {
    const words = "cache-write=10 audio-in=20 image-in=5 audio-out=7 input=100 output=30 chunks=4";
    let text = "";
    let usage: OpenAI.CompletionUsage | null | undefined;
    let last: OpenAI.ChatCompletionChunk | undefined;
    for await (const chunk of await stream(
      `[sim ${words} tier=priority model=sim-other delay=1 first=1]`,
    )) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage;
      last = chunk;
    }
    expect(text).toContain("Hello!");
    expect(last).toMatchObject({ service_tier: "priority", model: "sim-other" });
    expect(usage?.prompt_tokens_details).toMatchObject({
      cache_write_tokens: 10,
      audio_tokens: 20,
      image_tokens: 5,
    });
    expect(await lastCall()).toMatchObject({
      stream: true,
      tokens: {
        input: 65,
        cacheWriteShort: 10,
        inputAudio: 20,
        inputImage: 5,
        output: 23,
        outputAudio: 7,
      },
      finished: true,
      usageSent: true,
    });
  });

  test("n, tools and structured output, whole and streamed", async () => {
    expect((await ask("hi", { n: 3 })).choices).toHaveLength(3);
    const parameters = { type: "object", properties: { city: { type: "string" } } };
    const tools: OpenAI.ChatCompletionTool[] = [
      { type: "function", function: { name: "weather", parameters } },
    ];
    const calls = await client.chat.completions
      .stream({ model: "sim-flat", messages: user("[sim tool=2]"), tools })
      .finalChatCompletion();
    expect(calls.choices[0]?.finish_reason).toBe("tool_calls");
    expect(calls.choices[0]?.message.tool_calls).toMatchObject([
      { function: { name: "weather", arguments: '{"city":"simulated"}' } },
      { function: { name: "weather", arguments: '{"city":"simulated"}' } },
    ]);
    const schema = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"] };
    const parsed = await client.chat.completions.parse({
      model: "sim-flat",
      messages: user("hi"),
      response_format: { type: "json_schema", json_schema: { name: "x", schema } },
    });
    expect(JSON.parse(parsed.choices[0]?.message.content ?? "")).toEqual({ ok: true });
  });

  test("errors are the client's own, and models are listed", async () => {
    await expect(ask("[sim status=429 retry-after=3]")).rejects.toThrow(RateLimitError);
    await expect(ask("[sim status=500]")).rejects.toThrow(InternalServerError);
    await expect(ask("[sim sttus=500]")).rejects.toThrow(/'sttus'/);
    expect(await lastCall()).toMatchObject({ status: 400, tokens: {}, finished: true });
    const names = (await client.models.list()).data.map((model) => model.id);
    expect(names).toContain("sim-flat");
  });

  test("an error inside a stream reaches the client as one", async () => {
    const chunks = await stream("[sim error-after=2]");
    await expect(async () => {
      for await (const _ of chunks);
    }).rejects.toThrow("simulated error in the stream");
    expect(await lastCall()).toMatchObject({
      finished: false,
      clientGone: false,
      usageSent: false,
    });
  });

  test("a caller who leaves a stream is in the book as gone, with what the call costs", async () => {
    const chunks = await stream("[sim delay=5 chunks=10000 output=10000 input=9]");
    for await (const chunk of chunks) if (chunk.choices[0]?.delta.content) break;
    expect(await lastCall()).toMatchObject({
      finished: false,
      clientGone: true,
      usageSent: false,
      tokens: { input: 9, output: 10_000 },
    });
  });
});

describe("failing on the wire", () => {
  test.each([0, 1, 4])("reset after %d events", async (count) => {
    const answer = await raw(`[sim reset-after=${count}]`, true);
    expect([eventsIn(answer.text), answer.ended]).toEqual([count, false]);
    expect(await lastCall()).toMatchObject({ finished: false, clientGone: false });
  });

  test.each([0, 1, 4])("an end after %d events", async (count) => {
    const answer = await raw(`[sim end-after=${count}]`, true);
    expect([eventsIn(answer.text), answer.ended]).toEqual([count, true]);
    expect(answer.text).not.toContain("[DONE]");
    expect(await lastCall()).toMatchObject({ finished: false, clientGone: false });
  });

  test("whole answers are cut in the middle", async () => {
    const good = (await raw("[sim output=40]", false)).text;
    const reset = await raw("[sim output=40 reset-after=3]", false);
    const end = await raw("[sim output=40 end-after=3]", false);
    expect([reset.ended, end.ended]).toEqual([false, true]);
    for (const { text } of [reset, end]) expect(text.length).toBe(good.length >> 1);
    expect(await raw("[sim reset-after=0]", false)).toMatchObject({ text: "", ended: false });
  });

  test("hanging up gives no answer at all", async () => {
    await expect(raw("[sim hang-up]", true)).rejects.toThrow();
    expect(await lastCall()).toMatchObject({ status: 0, finished: false, clientGone: false });
  });

  test("garbage is no JSON", async () => {
    for (const streams of [true, false]) {
      const { status, text, ended } = await raw("[sim garbage]", streams);
      expect([status, ended]).toEqual([200, true]);
      const first = text.split("\n\n")[0]?.replace("data: ", "") ?? "";
      expect(() => void JSON.parse(first)).toThrow(SyntaxError);
    }
    expect(await lastCall()).toMatchObject({ tokens: {}, finished: false, usageSent: false });
  });

  test("a stalled stream stays open until the caller leaves", async () => {
    const leave = new AbortController();
    const chunks = await client.chat.completions.create(
      { model: "sim-flat", messages: user("[sim stall-after=3]"), stream: true },
      { signal: leave.signal },
    );
    let count = 0;
    for await (const _ of chunks) if ((count += 1) === 3) setTimeout(() => leave.abort(), 50);
    expect(count).toBe(3);
    expect(await lastCall()).toMatchObject({ finished: false, clientGone: true });
  });

  test("no-usage and no-done leave just that out", async () => {
    let usage = 0;
    for await (const chunk of await stream("[sim no-usage]")) if (chunk.usage) usage += 1;
    expect(usage).toBe(0);
    expect(await lastCall()).toMatchObject({ finished: true, usageSent: false });
    const { text, ended } = await raw("[sim no-done]", true);
    expect(await lastCall()).toMatchObject({ finished: false, clientGone: false });
    expect([ended, text.includes('"finish_reason":"stop"'), text.includes("[DONE]")]).toEqual([
      true,
      true,
      false,
    ]);
  });
});

test("answers wait for the release of their name, also over HTTP", async () => {
  let answered = 0;
  const answers = [1, 2].map(() => ask("[sim hold=gate/1]").then(() => (answered += 1)));
  await vi.waitFor(() =>
    expect(simulator.book().filter((call) => call.endedAtMs === undefined)).toHaveLength(2),
  );
  expect(answered).toBe(0);
  const released = await fetch(`${simulator.url}/release/${encodeURIComponent("gate/1")}`, {
    method: "POST",
  });
  expect(await released.json()).toEqual({ name: "gate/1", released: 2 });
  await Promise.all(answers);
  await ask("[sim hold=gate/1]");
});

describe("as a process", () => {
  async function start(...args: string[]): Promise<{ process: ChildProcess; url: string }> {
    const child = spawn(
      process.execPath,
      ["bin/relai.mjs", "simulator", "--port", "0", "--json", ...args],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    const [line] = (await once(createInterface(child.stdout), "line")) as [string];
    const ready = JSON.parse(line) as { ready: boolean; url: string };
    expect(ready.ready).toBe(true);
    return { process: child, url: ready.url };
  }
  const askAt = (url: string, content: string): Promise<OpenAI.ChatCompletion> =>
    new OpenAI({ apiKey: KEY, baseURL: `${url}/openai/v1`, maxRetries: 0 }).chat.completions.create(
      {
        model: "sim-flat",
        messages: user(content),
      },
    );

  test("the book survives kill -9, and goes on in the next life", async () => {
    const book = join(folder, "killed.jsonl");
    const first = await start("--book", book);
    await askAt(first.url, "[sim input=3 output=2]");
    const cut = askAt(first.url, "[sim input=5 output=4 hold=never]").catch(
      (error: unknown) => error,
    );
    await vi.waitFor(() => expect(readBook(book)).toHaveLength(2), { interval: 5 });
    first.process.kill("SIGKILL");
    await once(first.process, "exit");
    expect(await cut).toBeInstanceOf(APIConnectionError);
    expect(readBook(book)).toMatchObject([
      { call: 1, finished: true, tokens: { input: 3, output: 2 } },
      {
        call: 2,
        finished: false,
        clientGone: false,
        usageSent: false,
        tokens: { input: 5, output: 4 },
      },
    ]);
    expect(readBook(book)[1]?.endedAtMs).toBeUndefined();

    const second = await start("--book", book);
    await askAt(second.url, "[sim input=7 output=6]");
    const exited = once(second.process, "exit");
    second.process.kill("SIGTERM");
    expect(await exited).toEqual([0, null]);
    expect(readBook(book).map(({ call, finished }) => [call, finished])).toEqual([
      [1, true],
      [2, false],
      [3, true],
    ]);
  });

  test("a bad option ends it with 2", async () => {
    const child = spawn(process.execPath, ["bin/relai.mjs", "simulator", "--port", "x"], {
      stdio: "ignore",
    });
    expect(await once(child, "exit")).toEqual([2, null]);
  });
});
