import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { readChatAnswer } from "./answer.ts";

const CHOICE = {
  index: 0,
  message: { role: "assistant", content: "hé" },
  finish_reason: "stop",
  logprobs: null,
};
const ANSWER = {
  id: "x",
  object: "chat.completion",
  model: "m-2024",
  choices: [CHOICE],
  usage: { prompt_tokens: 3, completion_tokens: 2 },
  service_tier: "default",
};
const bytes = (answer: unknown, indent?: number): Buffer =>
  Buffer.from(JSON.stringify(answer, null, indent));

describe("readChatAnswer", () => {
  it("reads usage, what was served and why it ended", () => {
    const expected = {
      usage: { tokens: { input: 3, output: 2 }, anomaly: false },
      servedModel: "m-2024",
      serviceTier: "default",
      finish: "stop",
    };
    for (const body of [bytes(ANSWER), bytes(ANSWER, 2)]) {
      const read = readChatAnswer(body);
      expect(read).toMatchObject(expected);
      // The very bytes that came go out.
      expect(typeof read === "string" || read.body).toBe(body);
    }
  });

  it.each<[string, object, object]>([
    ["no usage", { usage: undefined }, { usage: undefined }],
    ["usage of null", { usage: null }, { usage: undefined }],
    [
      "usage that is garbage",
      { usage: { prompt_tokens: -1, completion_tokens: 1 } },
      { usage: undefined },
    ],
    [
      "no names",
      { model: "", service_tier: null },
      { servedModel: undefined, serviceTier: undefined },
    ],
    ["a name that is too long", { model: "x".repeat(300) }, { servedModel: undefined }],
    ["no choices in the list", { choices: [] }, { finish: "" }],
    ["an error of null", { error: null }, { finish: "stop" }],
  ])("takes an answer with %s", (_, change, expected) => {
    expect(readChatAnswer(bytes({ ...ANSWER, ...change }))).toMatchObject(expected);
  });

  it.each<[string, Buffer]>([
    ["nothing", Buffer.from("")],
    ["a page", Buffer.from("<html>")],
    ["a list", Buffer.from("[]")],
    ["another object", bytes({ detail: "x" })],
    ["choices that are no list", bytes({ choices: {} })],
    ["half an answer", bytes(ANSWER).subarray(0, 100)],
    ["bytes behind the answer", Buffer.concat([bytes(ANSWER), Buffer.from("x")])],
    ["depth without end", Buffer.from(`{"choices":${"[".repeat(100_000)}`)],
  ])("takes %s for garbage", (_, body) => {
    expect(readChatAnswer(body)).toBe("garbage");
  });

  it("finds an error under a status of success", () => {
    expect(readChatAnswer(bytes({ error: { message: "no" } }))).toBe("upstream_error");
    expect(readChatAnswer(bytes({ ...ANSWER, error: "no" }))).toBe("upstream_error");
  });
});

/** What an answer shows; nothing where it is no answer. */
function seenIn(answer: Buffer) {
  const read = readChatAnswer(answer);
  return typeof read === "string" ? undefined : read.seen();
}

describe("what an answer without usage shows", () => {
  it("counts the decoded text of all choices", () => {
    const text = fc.string({ unit: "binary" });
    fc.assert(
      fc.property(fc.array(fc.tuple(text, text, text, text)), (texts) => {
        const choices = texts.map(([content, refusal, args, input], index) => ({
          index,
          message: {
            content,
            refusal,
            reasoning: "r",
            tool_calls: [
              { id: "long id", function: { name: "f", arguments: args } },
              { custom: { name: "g", input } },
            ],
          },
        }));
        const names = "r".length + "f".length + "g".length;
        let visibleBytes = 0;
        for (const parts of texts)
          for (const part of parts) visibleBytes += Buffer.byteLength(part);
        visibleBytes += names * texts.length;
        expect(seenIn(bytes({ choices }))).toEqual({
          visibleBytes,
          chunks: texts.length,
          audioBytes: 0,
        });
      }),
    );
  });

  it("is nothing where choices say nothing, or are garbage", () => {
    const nothing = { visibleBytes: 0, chunks: 0, audioBytes: 0 };
    for (const choices of ["[]", "[1]", '[{"message":7}]', '[{"a":tru}]'])
      expect(seenIn(Buffer.from(`{"choices":${choices}}`))).toEqual(nothing);
  });
});
