import {
  completePrices,
  eachClass,
  type ClassPrices,
  type ContextTier,
  type Price,
} from "#domain/prices.ts";
import type { ModelRow } from "./openai-models.ts";
import type { OutputCapName } from "./types.ts";

export interface SimulatorModel extends ModelRow {
  readonly outputCapName: OutputCapName;
  readonly price: Price;
}

const COST_PERCENT = 80;
const createdUnix = 1_795_219_200; // 2026-11-21
const outputCapName: OutputCapName = "max_completion_tokens";
const chat = { operation: "chat", createdUnix, outputCapName } as const;
const small = { ...chat, contextWindowTokens: 128_000, outputTokensMax: 16_384 };
const large = { ...chat, contextWindowTokens: 1_000_000, outputTokensMax: 65_536 };

/**
 * A context tier of the simulator. The cost side is a fifth below the sale side, so that a mix-up of the two shows in a
 * sum; sale prices divide by five, which keeps the cost an integer.
 */
function tier(fromInputTokens: number, salePico: ClassPrices): ContextTier {
  return { fromInputTokens, salePico, costPico: eachClass((name) => cost(salePico[name])) };
}

function cost(salePico: number): number {
  const pico = (salePico * COST_PERCENT) / 100;
  if (!Number.isSafeInteger(pico))
    throw new RangeError(`a price of ${salePico} pico has no whole cost`);
  return pico;
}

/** Distinct prices for all classes, in proportion to one base price. */
function spread(basePico: number): ClassPrices {
  return {
    input: basePico,
    cacheRead: basePico / 10,
    cacheWriteShort: (basePico * 5) / 4,
    cacheWriteLong: basePico * 2,
    output: basePico * 5,
    inputAudio: basePico * 8,
    outputAudio: basePico * 16,
    inputImage: (basePico * 3) / 2,
  };
}

/** One price for every class: the model for sums that a reader can do in the head. */
const flat = (pico: number) => completePrices({ input: pico, output: pico });

const only = (salePico: ClassPrices): Price => ({ default: [tier(0, salePico)] });

/** The simulated upstream's models. Only these names lead to it. */
export const SIMULATOR_MODELS: readonly SimulatorModel[] = [
  {
    id: "sim-flat",
    ...large,
    imageTokensMax: 1_500,
    outputCapName: "max_tokens",
    price: only(flat(1_000_000)),
  },
  { id: "sim-small", ...small, outputCapName: "max_tokens", price: only(spread(200_000)) },
  { id: "sim-large", ...large, price: only(spread(3_000_000)) },
  {
    id: "sim-tiers",
    ...large,
    price: {
      default: [tier(0, spread(2_000_000)), tier(200_000, spread(4_000_000))],
      flex: [tier(0, spread(1_000_000)), tier(200_000, spread(2_000_000))],
      priority: [tier(0, spread(5_000_000)), tier(200_000, spread(10_000_000))],
    },
  },
  { id: "sim-vision", ...small, imageTokensMax: 2_000, price: only(spread(1_000_000)) },
  { id: "sim-audio", ...small, price: only(spread(2_400_000)) },
  {
    id: "sim-embed",
    createdUnix,
    operation: "embeddings",
    contextWindowTokens: 8_192,
    outputTokensMax: 0,
    outputCapName: "max_tokens",
    price: only(flat(100_000)),
  },
];
