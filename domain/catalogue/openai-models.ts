import type { Model } from "./types.ts";

/** A model as the shipped data writes it: released at midnight UTC, within the provider's published bounds. */
export type ModelRow = Omit<Model, "ownedBy" | "outputTokensDefault">;

interface OpenaiModel extends ModelRow {
  /** Dated names that can be asked for as well, at the same price and with the same bounds. */
  readonly snapshots?: Readonly<Record<string, number>>;
}

// The longest an image can get, by the provider's own sizing rules: models that cut tiles see at most eight of them
// beside the base; models that cut patches see at most 1,536 (10,000 in full detail from gpt-5.4 on) times a factor.
// From gpt-5.6 on full detail has no limit: 30,000 covers an image of 24 megapixels, and the rule for usage above the
// hold covers what is larger.
const TILES_GPT_4 = 1_445;
const TILES_GPT_4O_MINI = 48_169;
const TILES_GPT_5 = 1_190;
const TILES_O3 = 1_275;
const PATCHES = 1_844;
const PATCHES_MINI = 2_489;
const PATCHES_NANO = 3_779;
const PATCHES_FULL_DETAIL = 12_000;
const PATCHES_UNLIMITED = 30_000;

const long = { contextWindowTokens: 1_050_000, outputTokensMax: 128_000 };
const medium = { contextWindowTokens: 400_000, outputTokensMax: 128_000 };
const gpt41 = { contextWindowTokens: 1_047_576, outputTokensMax: 32_768 };
const gpt4o = { contextWindowTokens: 128_000, outputTokensMax: 16_384 };
const o3 = { contextWindowTokens: 200_000, outputTokensMax: 100_000 };

const embedding = {
  operation: "embeddings",
  createdUnix: 1_706_140_800,
  contextWindowTokens: 8_192,
  outputTokensMax: 0,
} as const;

/** A chat model, released on a day; its snapshots are named after their days. */
function chat(
  id: string,
  released: string,
  bounds: Pick<ModelRow, "contextWindowTokens" | "outputTokensMax">,
  imageTokensMax?: number,
  days: readonly string[] = [],
): OpenaiModel {
  return {
    id,
    operation: "chat",
    createdUnix: unixOf(released),
    ...bounds,
    ...(imageTokensMax === undefined ? {} : { imageTokensMax }),
    snapshots: Object.fromEntries(days.map((day) => [`${id}-${day}`, unixOf(day)])),
  };
}

const unixOf = (day: string) => Date.parse(day) / 1000;

/**
 * OpenAI's models that answer chat completions or make embeddings and are still served on the data version's day. Left out are models that
 * only the Responses API serves (`-pro`, `-codex`, deep research), fine-tuned ones, and those already shut down.
 */
export const OPENAI_MODELS: readonly OpenaiModel[] = [
  chat("gpt-6.1-sol", "2026-09-29", long, PATCHES_UNLIMITED),
  chat("gpt-6.1-terra", "2026-10-26", long, PATCHES_UNLIMITED),
  chat("gpt-6-astra", "2026-09-03", long, PATCHES_UNLIMITED),
  chat("gpt-6-sol", "2026-09-22", long, PATCHES_UNLIMITED),
  chat("gpt-6-luna", "2026-09-22", long, PATCHES_UNLIMITED),
  chat("gpt-5.6-sol", "2026-07-09", long, PATCHES_UNLIMITED),
  chat("gpt-5.6-terra", "2026-07-09", long, PATCHES_UNLIMITED),
  chat("gpt-5.6-luna", "2026-07-09", long, PATCHES_UNLIMITED),
  chat("gpt-5.5", "2026-04-23", long, PATCHES_FULL_DETAIL, ["2026-04-23"]),
  chat("gpt-5.4", "2026-03-05", long, PATCHES_FULL_DETAIL, ["2026-03-05"]),
  chat("gpt-5.4-mini", "2026-03-17", medium, PATCHES_MINI, ["2026-03-17"]),
  chat("gpt-5.4-nano", "2026-03-17", medium, PATCHES_NANO, ["2026-03-17"]),
  chat("gpt-5.2", "2025-12-11", medium, PATCHES, ["2025-12-11"]),
  chat("gpt-5.1", "2025-11-13", medium, PATCHES, ["2025-11-13"]),
  chat("gpt-5", "2025-08-07", medium, TILES_GPT_5, ["2025-08-07"]),
  chat("gpt-5-mini", "2025-08-07", medium, PATCHES_MINI, ["2025-08-07"]),
  chat("gpt-5-nano", "2025-08-07", medium, PATCHES_NANO, ["2025-08-07"]),
  chat("gpt-4.1", "2025-04-14", gpt41, TILES_GPT_4, ["2025-04-14"]),
  chat("gpt-4.1-mini", "2025-04-14", gpt41, PATCHES_MINI, ["2025-04-14"]),
  chat("gpt-4o", "2024-05-13", gpt4o, TILES_GPT_4, ["2024-11-20", "2024-08-06"]),
  chat("gpt-4o-mini", "2024-07-18", gpt4o, TILES_GPT_4O_MINI, ["2024-07-18"]),
  chat("o3", "2025-04-16", o3, TILES_O3, ["2025-04-16"]),
  chat("gpt-audio-1.5", "2026-02-23", gpt4o),
  chat("gpt-audio", "2025-08-28", gpt4o, undefined, ["2025-08-28"]),
  chat("gpt-audio-mini", "2025-10-06", gpt4o, undefined, ["2025-12-15"]),
  { id: "text-embedding-3-small", ...embedding },
  { id: "text-embedding-3-large", ...embedding },
];
