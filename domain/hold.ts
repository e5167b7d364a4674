import { PICO_PER_MICRO } from "./money.ts";
import { holdOf, type ClassPrices, type ContextTier } from "./prices.ts";

/** What a request is reckoned to use at most, and which kinds of token it can involve at all. */
export interface HoldBounds {
  /** All tokens that the provider is reckoned to read, of every input class together: dense text can have more. */
  readonly inputTokensBound: number;
  /** All tokens that the provider may write: the cap, times the number of choices. */
  readonly outputTokensBound: number;
  readonly hasAudioInput: boolean;
  readonly hasImages: boolean;
  readonly hasAudioOutput: boolean;
}

/** The prices a hold is computed with: per class the dearest that can apply to the request. */
export type HoldPrices = Omit<ContextTier, "fromInputTokens">;

/**
 * The size of a hold: every input token at the dearest input class that can apply, every output token at the dearest
 * output class, rounded up to a whole micro. Usage within the bounds, however it divides into classes, never costs more.
 * `holdMicro` is on the sale side, `holdCostMicro` on the cost side; either is the largest amount when the sum passes it.
 */
export function holdFor(bounds: HoldBounds, { salePico, costPico }: HoldPrices) {
  return { holdMicro: holdAt(bounds, salePico), holdCostMicro: holdAt(bounds, costPico) };
}

function holdAt(bounds: HoldBounds, pico: ClassPrices): number {
  return holdOf(
    { input: bounds.inputTokensBound, output: bounds.outputTokensBound },
    { input: dearestInputPico(bounds, pico), output: dearestOutputPico(bounds, pico) },
  );
}

/**
 * How many output tokens (of all choices together) a hold within `availableMicro` could cover, for the hint of a refusal:
 * the largest `outputTokensBound` whose hold is not more than that. Undefined when not even the input fits.
 * `bounds.outputTokensBound` is the limit of the answer: what was asked for anyway.
 */
export function outputTokensThatFit(
  availableMicro: number,
  bounds: HoldBounds,
  salePico: ClassPrices,
): number | undefined {
  const inputPico = BigInt(bounds.inputTokensBound) * BigInt(dearestInputPico(bounds, salePico));
  const leftPico = BigInt(availableMicro) * PICO_PER_MICRO - inputPico;
  if (leftPico < 0n) return undefined;
  const outputPico = BigInt(dearestOutputPico(bounds, salePico));
  if (outputPico === 0n) return bounds.outputTokensBound;
  const fitting = leftPico / outputPico;
  return fitting < BigInt(bounds.outputTokensBound) ? Number(fitting) : bounds.outputTokensBound;
}

function dearestInputPico(bounds: HoldBounds, pico: ClassPrices): number {
  return Math.max(
    pico.input,
    pico.cacheRead,
    pico.cacheWriteShort,
    pico.cacheWriteLong,
    bounds.hasAudioInput ? pico.inputAudio : 0,
    bounds.hasImages ? pico.inputImage : 0,
  );
}

function dearestOutputPico(bounds: HoldBounds, pico: ClassPrices): number {
  return Math.max(pico.output, bounds.hasAudioOutput ? pico.outputAudio : 0);
}
