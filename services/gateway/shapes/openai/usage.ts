import type { Tokens } from "#domain/prices.ts";
import { isMembers, type Members } from "#services/gateway/json/object.ts";
import type { ReadUsage } from "#services/gateway/shapes/estimate.ts";

/**
 * Reads an OpenAI usage object into disjoint classes. OpenAI's totals contain what their details list: cached tokens,
 * cache writes, audio and images on the input side, audio on the output side. Reasoning is inside the output and is
 * priced as output. Parts count as reported; what they leave of the total is plain text, never less than 0.
 *
 * Undefined when a number is missing or is none (negative, a fraction, text, beyond 2^53): then the tokens are
 * estimated. A detail that is absent or null counts 0.
 */
export function readUsage(usage: unknown): ReadUsage | undefined {
  if (!isMembers(usage)) return undefined;
  const inDetails = detailsOf(usage["prompt_tokens_details"]);
  const outDetails = detailsOf(usage["completion_tokens_details"]);
  if (inDetails === undefined || outDetails === undefined) return undefined;
  const prompt = count(usage["prompt_tokens"]);
  const completion = count(usage["completion_tokens"]);
  // Beside OpenAI's own names: DeepSeek's, Moonshot's, and those of gateways that carry Anthropic's counts over.
  const cacheRead = firstCount(
    inDetails["cached_tokens"],
    usage["prompt_cache_hit_tokens"],
    usage["cached_tokens"],
    usage["cache_read_input_tokens"],
  );
  const cacheWrite = firstCount(
    inDetails["cache_write_tokens"],
    inDetails["cache_creation_tokens"],
    usage["cache_creation_input_tokens"],
  );
  const inputAudio = firstCount(inDetails["audio_tokens"]);
  const inputImage = firstCount(inDetails["image_tokens"]);
  const outputAudio = firstCount(outDetails["audio_tokens"]);
  if (prompt === undefined || completion === undefined) return undefined;
  if (cacheRead === undefined || cacheWrite === undefined) return undefined;
  if (inputAudio === undefined || inputImage === undefined || outputAudio === undefined)
    return undefined;

  const input = prompt - cacheRead - cacheWrite - inputAudio - inputImage;
  const output = completion - outputAudio;
  const tokens: Tokens = { input: Math.max(0, input), output: Math.max(0, output) };
  if (cacheRead > 0) tokens.cacheRead = cacheRead;
  if (cacheWrite > 0) tokens.cacheWriteShort = cacheWrite;
  if (inputAudio > 0) tokens.inputAudio = inputAudio;
  if (inputImage > 0) tokens.inputImage = inputImage;
  if (outputAudio > 0) tokens.outputAudio = outputAudio;
  return { tokens, anomaly: input < 0 || output < 0 };
}

const NO_DETAILS: Members = {};

/** The details object; an absent one has no parts, and undefined means garbage. */
function detailsOf(value: unknown): Members | undefined {
  if (value === undefined || value === null) return NO_DETAILS;
  return isMembers(value) ? value : undefined;
}

function count(value: unknown): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/** The first count that is there; 0 when none is, undefined when it is no count. */
function firstCount(...values: readonly unknown[]): number | undefined {
  for (const value of values) if (value !== undefined && value !== null) return count(value);
  return 0;
}
