import type { Tokens, TokenClass } from "#domain/prices.ts";

/** Token counts as OpenAI tells them: totals that include their parts. */
export type Counts = Record<keyof typeof NO_COUNTS, number>;
export const NO_COUNTS = {
  input: 0,
  cached: 0,
  cacheWrite: 0,
  audioIn: 0,
  imageIn: 0,
  output: 0,
  reasoning: 0,
  audioOut: 0,
};

/** The `usage` object of an answer. Cache writes and image tokens are named only where there are some. */
export function usageObject(counts: Counts): Record<string, unknown> {
  return {
    prompt_tokens: counts.input,
    completion_tokens: counts.output,
    total_tokens: counts.input + counts.output,
    prompt_tokens_details: {
      cached_tokens: counts.cached,
      audio_tokens: counts.audioIn,
      ...(counts.cacheWrite > 0 && { cache_write_tokens: counts.cacheWrite }),
      ...(counts.imageIn > 0 && { image_tokens: counts.imageIn }),
    },
    completion_tokens_details: {
      reasoning_tokens: counts.reasoning,
      audio_tokens: counts.audioOut,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  };
}

/**
 * The same counts in disjoint classes, zeros left out, as the book keeps them and a right reader of the usage object
 * must come to. Parts that together pass their total are cut, in the order in which they stand here.
 */
export function disjointTokens(counts: Counts): Tokens {
  const inputParts = {
    cacheRead: counts.cached,
    cacheWriteShort: counts.cacheWrite,
    inputAudio: counts.audioIn,
    inputImage: counts.imageIn,
  };
  return {
    ...dealtOut(counts.input, inputParts, "input"),
    ...dealtOut(counts.output, { outputAudio: counts.audioOut }, "output"),
  };
}

function dealtOut(total: number, parts: Tokens, rest: TokenClass): Tokens {
  const tokens: Tokens = {};
  let left = total;
  for (const [name, count] of Object.entries({ ...parts, [rest]: total })) {
    const taken = Math.min(count, left);
    if (taken > 0) tokens[name as TokenClass] = taken;
    left -= taken;
  }
  return tokens;
}
