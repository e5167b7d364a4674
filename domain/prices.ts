import { roundHalfToEven, roundUp, MICRO_MAX } from "./money.ts";

/**
 * The disjoint classes a token is counted in. `output` includes reasoning; the two cache writes are the
 * short-lived (5 or 30 minutes) and the long-lived (1 or 12 hours) one.
 */
export const TOKEN_CLASSES = [
  "input",
  "cacheRead",
  "cacheWriteShort",
  "cacheWriteLong",
  "output",
  "inputAudio",
  "outputAudio",
  "inputImage",
] as const;
export type TokenClass = (typeof TOKEN_CLASSES)[number];

/** Token counts by class; a class that is absent counts zero. */
export type Tokens = Partial<Record<TokenClass, number>>;

/** Pico-dollars per token by class. Complete: a class without a price of its own has been given its fallback. */
export type ClassPrices = Readonly<Record<TokenClass, number>>;

/** What a data file writes: `input` and `output` always, the others only where they differ from their fallback. */
export type WrittenPrices = { input: number; output: number } & Partial<Record<TokenClass, number>>;

/** The prices that hold from a number of input tokens on (all input classes together): sale to the organization, cost to us. */
export interface ContextTier {
  readonly fromInputTokens: number;
  readonly salePico: ClassPrices;
  readonly costPico: ClassPrices;
}

/** The provider's service tiers that have prices of their own. */
export type ServiceTier = "default" | "flex" | "priority";

/** The price of a binding: per service tier its context tiers, ascending, the first from 0. `default` always exists. */
export type Price = Readonly<Partial<Record<ServiceTier, readonly ContextTier[]>>> & {
  readonly default: readonly ContextTier[];
};

/** A price for each class. */
export function eachClass(priceOf: (name: TokenClass) => number): ClassPrices {
  return Object.fromEntries(TOKEN_CLASSES.map((name) => [name, priceOf(name)])) as ClassPrices;
}

/** Fills in the classes a data file leaves out: audio, images and caches cost what plain input or output costs. */
export function completePrices(written: WrittenPrices): ClassPrices {
  const { input, output, cacheWriteShort = input } = written;
  return {
    cacheRead: input,
    cacheWriteShort,
    cacheWriteLong: cacheWriteShort,
    inputAudio: input,
    outputAudio: output,
    inputImage: input,
    ...written,
  };
}

const INPUT_CLASSES = TOKEN_CLASSES.filter((name) => !name.startsWith("output"));

/** All tokens that the provider read: the size that chooses the context tier, cached ones included. */
export function totalInput(tokens: Tokens): number {
  return INPUT_CLASSES.reduce((sum, name) => sum + (tokens[name] ?? 0), 0);
}

/** All output tokens, of text and of audio. */
export function totalOutput(tokens: Tokens): number {
  return (tokens.output ?? 0) + (tokens.outputAudio ?? 0);
}

/** The context tier that a request of this many input tokens falls into; it reprices the whole request. */
export function tierFor(tiers: readonly ContextTier[], inputTokens: number): ContextTier {
  const chosen = tiers.findLast((tier) => tier.fromInputTokens <= inputTokens);
  if (!chosen) throw new RangeError("a price has no context tier");
  return chosen;
}

/** The exact sum of tokens × price, in pico. BigInt, because it can pass 2^53. */
export function exactPico(tokens: Tokens, prices: Partial<ClassPrices>): bigint {
  let sum = 0n;
  for (const name of TOKEN_CLASSES) {
    const count = tokens[name];
    if (!count) continue;
    const price = prices[name];
    if (price === undefined) throw new RangeError(`no price for token class ${name}`);
    sum += BigInt(count) * BigInt(price);
  }
  return sum;
}

/** A request's cost: the exact sum, rounded once, half to even. Throws past {@link MICRO_MAX}. */
export function costOf(tokens: Tokens, prices: Partial<ClassPrices>) {
  const { micro, residualPico } = roundHalfToEven(exactPico(tokens, prices));
  if (micro > BigInt(MICRO_MAX)) throw new RangeError("a cost passes the largest amount");
  return { micro: Number(micro), residualPico };
}

/** The same sum rounded up, for holds; the largest amount stands for anything beyond it (no balance can pay it). */
export function holdOf(tokens: Tokens, prices: Partial<ClassPrices>): number {
  const rounded = roundUp(exactPico(tokens, prices));
  return rounded > BigInt(MICRO_MAX) ? MICRO_MAX : Number(rounded);
}
