import type { Tokens } from "#domain/prices.ts";
import type { AskBounds } from "./shape.ts";

/** A provider's usage in disjoint classes. */
export interface ReadUsage {
  readonly tokens: Tokens;
  /** The parts were more than the total: the rest was taken as 0, and a person should look at it. */
  readonly anomaly: boolean;
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

export type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The bounds of a request of text alone, before it is summed up. */
export const TEXT_ONLY: AskBounds = {
  promptBytes: 0,
  inputTokensBound: 0,
  imageCount: 0,
  remoteImageCount: 0,
  hasAudioInput: false,
  audioBytes: 0,
  hasAudioOutput: false,
  isAudioOutputCompressed: false,
  unknownSize: false,
  predictionTokensBound: 0,
};

/** What of a request can be sized: its bounds, and images and output cap of all of its answers, in tokens. */
type AskedInput = Pick<AskBounds, "promptBytes" | "audioBytes" | "isAudioOutputCompressed"> &
  Readonly<Record<"imageTokens" | "outputCapTokens", number>>;

// Ten tokens a second in and twenty out, of 16 bits, 24,000 times a second, on one channel.
const INPUT_AUDIO_BYTES_PER_TOKEN = 4_800;
const OUTPUT_AUDIO_BYTES_PER_TOKEN = 2_400;
/** Bytes that make one token of text in a hold. Natural text has 2.5 to 4. */
const HELD_BYTES_PER_TOKEN = 2;
/** How much smaller compressed audio (mp3, opus, aac, flac) is taken to be than what it sounds like. */
export const AUDIO_COMPRESSION = 6;

/** The tokens that a hold takes for so many bytes of text. */
export function textTokensBound(bytes: number): number {
  return Math.ceil(bytes / HELD_BYTES_PER_TOKEN);
}

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
