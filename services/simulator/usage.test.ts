import { expect, test } from "vitest";
import { disjointTokens, usageObject } from "./usage.ts";
import type { Counts } from "./usage.ts";

const counts = (some: Partial<Counts>): Counts => ({
  input: 0,
  cached: 0,
  cacheWrite: 0,
  audioIn: 0,
  imageIn: 0,
  output: 0,
  reasoning: 0,
  audioOut: 0,
  ...some,
});

test("totals that include their parts become disjoint classes; reasoning is output", () => {
  const some = { input: 100, cached: 30, cacheWrite: 20, audioIn: 10, imageIn: 5 };
  expect(disjointTokens(counts({ ...some, output: 50, reasoning: 40, audioOut: 8 }))).toEqual({
    input: 35,
    cacheRead: 30,
    cacheWriteShort: 20,
    inputAudio: 10,
    inputImage: 5,
    output: 42,
    outputAudio: 8,
  });
});

test("parts that pass their total are cut, and zeros are left out", () => {
  expect(disjointTokens(counts({ input: 10, cached: 25, cacheWrite: 5 }))).toEqual({
    cacheRead: 10,
  });
});

test("the usage object tells wrong figures as they were asked for", () => {
  expect(
    usageObject(counts({ input: 10, cached: 25, cacheWrite: 5, output: 3, reasoning: 2 })),
  ).toEqual({
    prompt_tokens: 10,
    completion_tokens: 3,
    total_tokens: 13,
    prompt_tokens_details: { cached_tokens: 25, audio_tokens: 0, cache_write_tokens: 5 },
    completion_tokens_details: {
      reasoning_tokens: 2,
      audio_tokens: 0,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  });
});
