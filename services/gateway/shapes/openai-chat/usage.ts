import type { Tokens } from "#domain/prices.ts";

/** A provider's usage in disjoint classes. */
export interface ReadUsage {
  readonly tokens: Tokens;
  /** The parts were more than the total: the rest was taken as 0, and a person should look at it. */
  readonly anomaly: boolean;
}

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
  const prompt = count(usage["prompt_tokens"]);
  const completion = count(usage["completion_tokens"]);
  // Beside OpenAI's own names: DeepSeek's, Moonshot's, and those of gateways that carry Anthropic's counts over.
  const cacheRead = firstCount(
    inDetails?.["cached_tokens"],
    usage["prompt_cache_hit_tokens"],
    usage["cached_tokens"],
    usage["cache_read_input_tokens"],
  );
  const cacheWrite = firstCount(
    inDetails?.["cache_write_tokens"],
    inDetails?.["cache_creation_tokens"],
    usage["cache_creation_input_tokens"],
  );
  const inputAudio = firstCount(inDetails?.["audio_tokens"]);
  const inputImage = firstCount(inDetails?.["image_tokens"]);
  const outputAudio = firstCount(outDetails?.["audio_tokens"]);
  if (
    prompt === undefined ||
    completion === undefined ||
    inDetails === undefined ||
    outDetails === undefined
  )
    return undefined;
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

type Members = Readonly<Record<string, unknown>>;

function isMembers(value: unknown): value is Members {
  return typeof value === "object" && value !== null && !Array.isArray(value);
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

/** What of an answer was seen to go by. */
export interface SeenOutput {
  /** UTF-8 bytes of text. */
  readonly visibleBytes: number;
  /** Chunks that showed something. */
  readonly chunks: number;
  /** Decoded bytes of audio. */
  readonly audioBytes: number;
}

/** What of a request can be sized, for the estimate of an answer without usage. */
export interface AskedInput {
  readonly promptBytes: number;
  /** All images together, each at the catalogue's bound for one. */
  readonly imageTokens: number;
  /** Decoded bytes of audio, as if it were uncompressed. */
  readonly audioBytes: number;
  readonly isAudioOutputCompressed: boolean;
  /** Of all answers of the request together. */
  readonly outputCapTokens: number;
}

// Ten tokens a second in and twenty out, of 16 bits, 24,000 times a second, on one channel.
const INPUT_AUDIO_BYTES_PER_TOKEN = 4_800;
const OUTPUT_AUDIO_BYTES_PER_TOKEN = 2_400;
/** How much smaller compressed audio (mp3, opus, aac, flac) is taken to be than what it sounds like. */
export const AUDIO_COMPRESSION = 6;

/**
 * The tokens of an answer that came without usage. In: a quarter of the prompt's bytes, the images, the audio by its
 * bytes. Out: a third of the visible bytes, at least one token for each chunk that showed something, and the audio by
 * its bytes; together at most the cap. Hidden reasoning and files cannot be seen: what the provider may bill for them is
 * booked beside the charge as unbilled. A class of which there is nothing is left out, but for plain text.
 */
export function estimateTokens(asked: AskedInput, seen: SeenOutput): Tokens {
  const { imageTokens, outputCapTokens } = asked;
  const inputAudio = Math.ceil(asked.audioBytes / INPUT_AUDIO_BYTES_PER_TOKEN);
  const heard = seen.audioBytes * (asked.isAudioOutputCompressed ? AUDIO_COMPRESSION : 1);
  const outputAudio = Math.min(outputCapTokens, Math.ceil(heard / OUTPUT_AUDIO_BYTES_PER_TOKEN));
  const output = Math.max(Math.ceil(seen.visibleBytes / 3), seen.chunks);
  return {
    input: Math.ceil(asked.promptBytes / 4),
    output: Math.min(output, outputCapTokens - outputAudio),
    ...(imageTokens > 0 ? { inputImage: imageTokens } : {}),
    ...(inputAudio > 0 ? { inputAudio } : {}),
    ...(outputAudio > 0 ? { outputAudio } : {}),
  };
}
