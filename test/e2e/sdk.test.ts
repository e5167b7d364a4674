import { join } from "node:path";
import type OpenAI from "openai";
import { NotFoundError } from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { systemClock } from "#infra/clock.ts";
import { openSqliteEventReader } from "#infra/event-store/sqlite-reader.ts";
import { bookOf, eventsIn, eventsOf, only } from "./money/books.ts";
import {
  balanceOf,
  leavesNothingRunning,
  openai,
  post,
  sse,
  startRelai,
  type RelaiProcess,
} from "./relai.ts";

leavesNothingRunning();

let relai: RelaiProcess;
let client: OpenAI;
beforeAll(async () => {
  relai = await startRelai();
  client = openai(relai);
});
afterAll(() => relai.stop());

const user = (content: string): OpenAI.ChatCompletionMessageParam[] => [{ role: "user", content }];
const weather: OpenAI.ChatCompletionTool = {
  type: "function",
  function: {
    name: "weather",
    parameters: { type: "object", properties: { city: { type: "string" } } },
  },
};

/** Runs something and says what it cost on the balance, to the micro. */
async function costOf(work: () => Promise<unknown>): Promise<number> {
  const before = await balanceOf(relai);
  await work();
  const after = await balanceOf(relai);
  expect([before.held_micro, after.held_micro]).toEqual([0, 0]);
  expect(after.available_micro).toBe(after.credits_micro);
  return before.credits_micro - after.credits_micro;
}

describe("a chat completion", () => {
  test("costs what it says, in its header, its event and the balance", async () => {
    // sim-small: 0.2 micro for input, 0.02 for cached input, 1 for output.
    const cost = await costOf(async () => {
      const { data, response, request_id } = await client.chat.completions
        .create({ model: "sim-small", messages: user("[sim input=1200 cached=600 output=500]") })
        .withResponse();
      expect(data.choices[0]?.message.content).toContain("simulated model sim-small");
      expect(data.usage).toMatchObject({ prompt_tokens: 1200, completion_tokens: 500 });
      expect(response.headers.get("x-relai-cost-micro")).toBe("632");
      expect(response.headers.get("x-relai-region")).toBe("us");
      expect(response.headers.get("x-relai-model")).toBe("sim-small");
      expect(response.headers.get("x-relai-attempts")).toBe("1");
      const events = await eventsOf(relai, request_id ?? "");
      expect(events.map(({ type }) => type)).toEqual(["RequestAdmitted.v1", "UsageRecorded.v1"]);
      expect(only(events, "UsageRecorded.v1")).toMatchObject({
        chargedMicro: 632,
        residualPico: 0,
        tokens: { input: 600, cacheRead: 600, output: 500 },
        billedBy: "provider",
        clientGone: false,
        finish: "stop",
      });
      expect((await bookOf(relai, request_id ?? "")).tokens).toEqual({
        input: 600,
        cacheRead: 600,
        output: 500,
      });
    });
    expect(cost).toBe(632);
  });

  test.each([
    ["25 cached tokens are 0.5 micro, half to even", "input=25 cached=25 output=0", 0],
    ["75 cached tokens are 1.5 micro, half to even", "input=75 cached=75 output=0", 2],
    ["26 cached tokens are 0.52 micro", "input=26 cached=26 output=0", 1],
    ["an explicit zero is charged as zero", "input=0 output=0", 0],
  ])("%s", async (_what, words, micro) => {
    const answer = await post(relai, `[sim ${words}]`, { model: "sim-small" });
    expect(answer.headers.get("x-relai-cost-micro")).toBe(String(micro));
    await answer.text();
  });

  test("n choices are one call, charged once", async () => {
    const cost = await costOf(async () => {
      const answer = await client.chat.completions.create({
        model: "sim-flat",
        n: 2,
        messages: user("[sim input=7 output=20]"),
      });
      expect(answer.choices.map(({ index }) => index)).toEqual([0, 1]);
    });
    expect(cost).toBe(27);
  });

  test("takes tools, and their results in the next turn", async () => {
    const first = await client.chat.completions.create({
      model: "sim-flat",
      messages: user("[sim tool=1]"),
      tools: [weather],
    });
    const [call] = first.choices[0]?.message.tool_calls ?? [];
    expect(call).toMatchObject({
      function: { name: "weather", arguments: '{"city":"simulated"}' },
    });
    expect(first.choices[0]?.finish_reason).toBe("tool_calls");
    const message = first.choices[0]?.message;
    if (message === undefined) throw new Error("there is no message");
    const second = await client.chat.completions.create({
      model: "sim-flat",
      messages: [
        ...user("Is it warm?"),
        message,
        { role: "tool", tool_call_id: call?.id ?? "", content: '{"celsius":21}' },
      ],
      tools: [weather],
    });
    expect(second.choices[0]?.message.content).toContain("You sent 3 messages");
  });

  test("gives structured output that its schema accepts", async () => {
    const schema = {
      type: "object",
      properties: { city: { type: "string" }, warm: { type: "boolean" } },
      required: ["city", "warm"],
      additionalProperties: false,
    };
    const parsed = await client.chat.completions.parse({
      model: "sim-flat",
      messages: user("Where is it warm?"),
      response_format: {
        type: "json_schema",
        json_schema: { name: "place", strict: true, schema },
      },
    });
    const place = z.strictObject({ city: z.string(), warm: z.boolean() });
    place.parse(JSON.parse(parsed.choices[0]?.message.content ?? ""));
  });

  test("takes an image as a data URL, and holds it by the catalogue's bound", async () => {
    const { data, request_id } = await client.chat.completions
      .create({
        model: "sim-vision",
        max_completion_tokens: 50,
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: "What is this?" },
              { type: "image_url", image_url: { url: `data:image/png;base64,${"A".repeat(999)}` } },
            ],
          },
        ],
      })
      .withResponse();
    expect(data.choices[0]?.message.content).toContain("with 1 image");
    const { holdMicro } = only(await eventsOf(relai, request_id ?? ""), "RequestAdmitted.v1");
    // ceil(13 / 2) + 8 + 16 tokens and 2,000 for the image, each at 2 micro (a long cache write, the dearest input);
    // 50 tokens of output at 5 micro.
    expect(holdMicro).toBe((7 + 8 + 16 + 2000) * 2 + 50 * 5);
  });

  test("goes by both paths", async () => {
    const other = openai(relai, { baseURL: `${relai.gateway}/openai/v1` });
    for (const each of [client, other]) {
      const answer = await each.chat.completions.create({
        model: "sim-flat",
        messages: user("Hello"),
      });
      expect(answer.object).toBe("chat.completion");
      expect((await each.models.retrieve("sim-flat")).id).toBe("sim-flat");
    }
  });

  test("is told by its own id, and echoes the caller's", async () => {
    const answer = await post(
      relai,
      "[sim output=1]",
      {},
      {
        headers: { "x-client-request-id": "mine-1" },
      },
    );
    const id = answer.headers.get("x-request-id") ?? "";
    expect(id).toMatch(/^req_[0-9A-Z]{26}$/);
    expect(answer.headers.get("x-client-request-id")).toBe("mine-1");
    const admitted = only(await eventsOf(relai, id), "RequestAdmitted.v1");
    expect(admitted.clientRequestId).toBe("mine-1");
    // Upstream our id stands in its place: the book is joined on it.
    expect((await bookOf(relai, id)).requestId).toBe(id);
  });

  test("shows nothing of our account with the upstream", async () => {
    for (const stream of [false, true]) {
      const answer = await post(relai, "[sim output=1]", { stream });
      await answer.text();
      const names = [...answer.headers.keys()];
      expect(names.filter((name) => /^(openai-|set-cookie|x-ratelimit)/.test(name))).toEqual([]);
      expect(answer.headers.get("x-request-id")).toMatch(/^req_[0-9A-Z]{26}$/);
    }
  });
});

describe("a stream", () => {
  test("has no usage unless it is asked for", async () => {
    const cost = await costOf(async () => {
      const chunks: OpenAI.ChatCompletionChunk[] = [];
      const stream = await client.chat.completions.create({
        model: "sim-flat",
        stream: true,
        messages: user("[sim input=30 output=12 chunks=6]"),
      });
      for await (const chunk of stream) chunks.push(chunk);
      expect(chunks.every((chunk) => !("usage" in chunk))).toBe(true);
      expect(chunks.every(({ choices }) => choices.length === 1)).toBe(true);
      expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe("stop");
      // Role, six contents, finish.
      expect(chunks).toHaveLength(8);
    });
    expect(cost).toBe(42);
  });

  test("has the usage in a last chunk of its own when it is asked for", async () => {
    const cost = await costOf(async () => {
      const chunks: OpenAI.ChatCompletionChunk[] = [];
      const stream = await client.chat.completions.create({
        model: "sim-flat",
        stream: true,
        stream_options: { include_usage: true },
        messages: user("[sim input=30 output=12 chunks=6]"),
      });
      for await (const chunk of stream) chunks.push(chunk);
      expect(chunks).toHaveLength(9);
      expect(chunks.at(-1)).toMatchObject({
        choices: [],
        usage: { prompt_tokens: 30, completion_tokens: 12, total_tokens: 42 },
      });
      expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    });
    expect(cost).toBe(42);
  });

  test.each([
    ["not at all", {}],
    ["with false", { stream_options: { include_usage: false } }],
    ["with null", { stream_options: null }],
    ["with another option", { stream_options: { include_obfuscation: false } }],
  ])("leaves no trace of usage when it is asked for %s", async (_how, more) => {
    const answer = await post(relai, "[sim chunks=5]", { stream: true, ...more });
    expect(answer.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(answer.headers.get("x-accel-buffering")).toBe("no");
    const text = await answer.text();
    expect(text).not.toContain("usage");
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    const id = answer.headers.get("x-request-id") ?? "";
    expect(only(await eventsOf(relai, id), "UsageRecorded.v1").billedBy).toBe("provider");
  });

  test("is charged durably before [DONE] is there to read", async () => {
    const reader = openSqliteEventReader({
      path: join(relai.dataDir, "us", "events.sqlite"),
      clock: systemClock(),
      pollMs: 1000,
    });
    for (let number = 0; number < 10; number += 1) {
      const answer = await post(relai, "[sim input=1 output=2]", { stream: true });
      const requestId = answer.headers.get("x-request-id") ?? "";
      const admitted = (await eventsIn(relai)).findLast(
        ({ type }) => type === "RequestAdmitted.v1",
      );
      for await (const event of sse(answer)) {
        if (event !== "[DONE]") continue;
        const end = { from: "end", direction: "backward", max: 1 } as const;
        const [last] = await reader.read(admitted?.stream ?? "", end);
        expect(last).toMatchObject({ type: "UsageRecorded.v1", data: { requestId } });
      }
    }
    await reader.close();
  });

  test("carries tool calls, many choices and structured output", async () => {
    const called = await client.chat.completions
      .stream({ model: "sim-flat", messages: user("[sim tool=2]"), tools: [weather] })
      .finalChatCompletion();
    expect(called.choices[0]?.finish_reason).toBe("tool_calls");
    expect(called.choices[0]?.message.tool_calls).toMatchObject([
      { function: { name: "weather", arguments: '{"city":"simulated"}' } },
      { function: { name: "weather", arguments: '{"city":"simulated"}' } },
    ]);
    const twice = await client.chat.completions
      .stream({ model: "sim-flat", n: 2, messages: user("Hello") })
      .finalChatCompletion();
    expect(twice.choices.map(({ message }) => message.content?.slice(0, 6))).toEqual([
      "Hello!",
      "Hello!",
    ]);
    const object = await client.chat.completions
      .stream({
        model: "sim-flat",
        messages: user("Hello"),
        response_format: { type: "json_object" },
      })
      .finalContent();
    expect(JSON.parse(object ?? "")).toEqual({});
  });
});

describe("models", () => {
  test("are listed with what relai knows of them, and cost nothing", async () => {
    const cost = await costOf(async () => {
      const { data } = await client.models.list();
      expect(data.map(({ id }) => id)).toEqual([
        "sim-audio",
        "sim-embed",
        "sim-flat",
        "sim-large",
        "sim-small",
        "sim-tiers",
        "sim-vision",
      ]);
      const flat = await client.models.retrieve("sim-flat");
      expect(data).toContainEqual(flat);
      expect(flat).toMatchObject({
        object: "model",
        relai: { context_window_tokens: 1_000_000, output_tokens_max: 65_536, regions: ["us"] },
      });
      expect(JSON.stringify(data)).not.toContain("cost");
    });
    expect(cost).toBe(0);
  });

  test("that do not exist are the client's own error", async () => {
    await expect(client.models.retrieve("gpt-0")).rejects.toThrow(NotFoundError);
    const asked = client.chat.completions.create({ model: "gpt-0", messages: user("Hello") });
    await expect(asked).rejects.toMatchObject({ status: 404, code: "model_not_found" });
  });
});
