/**
 * Money words. Amounts are integers in micro-dollars and live in names that end in `Micro`;
 * prices are integers in pico-dollars per token and live in names that end in `Pico`.
 * A million pico is one micro; a million micro is one US dollar.
 */

export const PICO_PER_MICRO = 1_000_000n;
const MICRO_PER_DOLLAR = 1_000_000n;

/** The largest amount that any account, hold or event may carry: 2^53 - 1 micro, about $9.0 billion. */
export const MICRO_MAX = Number.MAX_SAFE_INTEGER;

/** True for an amount that may stand in an event: a safe integer, zero or more. */
export function isMicro(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** Rounds pico to micro, half to even. `residualPico` is what rounding left: exact = micro × 10^6 + residual. */
export function roundHalfToEven(exactPico: bigint): { micro: bigint; residualPico: number } {
  const floor = exactPico / PICO_PER_MICRO;
  const rest = exactPico % PICO_PER_MICRO;
  const twice = rest * 2n;
  const up = twice > PICO_PER_MICRO || (twice === PICO_PER_MICRO && floor % 2n === 1n);
  const rounded = up ? floor + 1n : floor;
  return { micro: rounded, residualPico: Number(exactPico - rounded * PICO_PER_MICRO) };
}

/** Rounds pico up to the next whole micro: holds never set aside too little. */
export function roundUp(exactPico: bigint): bigint {
  return (exactPico + PICO_PER_MICRO - 1n) / PICO_PER_MICRO;
}

/**
 * Reads dollars written as text ("25", "25.00", "0.000001"): at most six decimals, no sign, no exponent.
 * Returns micro, or undefined when the text is not such an amount or passes {@link MICRO_MAX}.
 */
export function parseDollars(text: string): number | undefined {
  const match = /^(\d{1,10})(?:\.(\d{1,6}))?$/.exec(text.trim());
  if (!match) return undefined;
  const value =
    BigInt(match[1] ?? "0") * MICRO_PER_DOLLAR + BigInt((match[2] ?? "").padEnd(6, "0"));
  return value <= BigInt(MICRO_MAX) ? Number(value) : undefined;
}

/** Writes micro as dollars with at least two and at most six decimals: 10000000 → "10.00", 1 → "0.000001". */
export function formatDollars(amountMicro: number): string {
  const sign = amountMicro < 0 ? "-" : "";
  const amount = BigInt(Math.abs(amountMicro));
  const decimals = String(amount % MICRO_PER_DOLLAR)
    .padStart(6, "0")
    .replace(/0{1,4}$/, "");
  return `${sign}${amount / MICRO_PER_DOLLAR}.${decimals}`;
}
