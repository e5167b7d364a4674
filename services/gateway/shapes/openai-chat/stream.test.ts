import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { createChatStream, SSE_EVENT_BYTES_MAX } from "./stream.ts";
import type { AnswerStream, AnswerFault } from "#services/gateway/shapes/shape.ts";

type Json = Record<string, unknown>;

const HEAD = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: "m-2024" };
const choice = (delta: Json, index = 0, finish_reason: string | null = null): Json => ({
  index,
  delta,
  logprobs: null,
  finish_reason,
});
const chunk = (choices: Json[], more: Json = {}): Json => ({ ...HEAD, choices, ...more });
const event = (value: unknown, end = "\n"): string =>
  `data: ${typeof value === "string" ? value : JSON.stringify(value)}${end}${end}`;
const USAGE = { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 };

interface Seen {
  out: string;
  failed: AnswerFault | undefined;
  done: boolean;
  stream: AnswerStream;
}

/** Pushes pieces and ends. What comes out must be bytes that nobody changes later: it is read only at the end. */
function run(pieces: readonly Uint8Array[], includeUsageAsked: boolean): Seen {
  const stream = createChatStream({ includeUsageAsked });
  const outs: Uint8Array[] = [];
  let failed: AnswerFault | undefined;
  for (const { out, failed: failure } of [
    ...pieces.map((piece) => stream.push(piece)),
    stream.end(),
  ]) {
    if (out) outs.push(out);
    failed ??= failure;
  }
  return { out: Buffer.concat(outs).toString(), failed, done: stream.done, stream };
}

const whole = (text: string, includeUsageAsked = false): Seen =>
  run([Buffer.from(text)], includeUsageAsked);
const bytewise = (text: string, includeUsageAsked = false): Seen =>
  run(
    [...Buffer.from(text)].map((byte) => Uint8Array.of(byte)),
    includeUsageAsked,
  );

const ROLE = chunk([choice({ role: "assistant", content: "" })], { usage: null });
const says = (content: string, index = 0): Json =>
  chunk([choice({ content }, index)], { usage: null });
const ENDS = chunk([choice({}, 0, "stop")], { usage: null });
const COUNTS = chunk([], { usage: USAGE });
const without = ({ usage: _usage, ...rest }: Json): Json => rest;

describe("a stream of chunks", () => {
  const chunks = [ROLE, says("he"), says("llo\n"), says('"😀\\'), ENDS];
  const text = `${[...chunks, COUNTS].map((value) => event(value)).join("")}data: [DONE]\n\n`;

  it("loses what exists only because relai asks for usage", () => {
    for (const seen of [whole(text), bytewise(text)]) {
      expect(seen.out).toBe(chunks.map((value) => event(without(value))).join(""));
      expect(seen).toMatchObject({ failed: undefined, done: true });
    }
  });

  it("is untouched when the caller asked for usage, and the done mark is held back", () => {
    for (const seen of [whole(text, true), bytewise(text, true)]) {
      expect(seen.out).toBe(text.replace("data: [DONE]\n\n", ""));
      expect(seen.done).toBe(true);
    }
  });

  it("tells what it has seen", () => {
    const { stream } = whole(text);
    expect(stream.said).toMatchObject({
      usage: { tokens: { input: 5, output: 2 }, anomaly: false },
      servedModel: "m-2024",
      serviceTier: undefined,
      finishReasons: ["stop"],
      visibleBytes: Buffer.byteLength('hello\n"😀\\'),
      chunks: 3,
    });
    expect(stream.isComplete).toBe(true);
  });

  it("gives the pushed bytes themselves when there is nothing to edit", () => {
    const stream = createChatStream({ includeUsageAsked: true });
    for (const value of chunks) {
      const bytes = Buffer.from(event(value));
      expect(stream.push(bytes).out).toBe(bytes);
    }
    const bytes = new Uint8Array(Buffer.from(event(says("x")).repeat(3)));
    expect(Buffer.from(stream.push(bytes).out ?? []).equals(bytes)).toBe(true);
  });

  it("gives nothing after the done mark", () => {
    const stream = createChatStream({ includeUsageAsked: false });
    expect(
      stream.push(Buffer.from(`: x\n\ndata: [DONE]\n\n${event(says("late"))}`)).out?.toString(),
    ).toBe(": x\n\n");
    expect(stream.push(Buffer.from(event(says("later"))))).toEqual({ out: undefined });
    expect(stream.end()).toEqual({ out: undefined });
    expect(stream.said.chunks).toBe(0);
  });
});

describe("usage", () => {
  it("is the last that came, never a sum, explicit zeros included", () => {
    const text =
      event(chunk([choice({ content: "a" })], { usage: USAGE })) +
      event(chunk([], { usage: { prompt_tokens: 0, completion_tokens: 0 } }));
    const { stream, out } = whole(text);
    expect(stream.said.usage).toEqual({ tokens: { input: 0, output: 0 }, anomaly: false });
    expect(out).toBe(event(chunk([choice({ content: "a" })])));
  });

  it("stays when a later chunk has null, and goes when the last one cannot be read", () => {
    expect(whole(event(COUNTS) + event(ENDS)).stream.said.usage).toBeDefined();
    expect(
      whole(
        event(COUNTS) + event(chunk([], { usage: { prompt_tokens: -1, completion_tokens: 1 } })),
      ).stream.said.usage,
    ).toBeUndefined();
  });

  it.each<[string, Json]>([
    ["moderation results", { moderation: { input: {} } }],
    ["the prompt's filter results", { prompt_filter_results: [{}] }],
  ])("is taken out of a chunk without choices that carries %s", (_, more) => {
    expect(whole(event(chunk([], { ...more, usage: USAGE }))).out).toBe(event(chunk([], more)));
  });

  it("leaves a chunk without choices and without usage alone, as Azure's first", () => {
    const first = event({ ...HEAD, model: "", choices: [], prompt_filter_results: [] });
    expect(whole(first)).toMatchObject({ out: first, failed: undefined });
  });

  it("is not looked for inside of text", () => {
    const text = event(without(says(',"usage":null')));
    expect(whole(text).out).toBe(text);
  });
});

describe("chunks that are like others before", () => {
  const same = without(says("a"));

  it("change the names back", () => {
    const other = { ...same, model: "m-2025", service_tier: "flex" };
    const seen = whole([same, same, other, same].map((value) => event(value)).join(""));
    expect(seen.stream.said).toMatchObject({
      servedModel: "m-2024",
      serviceTier: "flex",
      visibleBytes: 4,
    });
  });

  it("change the usage back", () => {
    const counted = (tokens: number): Json => ({
      ...same,
      usage: { prompt_tokens: tokens, completion_tokens: 1 },
    });
    const seen = whole(event(counted(1)) + event(counted(1)) + event(COUNTS) + event(counted(1)));
    expect(seen.stream.said.usage?.tokens).toEqual({ input: 1, output: 1 });
  });

  it("count all of their choices", () => {
    const two = chunk([choice({ content: "ab" }, 0), choice({ content: "c" }, 1)]);
    expect(whole(event(two).repeat(5)).stream.said).toMatchObject({ visibleBytes: 15, chunks: 5 });
  });

  it("count no chunk that shows nothing", () => {
    const seen = whole(event(same) + event(same) + event(without(says(""))));
    expect(seen.stream.said).toMatchObject({ visibleBytes: 2, chunks: 2 });
  });

  it("are still garbage with a line end inside of their text", () => {
    for (const end of ["\n", "\\\n", "\n\n"]) {
      const broken = event(same).replace('"a"', `"a${end}"`);
      const seen = whole(event(same) + event(same) + broken);
      expect(seen).toMatchObject({ out: event(same).repeat(2), failed: "garbage" });
    }
  });
});

describe("choices", () => {
  it("are finished when each that began has its reason", () => {
    const two = (...reasons: [number, string | null][]): boolean =>
      whole(reasons.map(([index, reason]) => event(chunk([choice({}, index, reason)]))).join(""))
        .stream.isComplete;
    expect(two()).toBe(false);
    expect(two([0, null])).toBe(false);
    expect(two([0, "stop"])).toBe(true);
    expect(two([0, null], [1, null], [0, "stop"])).toBe(false);
    expect(two([0, null], [1, null], [0, "stop"], [0, "stop"])).toBe(false);
    expect(two([0, null], [1, null], [1, "length"], [0, "stop"], [1, null])).toBe(true);
  });

  it("show text, refusals, reasoning, tool calls and transcripts", () => {
    const visible = (delta: Json): number =>
      whole(event(chunk([choice(delta)]))).stream.said.visibleBytes;
    expect(visible({ content: "é" })).toBe(2);
    expect(visible({ refusal: "no" })).toBe(2);
    expect(visible({ reasoning_content: "hm", reasoning: "hm" })).toBe(2);
    expect(
      visible({
        tool_calls: [
          { index: 0, id: "x", function: { name: "f", arguments: '{"' } },
          { function: { arguments: "}" } },
        ],
      }),
    ).toBe(4);
    expect(visible({ tool_calls: [{ custom: { name: "f", input: "ab" } }] })).toBe(3);
    expect(visible({ function_call: { name: "f", arguments: "{}" } })).toBe(3);
    expect(visible({ audio: { data: "AAAA", transcript: "yes" } })).toBe(3);
    expect(visible({ role: "assistant", content: null, tool_calls: null })).toBe(0);
  });

  it("of one chunk count as one chunk", () => {
    expect(
      whole(event(chunk([choice({ content: "a" }, 0), choice({ content: "b" }, 1)]))).stream.said
        .chunks,
    ).toBe(1);
  });
});

describe("framing", () => {
  const answer = without(says("hi"));

  it.each<[string, string]>([
    ["CRLF", event(answer, "\r\n")],
    [
      "comments, ids, names and times",
      `: ping\n\nevent: chunk\nid: 7\nretry: 10\nid\n${event(answer)}`,
    ],
    ["no space after the colon", event(answer).replace("data: ", "data:")],
    ["a byte order mark", `\ufeff${event(answer)}`],
    ["empty lines", `\n\n${event(answer)}\n\r\n`],
    ["data over several lines", `${JSON.stringify(answer, null, 1).replace(/^/gm, "data: ")}\n\n`],
    ["an event of its own kind", `event: relay.note\n${event({ type: "note" })}`],
  ])("passes %s untouched", (_, text) => {
    for (const seen of [whole(text), bytewise(text)])
      expect(seen).toMatchObject({ out: text, failed: undefined });
  });

  it("takes usage out of data over several lines", () => {
    for (const value of [{ ...answer, usage: null }, { usage: null, ...answer }, { usage: null }]) {
      const text = `${JSON.stringify(value, null, 1).replace(/^/gm, "data: ")}\n\n`;
      for (const seen of [whole(text), bytewise(text)]) {
        expect(seen.failed).toBeUndefined();
        expect(JSON.parse(seen.out.replace(/^data: /gm, ""))).toEqual(without(value));
      }
    }
  });

  it.each([
    "data: [DONE]\n\n",
    "data: [DONE]\r\n\r\n",
    "data:[DONE]\n\n",
    "data: [DONE] \n",
    "data: [DONE]",
    ": x\nid: 9\ndata: [DONE]\n\n",
  ])("knows %j as the end", (end) => {
    for (const seen of [whole(event(answer) + end), bytewise(event(answer) + end)]) {
      expect(seen).toMatchObject({ out: event(answer), done: true, failed: undefined });
    }
  });

  it("completes a last event without its empty line, and drops one that is cut short", () => {
    expect(whole(`data: ${JSON.stringify(answer)}`)).toMatchObject({
      out: event(answer),
      failed: undefined,
    });
    expect(whole(event(answer) + event(answer).slice(0, 40))).toMatchObject({
      out: event(answer),
      failed: undefined,
      done: false,
    });
  });

  it.each<[string, string]>([
    ["a page", "<html>\n<body>\n\n"],
    ["plain text", "Bad gateway\n"],
    ["JSON that is no event", '{"error": "x"}\n'],
    ["data that is no JSON", "data: hello\n\n"],
    ["data that is no object", "data: 7\n\n"],
    ["a broken chunk", 'data: {"choices":[{"delta":{"content":"x}]}\n\n'],
    ["choices that are no list", 'data: {"choices":7}\n\n'],
    ["a choice that is no object", 'data: {"choices":[7]}\n\n'],
    ["a delta that is no object", 'data: {"choices":[{"delta":"x"}]}\n\n'],
    ["depth without end", `data: {"choices":${"[".repeat(10_000)}\n\n`],
    ["an endless line", `data: ${"x".repeat(SSE_EVENT_BYTES_MAX + 1)}`],
    ["an endless event", `data: ${"x".repeat(1000)}\n`.repeat(4400)],
  ])("fails on %s, after all that was good", (_, text) => {
    expect(whole(event(answer) + text)).toMatchObject({
      out: event(answer),
      failed: "garbage",
      done: false,
    });
  });

  it.each<[string, string]>([
    ["an error frame", event({ error: { message: "secret" } })],
    ["an error beside choices", event({ ...answer, error: "secret" })],
    ["an error event", `event: error\n${event("secret")}`],
    ["an error event without data", "event: error\n\n"],
  ])("does not relay %s", (_, text) => {
    for (const seen of [whole(event(answer) + text), bytewise(event(answer) + text)]) {
      expect(seen).toMatchObject({ out: event(answer), failed: "upstream_error", done: false });
    }
  });

  it("does not take an error of null for one", () => {
    const text = event({ ...answer, error: null });
    expect(whole(text)).toMatchObject({ out: text, failed: undefined });
  });
});

describe("any stream", () => {
  const content = fc.oneof(
    fc.string({ unit: "binary", maxLength: 6 }),
    fc.constantFrom("", "a", "\\", '"', "\ud800", "data: [DONE]\n\n"),
  );
  const piece = fc.oneof(
    { weight: 8, arbitrary: content.map((text) => chunk([choice({ content: text })])) },
    fc
      .tuple(content, content)
      .map(([a, b]) => chunk([choice({ content: a }, 0), choice({ refusal: b }, 1)])),
    content.map((text) =>
      chunk([choice({ tool_calls: [{ index: 0, function: { name: "f", arguments: text } }] })]),
    ),
    fc.constantFrom(1, 0).map((index) => chunk([choice({}, index, "stop")])),
    fc.constantFrom<Json>(
      chunk([]),
      { type: "other" },
      chunk([choice({ role: "assistant", content: null })]),
    ),
    content.map((text) =>
      chunk([choice({ content: text })], { model: "m-2025", service_tier: "flex" }),
    ),
  );
  const frame = fc.record({
    value: piece,
    usage: fc.constantFrom<Json | null | undefined>(null, null, null, undefined, USAGE, {
      prompt_tokens: 1,
      completion_tokens: 9,
    }),
    usageFirst: fc.constantFrom(false, false, false, true),
    padding: fc.constantFrom(undefined, undefined, "", "abc", 'x"y'),
    end: fc.constantFrom("\n", "\n", "\n", "\r\n"),
    indent: fc.constantFrom(0, 0, 0, 0, 1),
    before: fc.constantFrom("", "", "", ": keep alive\n\n", "id: 4\n", "event: chunk\n"),
  });
  type Frame = typeof frame extends fc.Arbitrary<infer T> ? T : never;

  const write = ({
    value,
    usage,
    usageFirst,
    padding,
    end,
    indent,
    before,
  }: Frame): { text: string; shown: string; says: Json } => {
    const padded = padding === undefined ? value : { ...value, obfuscation: padding };
    const says: Json =
      usage === undefined ? padded : usageFirst ? { usage, ...padded } : { ...padded, usage };
    const lines = (json: Json): string => {
      const data = JSON.stringify(json, null, indent)
        .split("\n")
        .map((line) => `data: ${line}${end}`);
      return before + data.join("") + end;
    };
    const choices = value["choices"];
    const onlyUsage = usage && (!Array.isArray(choices) || choices.length === 0);
    // The comment before an event is one of its own, and passes in any case.
    const shown = onlyUsage ? (before.startsWith(":") ? before : "") : lines(padded);
    return { text: lines(says), shown, says };
  };

  /** A second reading of the rules, on parsed chunks. */
  const factsOf = (values: readonly Json[]): object => {
    let visibleBytes = 0;
    let chunks = 0;
    const finishReasons: string[] = [];
    const names: { servedModel: unknown; serviceTier: unknown } = {
      servedModel: undefined,
      serviceTier: undefined,
    };
    let usage: Json | undefined;
    for (const value of values) {
      names.servedModel = value["model"] ?? names.servedModel;
      names.serviceTier = value["service_tier"] ?? names.serviceTier;
      usage = (value["usage"] as Json | null | undefined) ?? usage;
      let shown = 0;
      for (const { index, delta, finish_reason } of (value["choices"] ?? []) as {
        index: number;
        delta: Json;
        finish_reason: string | null;
      }[]) {
        finishReasons[index] = finish_reason ?? finishReasons[index] ?? "";
        for (const text of [delta["content"], delta["refusal"]])
          if (typeof text === "string") shown += Buffer.byteLength(text);
        const calls = (delta["tool_calls"] ?? []) as {
          function: { name: string; arguments: string };
        }[];
        for (const call of calls)
          shown +=
            Buffer.byteLength(call.function.name) + Buffer.byteLength(call.function.arguments);
      }
      visibleBytes += shown;
      if (shown > 0) chunks += 1;
    }
    const tokens = usage && { input: usage["prompt_tokens"], output: usage["completion_tokens"] };
    return {
      ...names,
      usage: tokens && { tokens, anomaly: false },
      visibleBytes,
      chunks,
      finishReasons,
    };
  };

  it("gives the same output and facts however it is cut", () => {
    const cuts = fc.array(fc.nat(), { maxLength: 12 });
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 12 }), cuts, fc.boolean(), (frames, at, asked) => {
        const written = frames.map(write);
        const text = `${written.map((part) => part.text).join("")}data: [DONE]\n\n`;
        const bytes = Buffer.from(text);
        const borders = [
          0,
          ...at.map((offset) => offset % (bytes.length + 1)).sort((a, b) => a - b),
          bytes.length,
        ];
        const pieces = borders.slice(1).map((border, i) => bytes.subarray(borders[i], border));
        const facts = factsOf(written.map((part) => JSON.parse(JSON.stringify(part.says)) as Json));
        const shown = written.map((part) => (asked ? part.text : part.shown)).join("");
        const loose = (output: string): string => output.replace(/[ \r\n]|data:/g, "");
        const one = run([bytes], asked);
        for (const seen of [one, run(pieces, asked), bytewise(text, asked)]) {
          expect(seen).toMatchObject({ failed: undefined, done: true, out: one.out });
          expect(seen.stream.said).toMatchObject(facts);
        }
        // Where a member over several lines is taken out, line ends around it may go with it.
        if (asked || frames.every(({ indent }) => indent === 0)) expect(one.out).toBe(shown);
        else expect(loose(one.out)).toBe(loose(shown));
        expect(bytes.equals(Buffer.from(text))).toBe(true);
      }),
      { numRuns: 1500 },
    );
  });

  it("of any bytes at all ends in a verdict, the same however it is cut", () => {
    const junk = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.string({ unit: "binary" }).map((text) => Buffer.from(`data: ${text}\n\n`)),
    );
    fc.assert(
      fc.property(junk, (bytes) => {
        const one = run([bytes], false);
        const many = run(
          [...bytes].map((byte) => Uint8Array.of(byte)),
          false,
        );
        expect([many.out, many.failed, many.done]).toEqual([one.out, one.failed, one.done]);
      }),
    );
  });
});
