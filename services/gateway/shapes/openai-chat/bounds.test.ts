import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

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

  it("take an earlier answer's audio as audio of any size", () => {
    expect(ofMessage({ role: "assistant", audio: { id: "audio_1" } })).toMatchObject({
      unknownSize: true,
      hasAudioInput: true,
    });
    expect(ofMessage({ role: "assistant", audio: null })).toMatchObject({
      unknownSize: false,
      hasAudioInput: false,
    });
  });

  it.each<[string, unknown]>([
    ["of a type that nobody knows", { type: "video_url", video_url: { url: "https://e" } }],
    ["without a type", { audio_url: { url: "https://e" } }],
    ["that is a file", { type: "file", file: { file_id: "f" } }],
  ])("take a part %s as audio too, in a list or alone", (_, only) => {
    for (const content of [[only], only])
      expect(ofMessage({ role: "user", content })).toMatchObject({
        unknownSize: true,
        hasAudioInput: true,
      });
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
