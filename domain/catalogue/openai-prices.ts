import type { ServiceTier, WrittenPrices } from "#domain/prices.ts";

/**
 * OpenAI's list prices, in pico-dollars per token ($1 per million tokens = 1,000,000). One row per model, service tier
 * and context tier. `null` means that the class has no price of its own and falls back as `completePrices` says.
 */
export type PriceRow = readonly [
  model: string,
  serviceTier: ServiceTier,
  fromInputTokens: number,
  input: number,
  cacheRead: number | null,
  cacheWriteShort: number | null,
  output: number,
  apart?: Partial<WrittenPrices>,
];

const AUDIO = { inputAudio: 32_000_000, outputAudio: 64_000_000 };
const AUDIO_MINI = { inputAudio: 10_000_000, outputAudio: 20_000_000 };

const LISTED: readonly PriceRow[] = [
  ["gpt-6.1-sol", "default", 0, 2_000_000, 100_000, 2_500_000, 10_000_000],
  ["gpt-6.1-sol", "flex", 0, 1_000_000, 50_000, 1_250_000, 5_000_000],
  ["gpt-6.1-sol", "priority", 0, 4_000_000, 200_000, 5_000_000, 20_000_000],
  ["gpt-6.1-terra", "default", 0, 1_000_000, 50_000, 1_250_000, 5_000_000],
  ["gpt-6.1-terra", "flex", 0, 500_000, 25_000, 625_000, 2_500_000],
  ["gpt-6.1-terra", "priority", 0, 2_000_000, 100_000, 2_500_000, 10_000_000],
  ["gpt-6-astra", "default", 0, 10_000_000, 1_000_000, 12_500_000, 50_000_000],
  ["gpt-6-astra", "flex", 0, 5_000_000, 500_000, 6_250_000, 25_000_000],
  ["gpt-6-astra", "priority", 0, 20_000_000, 2_000_000, 25_000_000, 100_000_000],
  ["gpt-6-sol", "default", 0, 2_000_000, 200_000, 2_500_000, 10_000_000],
  ["gpt-6-sol", "flex", 0, 1_000_000, 100_000, 1_250_000, 5_000_000],
  ["gpt-6-sol", "priority", 0, 4_000_000, 400_000, 5_000_000, 20_000_000],
  ["gpt-6-luna", "default", 0, 100_000, 10_000, 125_000, 500_000],
  ["gpt-6-luna", "flex", 0, 50_000, 5_000, 62_500, 250_000],
  ["gpt-6-luna", "priority", 0, 200_000, 20_000, 250_000, 1_000_000],
  ["gpt-5.6-sol", "default", 0, 4_000_000, 400_000, 5_000_000, 20_000_000],
  ["gpt-5.6-sol", "flex", 0, 2_000_000, 200_000, 2_500_000, 10_000_000],
  ["gpt-5.6-sol", "priority", 0, 8_000_000, 800_000, 10_000_000, 40_000_000],
  ["gpt-5.6-terra", "default", 0, 2_000_000, 200_000, 2_500_000, 12_000_000],
  ["gpt-5.6-terra", "flex", 0, 1_000_000, 100_000, 1_250_000, 6_000_000],
  ["gpt-5.6-terra", "priority", 0, 4_000_000, 400_000, 5_000_000, 24_000_000],
  ["gpt-5.6-luna", "default", 0, 200_000, 20_000, 250_000, 1_200_000],
  ["gpt-5.6-luna", "flex", 0, 100_000, 10_000, 125_000, 600_000],
  ["gpt-5.6-luna", "priority", 0, 400_000, 40_000, 500_000, 2_400_000],
  ["gpt-5.5", "default", 0, 5_000_000, 500_000, null, 30_000_000],
  ["gpt-5.5", "flex", 0, 2_500_000, 250_000, null, 15_000_000],
  ["gpt-5.5", "priority", 0, 12_500_000, 1_250_000, null, 75_000_000],
  ["gpt-5.4", "default", 0, 2_500_000, 250_000, null, 15_000_000],
  ["gpt-5.4", "flex", 0, 1_250_000, 130_000, null, 7_500_000],
  ["gpt-5.4", "priority", 0, 5_000_000, 500_000, null, 30_000_000],
  ["gpt-5.4-mini", "default", 0, 750_000, 75_000, null, 4_500_000],
  ["gpt-5.4-mini", "flex", 0, 375_000, 37_500, null, 2_250_000],
  ["gpt-5.4-mini", "priority", 0, 1_500_000, 150_000, null, 9_000_000],
  ["gpt-5.4-nano", "default", 0, 200_000, 20_000, null, 1_250_000],
  ["gpt-5.4-nano", "flex", 0, 100_000, 10_000, null, 625_000],
  ["gpt-5.2", "default", 0, 1_750_000, 175_000, null, 14_000_000],
  ["gpt-5.2", "flex", 0, 875_000, 87_500, null, 7_000_000],
  ["gpt-5.2", "priority", 0, 3_500_000, 350_000, null, 28_000_000],
  ["gpt-5.1", "default", 0, 1_250_000, 125_000, null, 10_000_000],
  ["gpt-5.1", "flex", 0, 625_000, 62_500, null, 5_000_000],
  ["gpt-5.1", "priority", 0, 2_500_000, 250_000, null, 20_000_000],
  ["gpt-5", "default", 0, 1_250_000, 125_000, null, 10_000_000],
  ["gpt-5", "flex", 0, 625_000, 62_500, null, 5_000_000],
  ["gpt-5", "priority", 0, 2_500_000, 250_000, null, 20_000_000],
  ["gpt-5-mini", "default", 0, 250_000, 25_000, null, 2_000_000],
  ["gpt-5-mini", "flex", 0, 125_000, 12_500, null, 1_000_000],
  ["gpt-5-mini", "priority", 0, 450_000, 45_000, null, 3_600_000],
  ["gpt-5-nano", "default", 0, 50_000, 5_000, null, 400_000],
  ["gpt-5-nano", "flex", 0, 25_000, 2_500, null, 200_000],
  ["gpt-4.1", "default", 0, 2_000_000, 500_000, null, 8_000_000],
  ["gpt-4.1", "priority", 0, 3_500_000, 875_000, null, 14_000_000],
  ["gpt-4.1-mini", "default", 0, 400_000, 100_000, null, 1_600_000],
  ["gpt-4.1-mini", "priority", 0, 700_000, 175_000, null, 2_800_000],
  ["gpt-4o", "default", 0, 2_500_000, 1_250_000, null, 10_000_000],
  ["gpt-4o", "priority", 0, 4_250_000, 2_125_000, null, 17_000_000],
  ["gpt-4o-mini", "default", 0, 150_000, 75_000, null, 600_000],
  ["gpt-4o-mini", "priority", 0, 250_000, 125_000, null, 1_000_000],
  ["o3", "default", 0, 2_000_000, 500_000, null, 8_000_000],
  ["o3", "flex", 0, 1_000_000, 250_000, null, 4_000_000],
  ["o3", "priority", 0, 3_500_000, 875_000, null, 14_000_000],
  ["gpt-audio-1.5", "default", 0, 2_500_000, null, null, 10_000_000, AUDIO],
  ["gpt-audio", "default", 0, 2_500_000, null, null, 10_000_000, AUDIO],
  ["gpt-audio-mini", "default", 0, 600_000, null, null, 2_400_000, AUDIO_MINI],
  ["text-embedding-3-small", "default", 0, 20_000, null, null, 0],
  ["text-embedding-3-large", "default", 0, 130_000, null, null, 0],
];

// Where the list says "more than 272K" the long rates begin at 272,001 input tokens, where it says "under 272K" for the
// short ones at 272,000. Beyond it a whole request costs twice the input and cache rates and one and a half times the
// output rate. `priority` is what OpenAI sells as "fast mode". Its list gives gpt-5.4 to gpt-5.6 no fast rates for long
// contexts, where it serves the default tier; the same factors stand here, should a response ever say otherwise.
const LONG_FROM: ReadonlyMap<string, number> = new Map([
  ["gpt-6.1-sol", 272_001],
  ["gpt-6.1-terra", 272_001],
  ["gpt-6-astra", 272_000],
  ["gpt-6-sol", 272_001],
  ["gpt-6-luna", 272_001],
  ["gpt-5.6-sol", 272_000],
  ["gpt-5.6-terra", 272_000],
  ["gpt-5.6-luna", 272_000],
  ["gpt-5.5", 272_000],
  ["gpt-5.4", 272_000],
]);

/** The list with its long contexts, each behind the short one of its service tier. */
export const OPENAI_PRICES: readonly PriceRow[] = LISTED.flatMap((row): PriceRow[] => {
  const [model, serviceTier, , input, cacheRead, cacheWriteShort, output] = row;
  const from = LONG_FROM.get(model);
  if (from === undefined) return [row];
  const [read, write] = [cacheRead && 2 * cacheRead, cacheWriteShort && 2 * cacheWriteShort];
  return [row, [model, serviceTier, from, 2 * input, read, write, 1.5 * output]];
});
