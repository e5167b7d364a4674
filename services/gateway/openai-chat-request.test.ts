import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { JSON_DEPTH_MAX, readChatRequest } from "./openai-chat-request.ts";
import type { BodyFault, ChatAsk } from "./openai-chat-request.ts";

const MESSAGES = [{ role: "user", content: "hello" }];

function read(body: object | string): ChatAsk {
  const text =
    typeof body === "string" ? body : JSON.stringify({ model: "m", messages: MESSAGES, ...body });
  const result = readChatRequest(Buffer.from(text));
  if (!result.ok) throw new Error(result.error.message);
  return result.ask;
}

function refusal(body: object | string | Buffer): BodyFault | undefined {
  const text =
    typeof body === "string" || Buffer.isBuffer(body)
      ? body
      : JSON.stringify({ model: "m", messages: MESSAGES, ...body });
  const result = readChatRequest(Buffer.isBuffer(text) ? text : Buffer.from(text));
  return result.ok ? undefined : result.error;
}

describe("what is read", () => {
  it("has defaults for what is absent or null", () => {
    const absent = { stream: false, includeUsageAsked: false, n: 1, outputCapTokens: null };
    expect(read({})).toMatchObject({
      model: "m",
      ...absent,
      serviceTier: undefined,
      modelRegion: undefined,
    });
    const nulls = {
      stream: null,
      n: null,
      max_tokens: null,
      max_completion_tokens: null,
      service_tier: null,
    };
    expect(
      read({ ...nulls, model_region: null, stream_options: null, store: null, tools: null }),
    ).toMatchObject(absent);
  });

  it("takes the cap under either name, one of them null or not", () => {
    expect(read({ max_tokens: 7 }).outputCapTokens).toBe(7);
    expect(read({ max_completion_tokens: 8 }).outputCapTokens).toBe(8);
    expect(read({ max_completion_tokens: 9, max_tokens: null }).outputCapTokens).toBe(9);
  });

  it("notes usage asked only in a stream", () => {
    const stream_options = { include_usage: true };
    expect(read({ stream: true, stream_options }).includeUsageAsked).toBe(true);
    expect(read({ stream: false, stream_options }).includeUsageAsked).toBe(false);
    expect(read({ stream: true, stream_options: { include_usage: false } }).includeUsageAsked).toBe(
      false,
    );
    expect(
      read({ stream: true, stream_options: { include_obfuscation: true } }).includeUsageAsked,
    ).toBe(false);
  });

  it("takes a service tier of auto as none", () => {
    expect(read({ service_tier: "auto" }).serviceTier).toBeUndefined();
  });

  it("carries what is asked", () => {
    expect(read({ n: 3, service_tier: "flex", model_region: "eu" })).toMatchObject({
      n: 3,
      serviceTier: "flex",
      modelRegion: "eu",
    });
  });
});

describe("what is refused", () => {
  it.each<[string, object, string]>([
    ["no model", { model: undefined }, "model"],
    ["an empty model", { model: "" }, "model"],
    ["a model that is no text", { model: 4 }, "model"],
    ["a long model", { model: "é".repeat(129) }, "model"],
    ["half a surrogate pair in the model", { model: "m\ud800" }, "model"],
    ["no messages", { messages: undefined }, "messages"],
    ["empty messages", { messages: [] }, "messages"],
    ["messages that are no array", { messages: { 0: "x" } }, "messages"],
    ["stream as text", { stream: "true" }, "stream"],
    ["stream as a number", { stream: 1 }, "stream"],
    ["both caps", { max_tokens: 1, max_completion_tokens: 1 }, "max_tokens"],
    ["a cap of zero", { max_tokens: 0 }, "max_tokens"],
    ["a negative cap", { max_completion_tokens: -1 }, "max_completion_tokens"],
    ["half a token", { max_tokens: 1.5 }, "max_tokens"],
    ["a cap as text", { max_tokens: "10" }, "max_tokens"],
    ["a cap as true", { max_tokens: true }, "max_tokens"],
    ["n of zero", { n: 0 }, "n"],
    ["n of 129", { n: 129 }, "n"],
    ["a tier that is no text", { service_tier: 1 }, "service_tier"],
    ["a region that is no text", { model_region: ["eu"] }, "model_region"],
    ["stream options that are a list", { stream: true, stream_options: [] }, "stream_options"],
    [
      "include_usage as text",
      { stream: true, stream_options: { include_usage: "yes" } },
      "stream_options.include_usage",
    ],
    ["web search", { web_search_options: {} }, "web_search_options"],
    ["live search", { search_parameters: { mode: "on" } }, "search_parameters"],
    ["a hosted tool", { tools: [{ type: "function" }, { type: "web_search" }] }, "tools"],
  ])("%s", (_, body, param) => {
    expect(refusal(body)).toMatchObject({ param });
    expect(refusal(body)?.message).toContain(
      param.split(".").at(-1) === "tools" ? "tool" : param.split(".")[0],
    );
  });

  it("takes tools of the caller's own, of whatever name", () => {
    expect(
      refusal({
        tools: [{ type: "function", function: { name: "web_search" } }, { type: "custom" }, {}],
      }),
    ).toBeUndefined();
  });

  it.each<[string, string | Buffer, RegExp]>([
    ["nothing", "", /must be a JSON object/],
    ["a list", "[]", /must be a JSON object/],
    ["a byte order mark", "\ufeff{}", /byte order mark/],
    [
      "bytes that are no UTF-8",
      Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]),
      /not valid UTF-8/,
    ],
    [
      "an overlong encoding",
      Buffer.from([0x7b, 0x22, 0xc0, 0xa2, 0x22, 0x3a, 0x31, 0x7d]),
      /not valid UTF-8/,
    ],
    ["two objects", "{}{}", /goes on after the end/],
    ["a truncated body", '{"model":"m","messages":[', /not valid JSON/],
    ["bad JSON that only a full parser sees", '{"model":"m","messages":[1,]}', /not valid JSON/],
    ["a raw line feed in a string", '{"model":"m\n","messages":[1]}', /not valid JSON/],
    ["a huge number", '{"model":"m","messages":[1],"max_tokens":1e999}', /positive integer/],
    [
      "a number past 2^53",
      '{"model":"m","messages":[1],"max_tokens":9007199254740993}',
      /positive integer/,
    ],
    ["deep lists", `{"model":"m","messages":${"[".repeat(1e6)}`, /nested deeper than 64/],
    [
      "deep objects",
      `{"model":"m","messages":${'{"a":'.repeat(JSON_DEPTH_MAX)}1${"}".repeat(JSON_DEPTH_MAX)}}`,
      /deeper/,
    ],
  ])("says clearly that it does not take %s", (_, body, message) => {
    expect(refusal(body)?.message).toMatch(message);
  });

  it.each([
    "model",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "stream",
    "messages",
    "tools",
    "store",
    "service_tier",
    "stream_options",
  ])("takes no second %s, however it is written", (name) => {
    const [first = ""] = name;
    const escaped = `\\u${first.charCodeAt(0).toString(16).padStart(4, "0")}${name.slice(1)}`;
    const odd = name.replace(first, first.toUpperCase());
    const rest =
      name === "model"
        ? '"messages":[1],'
        : name === "messages"
          ? '"model":"m",'
          : '"model":"m","messages":[1],';
    for (const second of [name, escaped]) {
      const body = `{${rest}"${name}":null,"${second}":null}`;
      expect(refusal(body)).toEqual({ param: name, message: `'${name}' is given more than once.` });
    }
    // Parsers written in Go take one for the other.
    expect(refusal(`{${rest}"${odd}":null}`)?.message).toMatch(/upper and lower case/);
  });

  it("takes no second include_usage", () => {
    const body =
      '{"model":"m","messages":[1],"stream_options":{"include_usage":true,"include_usag\\u0065":false}}';
    expect(refusal(body)).toMatchObject({ param: "stream_options.include_usage" });
  });

  it("leaves members that it does not read alone, twice or not", () => {
    expect(
      refusal('{"model":"m","messages":[1],"x":1,"x":2,"temperature":1,"temperature":2}'),
    ).toBeUndefined();
  });

  it("never throws", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((text) => Buffer.from(text)),
        ),
        (bytes) => {
          expect(readChatRequest(Buffer.from(bytes)).ok).toBe(false);
        },
      ),
    );
    const field = fc.oneof(fc.jsonValue(), fc.constant(undefined));
    const body = fc.record({
      messages: fc.array(field, { minLength: 1 }),
      tools: field,
      prediction: field,
      modalities: field,
    });
    fc.assert(
      fc.property(
        body,
        (fields) => void readChatRequest(Buffer.from(JSON.stringify({ model: "m", ...fields }))),
      ),
    );
  });
});

describe("bounds", () => {
  const bounds = (body: object): ChatAsk["bounds"] => read(body).bounds;
  const ofMessage = (message: unknown): ChatAsk["bounds"] => bounds({ messages: [message] });
  const image = (url: string): unknown => ({ type: "image_url", image_url: { url } });

  it("count half of the text, 8 tokens a message and 16 a request", () => {
    expect(bounds({})).toEqual({
      promptBytes: 5,
      inputTokensBound: 3 + 8 + 16,
      imageCount: 0,
      remoteImageCount: 0,
      hasAudioInput: false,
      audioBytes: 0,
      hasAudioOutput: false,
      isAudioOutputCompressed: false,
      unknownSize: false,
      predictionTokensBound: 0,
    });
    expect(bounds({ messages: [...MESSAGES, ...MESSAGES] }).inputTokensBound).toBe(5 + 16 + 16);
  });

  it("count text as it is after decoding", () => {
    const body = '{"model":"m","messages":[{"role":"user","content":"\\u0041\\n\\ud83d\\ude00é"}]}';
    expect(read(body).bounds.promptBytes).toBe(1 + 1 + 4 + 2);
  });

  it("count names, tool calls and text parts", () => {
    expect(ofMessage({ role: "user", name: "bob", content: "hi" }).promptBytes).toBe(4 + 3 + 2);
    expect(
      ofMessage({
        role: "user",
        content: [
          { type: "text", text: "abc" },
          { type: "text", text: "de" },
        ],
      }).promptBytes,
    ).toBe(5);
    const call = { id: "c1", type: "function", function: { name: "f", arguments: '{"a":1}' } };
    const bytes = ofMessage({ role: "assistant", content: null, tool_calls: [call] }).promptBytes;
    expect(bytes).toBeGreaterThanOrEqual(1 + 7);
    expect(bytes).toBeLessThanOrEqual(JSON.stringify([call]).length + "tool_calls".length + 2);
  });

  it("count tools, schemas and unknown members as the JSON that they are", () => {
    const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }];
    const response_format = { type: "json_schema", json_schema: { name: "x", schema: {} } };
    const sum = 5 + JSON.stringify(tools).length + JSON.stringify(response_format).length;
    expect(bounds({ tools, response_format }).promptBytes).toBe(sum);
    expect(bounds({ documents: ["abc"] }).promptBytes).toBe(5 + '"documents"["abc"]'.length);
    expect(bounds({ temperature: 1, metadata: { a: "b".repeat(99) }, user: "u" }).promptBytes).toBe(
      5,
    );
  });

  it("are never below half of any text in the messages", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", minLength: 1 }), fc.nat(6), (text, where) => {
        const places: unknown[] = [
          { role: "user", content: text },
          { role: "user", content: [{ type: "text", text }] },
          { role: "tool", content: "", tool_call_id: text },
          { role: "assistant", refusal: text },
          { role: "assistant", tool_calls: [{ function: { arguments: text } }] },
          { role: text, content: [text] },
          text,
        ];
        const message = places[where];
        expect(ofMessage(message).inputTokensBound).toBeGreaterThanOrEqual(
          Math.ceil(Buffer.byteLength(text) / 2) + 24,
        );
      }),
    );
  });

  it("count images in the body, never their base64", () => {
    const url = `data:image/png;base64,${"A".repeat(1000)}`;
    const found = ofMessage({
      role: "user",
      content: [image(url), image(url), { type: "text", text: "ab" }],
    });
    expect(found).toMatchObject({ imageCount: 2, promptBytes: 2, unknownSize: false });
  });

  it("count remote images beside those in the body", () => {
    const remote = image("https://example.com/a.png");
    const content = [remote, image("data:image/png;base64,AAAA"), remote];
    expect(ofMessage({ role: "user", content })).toMatchObject({
      imageCount: 3,
      remoteImageCount: 2,
      unknownSize: true,
    });
  });

  it("count audio by its decoded bytes, never as text", () => {
    const audio = (data: unknown): unknown => ({ type: "input_audio", input_audio: { data } });
    const content = [1000, 5].map((size) => audio(Buffer.alloc(size).toString("base64")));
    expect(ofMessage({ role: "user", content: [...content, audio(7)] })).toMatchObject({
      audioBytes: 1005,
      promptBytes: 0,
    });
  });

  it.each<[string, unknown]>([
    ["a remote image", image("https://example.com/a.png")],
    ["a document as a data URL", image("data:application/pdf;base64,AA")],
    ["an image without URL", { type: "image_url" }],
    ["a file", { type: "file", file: { file_id: "f" } }],
    ["audio", { type: "input_audio", input_audio: { data: "AAAA", format: "wav" } }],
    ["a part of another type", { type: "video_url", video_url: { url: "https://example.com" } }],
  ])("do not know the size of %s", (_, part) => {
    expect(ofMessage({ role: "user", content: [part] }).unknownSize).toBe(true);
  });

  it("do not know the size of an earlier answer's audio", () => {
    expect(ofMessage({ role: "assistant", audio: { id: "audio_1" } }).unknownSize).toBe(true);
  });

  it("see audio in and out", () => {
    expect(
      ofMessage({ role: "user", content: [{ type: "input_audio", input_audio: {} }] })
        .hasAudioInput,
    ).toBe(true);
    expect(bounds({ modalities: ["text", "audio"] }).hasAudioOutput).toBe(true);
    expect(bounds({ audio: { voice: "x" } }).hasAudioOutput).toBe(true);
    expect(bounds({ modalities: ["text"], audio: null }).hasAudioOutput).toBe(false);
  });

  it("count a prediction as output, not as input", () => {
    expect(bounds({ prediction: { type: "content", content: "12345" } })).toMatchObject({
      predictionTokensBound: 3,
      promptBytes: 5,
    });
    const parts = [{ type: "text", text: "123456" }];
    expect(
      bounds({ prediction: { type: "content", content: parts } }).predictionTokensBound,
    ).toBeGreaterThanOrEqual(3);
  });
});
