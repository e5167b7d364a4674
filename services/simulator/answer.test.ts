import { describe, expect, test } from "vitest";
import { planAnswer } from "./answer.ts";
import { readRequest } from "./request.ts";
import type { AnswerPlan } from "./answer.ts";

const stamp = { id: "chatcmpl-1", createdUnix: 1_700_000_000 };

function plan(text: string, more: Record<string, unknown> = {}): AnswerPlan {
  const messages = [{ role: "user", content: text }];
  return planAnswer(readRequest({ model: "sim-flat", messages, ...more }), stamp);
}

interface Completion {
  model: string;
  service_tier: string;
  usage: { prompt_tokens: number; completion_tokens: number };
  choices: {
    finish_reason: string;
    message: {
      content: string | null;
      tool_calls?: { id: string; function: { name: string; arguments: string } }[];
    };
  }[];
}
interface Chunk {
  choices: {
    index: number;
    delta: {
      role?: string;
      content?: string | null;
      tool_calls?: { index: number; function: { arguments: string } }[];
    };
    finish_reason: string | null;
  }[];
  usage?: Completion["usage"] | null;
}

const textBody = ({ body }: AnswerPlan): string => (typeof body === "string" ? body : "");
const whole = (text: string, more?: Record<string, unknown>): Completion =>
  JSON.parse(textBody(plan(text, more))) as Completion;

function streamed(
  text: string,
  more: Record<string, unknown> = {},
): { chunks: Chunk[]; lines: string[] } {
  const { body } = plan(text, { stream: true, ...more });
  if (typeof body === "string") throw new Error("no stream");
  const lines = [...body].map((event) => event.text);
  const data = lines.map((line) => line.replace(/^data: /, "").trim());
  return {
    lines,
    chunks: data.filter((line) => line !== "[DONE]").map((line) => JSON.parse(line) as Chunk),
  };
}
const textOf = (chunks: Chunk[], index = 0): string =>
  chunks
    .flatMap(({ choices }) =>
      choices.filter((one) => one.index === index).map((one) => one.delta.content),
    )
    .join("");

describe("a whole answer", () => {
  test("is the same for the same request, and says what it saw", () => {
    expect(plan("héllo")).toEqual(plan("héllo"));
    const answer = whole("héllo");
    expect(answer.choices[0]?.message.content).toContain("sim-flat");
    expect(answer.choices[0]?.message.content).toContain("6 bytes");
    expect(answer.choices[0]?.finish_reason).toBe("stop");
    expect(answer.usage.prompt_tokens).toBe(2);
    expect(plan("héllo").tokens).toEqual({ input: 2, output: answer.usage.completion_tokens });
  });

  test.each(["max_tokens", "max_completion_tokens"])(
    "obeys %s, for each of its choices",
    (name) => {
      const answer = whole("hello", { [name]: 4, n: 3 });
      expect(answer.usage.completion_tokens).toBe(12);
      expect(answer.choices.map((choice) => choice.finish_reason)).toEqual([
        "length",
        "length",
        "length",
      ]);
    },
  );

  test("a directive passes the cap", () => {
    const more = { max_tokens: 4 };
    expect(whole("[sim output=500]", more).usage.completion_tokens).toBe(500);
    expect(whole("[sim output=3]", more).choices[0]?.finish_reason).toBe("stop");
    expect(whole("[sim output=0 input=0]", more).usage).toMatchObject({
      prompt_tokens: 0,
      completion_tokens: 0,
    });
  });

  test("says who served it, as told", () => {
    expect(whole("[sim model=other-1 tier=priority]")).toMatchObject({
      model: "other-1",
      service_tier: "priority",
    });
    expect(whole("hi", { service_tier: "flex" }).service_tier).toBe("flex");
    expect(whole("hi", { service_tier: "auto" }).service_tier).toBe("default");
  });

  test("counts images and takes the directive from text parts of the last user message", () => {
    const messages = [
      { role: "user", content: "[sim output=1]" },
      { role: "assistant", content: "[sim output=2]" },
      {
        role: "user",
        content: [
          { type: "text", text: "abcd [sim output=77]" },
          { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
        ],
      },
      { role: "tool", content: "[sim output=3]", tool_call_id: "x" },
    ];
    expect(whole("", { messages }).usage).toMatchObject({
      prompt_tokens: 16 + 85,
      completion_tokens: 77,
    });
  });

  test("fits a JSON schema, and is cut by the cap alone", () => {
    const schema = {
      type: "object",
      properties: { city: { type: "string" }, size: { type: "integer" } },
    };
    const response_format = { type: "json_schema", json_schema: { name: "x", schema } };
    for (const text of ["hi", "[sim output=2]", "[sim output=900]"])
      expect(
        JSON.parse(whole(text, { response_format }).choices[0]?.message.content ?? ""),
      ).toEqual({
        city: "simulated",
        size: 1,
      });
    expect(whole("hi", { response_format, max_tokens: 2 }).choices[0]).toMatchObject({
      finish_reason: "length",
      message: { content: '{"city":"simulat' },
    });
  });

  test("calls tools, by directive or because the caller insists", () => {
    const parameters = { type: "object", properties: { city: { type: "string" } } };
    const tools = ["a", "b", "c"].map((name) => ({
      type: "function",
      function: { name, parameters },
    }));
    const [choice] = whole("[sim tool=4]", { tools }).choices;
    expect(choice?.finish_reason).toBe("tool_calls");
    expect(choice?.message.content).toBeNull();
    expect(choice?.message.tool_calls?.map((call) => call.function.name)).toEqual([
      "a",
      "b",
      "c",
      "a",
    ]);
    expect(choice?.message.tool_calls?.[0]?.function.arguments).toBe('{"city":"simulated"}');
    expect(new Set(choice?.message.tool_calls?.map((call) => call.id)).size).toBe(4);
    const named = whole("hi", {
      tools,
      tool_choice: { type: "function", function: { name: "b" } },
    });
    expect(named.choices[0]?.message.tool_calls?.map((call) => call.function.name)).toEqual(["b"]);
    expect(whole("hi", { tools }).choices[0]?.finish_reason).toBe("stop");
  });
});

describe("a stream", () => {
  test("says what the whole answer says, in role, contents, finish and [DONE]", () => {
    const { chunks, lines } = streamed("hello");
    expect(textOf(chunks)).toBe(whole("hello").choices[0]?.message.content);
    expect(chunks[0]?.choices[0]?.delta).toMatchObject({ role: "assistant", content: "" });
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe("stop");
    expect(lines.at(-1)).toBe("data: [DONE]\n\n");
    expect(lines.some((line) => line.includes('"usage"'))).toBe(false);
  });

  test("tells usage once, if asked, and null on all other chunks", () => {
    const stream_options = { include_usage: true };
    const { chunks } = streamed("[sim output=9 input=8]", { stream_options });
    expect(chunks.at(-1)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: 8, completion_tokens: 9 },
    });
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true);
    const silent = streamed("[sim output=9 no-usage]", { stream_options });
    expect(silent.lines.some((line) => line.includes('"usage"'))).toBe(false);
  });

  test.each([0, 1, 7, 300])("has exactly %d chunks with content per choice", (count) => {
    const { chunks } = streamed(`[sim chunks=${count} output=11]`, { n: 2 });
    const contents = chunks.filter((chunk) => chunk.choices[0]?.delta.content);
    expect(contents).toHaveLength(count * 2);
    expect(textOf(chunks, 1)).toBe(textOf(chunks, 0));
  });

  test("streams tool calls by index", () => {
    const tools = [
      {
        type: "function",
        function: { name: "a", parameters: { properties: { city: { type: "string" } } } },
      },
    ];
    const { chunks } = streamed("[sim tool=2]", { tools });
    const deltas = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? []);
    for (const index of [0, 1]) {
      const parts = deltas
        .filter((delta) => delta.index === index)
        .map((delta) => delta.function.arguments);
      expect(parts.length).toBeGreaterThan(2);
      expect(parts.join("")).toBe('{"city":"simulated"}');
    }
  });

  test("fails inside as told", () => {
    const inBand = streamed("[sim error-after=2]").lines;
    expect(inBand).toHaveLength(3);
    expect(inBand.at(-1)).toContain('"error":{"message"');
    expect(streamed("[sim no-done]").lines.at(-1)).toContain('"finish_reason":"stop"');
    expect(() => streamed("[sim garbage]")).toThrow(SyntaxError);
    for (const words of ["error-after=2", "no-done", "garbage"])
      expect(plan(`[sim ${words}]`, { stream: true }).complete).toBe(false);
  });
});

test("errors have OpenAI's shape and charge nothing", () => {
  const answer = plan("[sim status=429 retry-after=3]");
  const { status, retryAfterSeconds, tokens } = answer;
  expect([status, retryAfterSeconds, tokens]).toEqual([429, 3, {}]);
  expect(JSON.parse(textBody(answer))).toEqual({
    error: {
      message: "simulated status 429",
      type: "requests",
      param: null,
      code: "rate_limit_exceeded",
    },
  });
  expect(plan("[sim no-done]").status).toBe(400);
  expect(plan("[sim garbage]").tokens).toEqual({});
});

test.each([
  [null, "JSON object"],
  [{ messages: [{}] }, "model"],
  [{ model: "m", messages: [] }, "messages"],
  [{ model: "m", messages: [{}], n: 129 }, "n is not"],
  [{ model: "m", messages: [{}], max_tokens: 0 }, "max_tokens"],
  [{ model: "m", messages: [{}], max_completion_tokens: 1.5 }, "max_completion_tokens"],
  [{ model: "m", messages: [{ role: "user", content: "[sim what]" }] }, "'what'"],
])("a request that cannot be answered is refused: %j", (body, part) => {
  expect(() => readRequest(body)).toThrow(part);
});
