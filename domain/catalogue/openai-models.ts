import type { Operation } from "./types.ts";

/** A model as the shipped data writes it; the bounds are the provider's published ones. */
export interface ModelRow {
  readonly id: string;
  /** Unix seconds of the release date at midnight UTC. */
  readonly createdUnix: number;
  /** Chat where nothing is said. */
  readonly operation?: Operation;
  readonly contextWindowTokens: number;
  readonly outputTokensMax: number;
  readonly imageTokensMax?: number;
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

const embedding = {
  operation: "embeddings",
  createdUnix: 1_706_140_800,
  contextWindowTokens: 8_192,
  outputTokensMax: 0,
} as const;

/**
 * OpenAI's models that answer chat completions or make embeddings and are still served on the data version's day. Left out are models that
 * only the Responses API serves (`-pro`, `-codex`, deep research), fine-tuned ones, and those already shut down.
 */
export const OPENAI_MODELS: readonly ModelRow[] = [
  { id: "gpt-6.1-sol", createdUnix: 1_790_640_000, ...long, imageTokensMax: PATCHES_UNLIMITED },
  { id: "gpt-6.1-terra", createdUnix: 1_792_972_800, ...long, imageTokensMax: PATCHES_UNLIMITED },
  { id: "gpt-6-astra", createdUnix: 1_788_393_600, ...long, imageTokensMax: PATCHES_UNLIMITED },
  { id: "gpt-6-sol", createdUnix: 1_790_035_200, ...long, imageTokensMax: PATCHES_UNLIMITED },
  { id: "gpt-6-luna", createdUnix: 1_790_035_200, ...long, imageTokensMax: PATCHES_UNLIMITED },
  { id: "gpt-5.6-sol", createdUnix: 1_783_555_200, ...long, imageTokensMax: PATCHES_UNLIMITED },
  { id: "gpt-5.6-terra", createdUnix: 1_783_555_200, ...long, imageTokensMax: PATCHES_UNLIMITED },
  { id: "gpt-5.6-luna", createdUnix: 1_783_555_200, ...long, imageTokensMax: PATCHES_UNLIMITED },
  {
    id: "gpt-5.5",
    createdUnix: 1_776_902_400,
    ...long,
    imageTokensMax: PATCHES_FULL_DETAIL,
    snapshots: { "gpt-5.5-2026-04-23": 1_776_902_400 },
  },
  {
    id: "gpt-5.4",
    createdUnix: 1_772_668_800,
    ...long,
    imageTokensMax: PATCHES_FULL_DETAIL,
    snapshots: { "gpt-5.4-2026-03-05": 1_772_668_800 },
  },
  {
    id: "gpt-5.4-mini",
    createdUnix: 1_773_705_600,
    ...medium,
    imageTokensMax: PATCHES_MINI,
    snapshots: { "gpt-5.4-mini-2026-03-17": 1_773_705_600 },
  },
  {
    id: "gpt-5.4-nano",
    createdUnix: 1_773_705_600,
    ...medium,
    imageTokensMax: PATCHES_NANO,
    snapshots: { "gpt-5.4-nano-2026-03-17": 1_773_705_600 },
  },
  {
    id: "gpt-5.2",
    createdUnix: 1_765_411_200,
    ...medium,
    imageTokensMax: PATCHES,
    snapshots: { "gpt-5.2-2025-12-11": 1_765_411_200 },
  },
  {
    id: "gpt-5.1",
    createdUnix: 1_762_992_000,
    ...medium,
    imageTokensMax: PATCHES,
    snapshots: { "gpt-5.1-2025-11-13": 1_762_992_000 },
  },
  {
    id: "gpt-5",
    createdUnix: 1_754_524_800,
    ...medium,
    imageTokensMax: TILES_GPT_5,
    snapshots: { "gpt-5-2025-08-07": 1_754_524_800 },
  },
  {
    id: "gpt-5-mini",
    createdUnix: 1_754_524_800,
    ...medium,
    imageTokensMax: PATCHES_MINI,
    snapshots: { "gpt-5-mini-2025-08-07": 1_754_524_800 },
  },
  {
    id: "gpt-5-nano",
    createdUnix: 1_754_524_800,
    ...medium,
    imageTokensMax: PATCHES_NANO,
    snapshots: { "gpt-5-nano-2025-08-07": 1_754_524_800 },
  },
  {
    id: "gpt-4.1",
    createdUnix: 1_744_588_800,
    ...gpt41,
    imageTokensMax: TILES_GPT_4,
    snapshots: { "gpt-4.1-2025-04-14": 1_744_588_800 },
  },
  {
    id: "gpt-4.1-mini",
    createdUnix: 1_744_588_800,
    ...gpt41,
    imageTokensMax: PATCHES_MINI,
    snapshots: { "gpt-4.1-mini-2025-04-14": 1_744_588_800 },
  },
  {
    id: "gpt-4o",
    createdUnix: 1_715_558_400,
    ...gpt4o,
    imageTokensMax: TILES_GPT_4,
    snapshots: { "gpt-4o-2024-11-20": 1_732_060_800, "gpt-4o-2024-08-06": 1_722_902_400 },
  },
  {
    id: "gpt-4o-mini",
    createdUnix: 1_721_260_800,
    ...gpt4o,
    imageTokensMax: TILES_GPT_4O_MINI,
    snapshots: { "gpt-4o-mini-2024-07-18": 1_721_260_800 },
  },
  {
    id: "o3",
    createdUnix: 1_744_761_600,
    contextWindowTokens: 200_000,
    outputTokensMax: 100_000,
    imageTokensMax: TILES_O3,
    snapshots: { "o3-2025-04-16": 1_744_761_600 },
  },
  { id: "gpt-audio-1.5", createdUnix: 1_771_804_800, ...gpt4o },
  {
    id: "gpt-audio",
    createdUnix: 1_756_339_200,
    ...gpt4o,
    snapshots: { "gpt-audio-2025-08-28": 1_756_339_200 },
  },
  {
    id: "gpt-audio-mini",
    createdUnix: 1_759_708_800,
    ...gpt4o,
    snapshots: { "gpt-audio-mini-2025-12-15": 1_765_756_800 },
  },
  { id: "text-embedding-3-small", ...embedding },
  { id: "text-embedding-3-large", ...embedding },
];
