import { describe, expect, it } from "vitest";
import { OPENAI_EMBEDDINGS } from "./shape.ts";

const NAMES = {
  upstreamModel: "m",
  outputCapName: "max_tokens",
  outputCapTokens: 0,
  pinsServiceTier: true,
} as const;

function read(body: object | string) {
  const bytes = Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
  const result = OPENAI_EMBEDDINGS.read(bytes, 64);
  return { bytes, result, ask: "code" in result ? undefined : result };
}

describe("what is held for an input", () => {
  it.each<[string, unknown, tokens: number, estimateBytes: number]>([
    ["a text: half its bytes, and what may be rounded", "hello world", 8, 11],
    ["texts: each for itself", ["a", "b", "héé"], 8, 7],
    ["an empty text", "", 2, 0],
    ["token ids: one each", [1, 2, 3], 4, 12],
    ["lists of token ids", [[1, 2], [3]], 4, 12],
  ])("%s", (_, input, tokens, promptBytes) => {
    const { ask } = read({ model: "m", input });
    expect(ask?.bounds).toMatchObject({ inputTokensBound: tokens, promptBytes });
    expect(ask).toMatchObject({ stream: false, n: 1, outputCapTokens: null, model: "m" });
  });

  it("parameters cost nothing, what is not known counts as its bytes", () => {
    const input = "hello world";
    const bounds = (more: object) => read({ model: "m", input, ...more }).ask?.bounds.promptBytes;
    expect(bounds({ encoding_format: "base64", dimensions: 3, user: "me" })).toBe(11);
    expect(bounds({ instruction: "retrieve" })).toBeGreaterThan(11 + "retrieve".length);
  });

  it("takes as many token ids as OpenAI does", () => {
    const input = Array.from({ length: 300 }, () => Array.from({ length: 1_000 }, () => 100_000));
    expect(read({ model: "m", input }).ask?.bounds.inputTokensBound).toBe(300_001);
  });
});

describe("what is refused", () => {
  it.each<[string, unknown]>([
    ["nothing", undefined],
    ["null", null],
    ["an empty list", []],
    ["a number", 7],
    ["texts and token ids", ["a", [1]]],
    ["a text and a token id", ["a", 1]],
    ["token ids that are none", [1.5]],
    ["deeper lists", [[[1]]]],
    ["objects", [{ text: "a" }]],
  ])("an input that is %s", (_, input) => {
    expect(read({ model: "m", input }).result).toMatchObject({
      code: "invalid_request",
      param: "input",
    });
  });

  it("no model, and members that are there twice or in another case", () => {
    expect(read({ input: "a" }).result).toMatchObject({ param: "model" });
    expect(read('{"model":"m","input":"a","input":"b"}').result).toMatchObject({
      param: "input",
    });
    expect(read('{"model":"m","Input":"a","input":"b"}').result).toMatchObject({
      param: "input",
    });
    expect(read({ model: "m", input: "a", model_region: 1 }).result).toMatchObject({
      param: "model_region",
    });
  });
});

describe("what goes upstream", () => {
  it("is the caller's own bytes where nothing differs", () => {
    const { bytes, ask } = read('{ "model":"m", "input":[1,2.0e1], "encoding_format":"base64"}');
    if (!ask) throw new Error("it was refused");
    expect(OPENAI_EMBEDDINGS.upstreamBody(bytes, ask, NAMES)).toBe(bytes);
  });

  it("has the binding's name of the model and no model_region", () => {
    const { bytes, ask } = read('{"model_region":"global","input":"a","model":"m"}');
    if (!ask) throw new Error("it was refused");
    const names = { ...NAMES, upstreamModel: "there" };
    expect(OPENAI_EMBEDDINGS.upstreamBody(bytes, ask, names).toString()).toBe(
      '{"input":"a","model":"there"}',
    );
  });
});

describe("what comes back", () => {
  const ANSWER = {
    object: "list",
    data: [{ object: "embedding", index: 0, embedding: "AAAAAA==" }],
    model: "m-2",
    usage: { prompt_tokens: 8, total_tokens: 8 },
  };
  function readAnswer(answer: object) {
    const { ask } = read({ model: "m", input: "a" });
    if (!ask) throw new Error("it was refused");
    const body = Buffer.from(JSON.stringify(answer));
    return { body, read: OPENAI_EMBEDDINGS.readAnswer(body, ask) };
  }

  it("is passed on as it came, with its usage read", () => {
    const { body, read: whole } = readAnswer(ANSWER);
    expect(whole).toMatchObject({
      usage: { tokens: { input: 8, output: 0 }, anomaly: false },
      servedModel: "m-2",
      finish: "stop",
    });
    expect(typeof whole === "string" || whole.body).toBe(body);
  });

  it.each<[string, object]>([
    ["none", { usage: undefined }],
    ["null", { usage: null }],
    ["garbage", { usage: { prompt_tokens: -1 } }],
  ])("has no usage where it is %s", (_, change) => {
    expect(readAnswer({ ...ANSWER, ...change }).read).toMatchObject({ usage: undefined });
  });

  it("is garbage without its list, and an error with one", () => {
    expect(readAnswer({ ...ANSWER, data: undefined }).read).toBe("garbage");
    expect(readAnswer({ error: { message: "no" } }).read).toBe("upstream_error");
  });
});
