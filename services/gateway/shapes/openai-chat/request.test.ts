import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { JSON_DEPTH_MAX } from "#services/gateway/json/object.ts";
import { readChatRequest } from "./request.ts";
import type { ChatAsk } from "./request.ts";

const MESSAGES = [{ role: "user", content: "hello" }];

function read(body: object | string): ChatAsk {
  const text =
    typeof body === "string" ? body : JSON.stringify({ model: "m", messages: MESSAGES, ...body });
  const result = readChatRequest(Buffer.from(text));
  if ("code" in result) throw new Error(result.message);
  return result;
}

function refusal(body: object | string | Buffer) {
  const text =
    typeof body === "string" || Buffer.isBuffer(body)
      ? body
      : JSON.stringify({ model: "m", messages: MESSAGES, ...body });
  const result = readChatRequest(Buffer.isBuffer(text) ? text : Buffer.from(text));
  if (!("code" in result)) return undefined;
  const { code, ...fault } = result;
  expect(code).toBe("invalid_request");
  return fault;
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

  const IMAGE = '"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}';
  const part = (inside: string) => `"messages":[{"role":"user","content":[{${inside}}]}]`;
  const below: [string, string, string][] = [
    ["a role", '"messages":[{"role":"user","role":"x","content":"hi"}]', "messages"],
    ["content", '"messages":[{"role":"user","content":"hello","content":""}]', "messages"],
    ["content in escapes", '"messages":[{"content":"hello","c\\u006fntent":""}]', "messages"],
    ["a tool call's text", '"messages":[{"tool_calls":[{"f":{"a":"hello","a":""}}]}]', "messages"],
    ["a part's type", part('"type":"file","file":{},"type":"text"'), "messages"],
    ["a part's text", part('"type":"text","text":"hello","text":""'), "messages"],
    ["an image", part(`"image_url":{"url":"https://e"},${IMAGE}`), "messages"],
    ["its address", part(IMAGE.replace("{", '{"url":"https://e",')), "messages"],
    ["a name of the prototype", part('"__proto__":1,"__proto__":2'), "messages"],
    ["a predicted text", '"prediction":{"content":"hello","content":""}', "prediction"],
    ["a tool's type", '"tools":[{"type":"web_search","type":"function"}]', "tools"],
  ];
  it.each(below)("takes no second member that it reads below the top level: %s", (...row) => {
    const [, inside, param] = row;
    const rest = param === "messages" ? '"model":"m"' : '"model":"m","messages":[1]';
    const message = `An object within '${param}' has a member more than once.`;
    expect(refusal(`{${rest},${inside}}`)).toEqual({ param, message });
  });

  it.each<[string, string, string]>([
    ["Role", '"messages":[{"role":"user","Role":"x"}]', "messages"],
    ["CONTENT", '"messages":[{"CONTENT":"hello"}]', "messages"],
    ["Audio", '"messages":[{"role":"assistant","Audio":{"id":"a"}}]', "messages"],
    ["Type of a text", part('"type":"text","text":"","Type":"image_url"'), "messages"],
    ["Text", part('"type":"text","Text":"hello"'), "messages"],
    ["a long s in refusal", part('"type":"refusal","refu\u017fal":"hello"'), "messages"],
    ["Image_URL", part(`${IMAGE},"Image_URL":{"url":"https://e"}`), "messages"],
    ["URL", part(IMAGE.replace("{", '{"URL":"https://e",')), "messages"],
    ["Content of a prediction", '"prediction":{"content":"","Content":"hello"}', "prediction"],
    ["Type of a tool", '"tools":[{"type":"function","Type":"web_search"}]', "tools"],
  ])("takes nothing in another case below the top level: %s", (_, inside, param) => {
    const rest = param === "messages" ? '"model":"m"' : '"model":"m","messages":[1]';
    expect(refusal(`{${rest},${inside}}`)).toMatchObject({
      param,
      message: expect.stringMatching(/upper and lower case/) as string,
    });
  });

  it("leaves members that it does not read alone, twice or not", () => {
    expect(
      refusal('{"model":"m","messages":[1],"x":1,"x":2,"temperature":1,"temperature":2}'),
    ).toBeUndefined();
    const tool = '{"type":"function","function":{"parameters":{"a":1,"a":2,"Type":{}}}}';
    const metadata = '"metadata":{"a":"b","a":"c","Content":"d"}';
    expect(
      refusal(`{"model":"m","messages":[{"Name":"bob"}],"tools":[${tool},[1],"x"],${metadata}}`),
    ).toBeUndefined();
  });

  it("takes any body whose objects have each member once", () => {
    const field = fc.oneof(fc.jsonValue(), fc.constant(undefined));
    const body = fc.record({
      messages: fc.array(fc.jsonValue({ maxDepth: 6 }), { minLength: 1 }),
      prediction: field,
      tools: fc.array(field),
    });
    const space = fc.constantFrom(undefined, 1);
    fc.assert(
      fc.property(body, space, (fields, indent) => {
        const text = JSON.stringify({ model: "m", ...fields }, null, indent);
        expect(refusal(text)?.message ?? "").not.toContain("more than once");
      }),
    );
  });

  it("never throws", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((text) => Buffer.from(text)),
        ),
        (bytes) => {
          expect(readChatRequest(Buffer.from(bytes))).toMatchObject({ code: "invalid_request" });
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
