import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { TOKEN_CLASSES, totalInput } from "#domain/prices.ts";

import { estimateTokens } from "#services/gateway/shapes/estimate.ts";
import { readUsage } from "./usage.ts";

describe("readUsage", () => {
  it("makes OpenAI's totals disjoint", () => {
    const usage = {
      prompt_tokens: 100,
      completion_tokens: 50,
      total_tokens: 150,
      prompt_tokens_details: {
        cached_tokens: 30,
        cache_write_tokens: 20,
        audio_tokens: 10,
        image_tokens: 5,
        text_tokens: 85,
      },
      completion_tokens_details: {
        reasoning_tokens: 40,
        audio_tokens: 7,
        accepted_prediction_tokens: 3,
      },
    };
    expect(readUsage(usage)).toEqual({
      tokens: {
        input: 35,
        cacheRead: 30,
        cacheWriteShort: 20,
        inputAudio: 10,
        inputImage: 5,
        output: 43,
        outputAudio: 7,
      },
      anomaly: false,
    });
  });

  it("adds up to the provider's totals whenever the parts fit into them", () => {
    const parts = fc.record({
      text: fc.nat(),
      cached: fc.nat(),
      written: fc.nat(),
      audio: fc.nat(),
      out: fc.nat(),
      outAudio: fc.nat(),
    });
    fc.assert(
      fc.property(parts, ({ text, cached, written, audio, out, outAudio }) => {
        const read = readUsage({
          prompt_tokens: text + cached + written + audio,
          completion_tokens: out + outAudio,
          prompt_tokens_details: {
            cached_tokens: cached,
            cache_write_tokens: written,
            audio_tokens: audio,
          },
          completion_tokens_details: { audio_tokens: outAudio },
        });
        expect(read?.anomaly).toBe(false);
        expect(totalInput(read?.tokens ?? {})).toBe(text + cached + written + audio);
        expect(read?.tokens).toMatchObject({ input: text, output: out });
        for (const name of Object.keys(read?.tokens ?? {})) expect(TOKEN_CLASSES).toContain(name);
      }),
    );
  });

  it.each<[string, object, object]>([
    ["explicit zeros", { prompt_tokens: 0, completion_tokens: 0 }, { input: 0, output: 0 }],
    [
      "null details",
      {
        prompt_tokens: 1,
        completion_tokens: 2,
        prompt_tokens_details: null,
        completion_tokens_details: null,
      },
      { input: 1, output: 2 },
    ],
    [
      "null parts",
      { prompt_tokens: 1, completion_tokens: 2, prompt_tokens_details: { cached_tokens: null } },
      { input: 1, output: 2 },
    ],
    [
      "DeepSeek's cache hits",
      { prompt_tokens: 10, completion_tokens: 1, prompt_cache_hit_tokens: 4 },
      { input: 6, cacheRead: 4, output: 1 },
    ],
    [
      "Moonshot's cached tokens",
      { prompt_tokens: 10, completion_tokens: 1, cached_tokens: 4 },
      { input: 6, cacheRead: 4, output: 1 },
    ],
    [
      "Anthropic's names beside OpenAI's",
      {
        prompt_tokens: 10,
        completion_tokens: 1,
        prompt_tokens_details: { cached_tokens: 0, cache_creation_tokens: 9 },
        cache_creation_input_tokens: 9,
        cache_read_input_tokens: 0,
      },
      { input: 1, cacheWriteShort: 9, output: 1 },
    ],
  ])("reads %s", (_, usage, tokens) => {
    expect(readUsage(usage)).toEqual({ tokens, anomaly: false });
  });

  it("takes what is left as 0 and says so when parts are more than the total", () => {
    const cached = {
      prompt_tokens: 10,
      completion_tokens: 1,
      prompt_tokens_details: { cached_tokens: 11 },
    };
    expect(readUsage(cached)).toEqual({
      tokens: { input: 0, cacheRead: 11, output: 1 },
      anomaly: true,
    });
    const audio = {
      prompt_tokens: 1,
      completion_tokens: 3,
      completion_tokens_details: { audio_tokens: 4 },
    };
    expect(readUsage(audio)).toEqual({
      tokens: { input: 1, output: 0, outputAudio: 4 },
      anomaly: true,
    });
  });

  it.each([
    undefined,
    null,
    [],
    "x",
    {},
    { prompt_tokens: 1 },
    { completion_tokens: 1 },
    { prompt_tokens: -1, completion_tokens: 1 },
    { prompt_tokens: 1.5, completion_tokens: 1 },
    { prompt_tokens: "1", completion_tokens: 1 },
    { prompt_tokens: 2 ** 53, completion_tokens: 1 },
    { prompt_tokens: 1, completion_tokens: Number.POSITIVE_INFINITY },
    { prompt_tokens: 1, completion_tokens: 1, prompt_tokens_details: { cached_tokens: -1 } },
    { prompt_tokens: 1, completion_tokens: 1, prompt_tokens_details: [] },
    { prompt_tokens: 1, completion_tokens: 1, completion_tokens_details: { audio_tokens: "2" } },
  ])("does not take %j for usage", (usage) => {
    expect(readUsage(usage)).toBeUndefined();
  });
});

describe("estimateTokens", () => {
  const ASKED = {
    promptBytes: 0,
    imageTokens: 0,
    audioBytes: 0,
    isAudioOutputCompressed: false,
    outputCapTokens: 10,
  };
  const SEEN = { visibleBytes: 0, chunks: 0, audioBytes: 0 };
  it.each([
    [{}, {}, { input: 0, output: 0 }],
    [{ promptBytes: 9 }, { visibleBytes: 10, chunks: 1 }, { input: 3, output: 4 }],
    [{ promptBytes: 8 }, { visibleBytes: 10, chunks: 7 }, { input: 2, output: 7 }],
    [{ promptBytes: 1 }, { visibleBytes: 100, chunks: 7 }, { input: 1, output: 10 }],
    [{ imageTokens: 85 }, {}, { input: 0, output: 0, inputImage: 85 }],
    [{ audioBytes: 4_801 }, {}, { input: 0, output: 0, inputAudio: 2 }],
    [
      { outputCapTokens: 25 },
      { visibleBytes: 60, audioBytes: 24_000 },
      { input: 0, output: 15, outputAudio: 10 },
    ],
    [
      { isAudioOutputCompressed: true, outputCapTokens: 50 },
      { visibleBytes: 60, audioBytes: 24_000 },
      { input: 0, output: 0, outputAudio: 50 },
    ],
  ])("of %j and %j is %j", (asked, seen, tokens) => {
    expect(estimateTokens({ ...ASKED, ...asked }, { ...SEEN, ...seen })).toEqual(tokens);
  });
});
