import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MICRO_MAX } from "./money.ts";
import { TOKEN_CLASSES, completePrices, costOf, holdOf, tierFor, totalInput } from "./prices.ts";
import type { ContextTier, TokenClass, Tokens } from "./prices.ts";

// A price of its own for every class, so that each golden sum can be told from every mix-up.
const PRICES = completePrices({
  input: 2_000_000,
  cacheRead: 200_000,
  cacheWriteShort: 2_500_000,
  cacheWriteLong: 4_000_000,
  output: 10_000_000,
  inputAudio: 32_000_000,
  outputAudio: 64_000_000,
  inputImage: 3_000_000,
});

describe("golden costs", () => {
  test.each<[string, Tokens, number, number]>([
    ["plain input", { input: 1_000 }, 2_000, 0],
    ["cached input", { cacheRead: 1_003 }, 201, -400_000],
    ["short cache write", { cacheWriteShort: 3 }, 8, -500_000],
    ["short cache write, half to the even micro below", { cacheWriteShort: 1 }, 2, 500_000],
    ["long cache write", { cacheWriteLong: 7 }, 28, 0],
    ["output with its reasoning", { output: 123 }, 1_230, 0],
    ["audio in", { inputAudio: 11 }, 352, 0],
    ["audio out", { outputAudio: 11 }, 704, 0],
    ["image", { inputImage: 765 }, 2_295, 0],
    ["one of each", Object.fromEntries(TOKEN_CLASSES.map((name) => [name, 1])), 118, -300_000],
    ["nothing", {}, 0, 0],
    ["explicit zeros", Object.fromEntries(TOKEN_CLASSES.map((name) => [name, 0])), 0, 0],
    [
      "a chat with a cached prefix",
      { input: 200, cacheRead: 1_024, cacheWriteShort: 512, output: 77 },
      2_655,
      -200_000,
    ],
  ])("%s", (_, tokens, chargedMicro, residualPico) => {
    expect(costOf(tokens, PRICES)).toEqual({ micro: chargedMicro, residualPico });
  });

  test("an explicit zero is a count and needs no price", () => {
    expect(costOf({ input: 5, inputAudio: 0 }, { input: 1_000_000 })).toEqual({
      micro: 5,
      residualPico: 0,
    });
    expect(() => costOf({ inputAudio: 1 }, { input: 1_000_000 })).toThrow(
      /no price for token class inputAudio/,
    );
  });

  test("a free class costs nothing", () => {
    expect(costOf({ cacheRead: 1_000 }, { ...PRICES, cacheRead: 0 })).toEqual({
      micro: 0,
      residualPico: 0,
    });
  });

  test("an exact sum beyond 2^53 pico stays exact", () => {
    // 5,000,000,001 × 3,000,001 pico = 15,000,005,003,000,001 pico: an odd number past what a double holds.
    const cost = costOf({ input: 5_000_000_001 }, { input: 3_000_001 });
    expect(cost).toEqual({ micro: 15_000_005_003, residualPico: 1 });
  });
});

describe("the context tier", () => {
  const tiers: ContextTier[] = [
    { fromInputTokens: 0, salePico: PRICES, costPico: PRICES },
    {
      fromInputTokens: 200_000,
      salePico: completePrices({ input: 4, output: 8 }),
      costPico: PRICES,
    },
  ];

  test.each<[string, Tokens, number]>([
    ["just below", { input: 199_999 }, 0],
    ["just below, with output", { input: 199_999, output: 50_000 }, 0],
    ["exactly at", { input: 200_000 }, 200_000],
    ["at, by cached tokens alone", { cacheRead: 200_000 }, 200_000],
    [
      "at, by all input classes together",
      inputs(40_000, 40_000, 40_000, 40_000, 20_000, 20_000),
      200_000,
    ],
    [
      "below, by all input classes together",
      inputs(40_000, 40_000, 40_000, 40_000, 20_000, 19_999),
      0,
    ],
  ])("%s the boundary", (_, tokens, fromInputTokens) => {
    expect(tierFor(tiers, totalInput(tokens)).fromInputTokens).toBe(fromInputTokens);
  });

  test("a price without tiers is a broken catalogue", () => {
    expect(() => tierFor([], 1)).toThrow(/no context tier/);
  });
});

function inputs(
  input: number,
  read: number,
  short: number,
  long: number,
  audio: number,
  image: number,
): Tokens {
  return {
    input,
    cacheRead: read,
    cacheWriteShort: short,
    cacheWriteLong: long,
    inputAudio: audio,
    inputImage: image,
  };
}

describe("fallbacks of classes that a data file leaves out", () => {
  test("caches, audio and images cost what plain input or output costs", () => {
    expect(completePrices({ input: 3, output: 7 })).toEqual({
      input: 3,
      cacheRead: 3,
      cacheWriteShort: 3,
      cacheWriteLong: 3,
      output: 7,
      inputAudio: 3,
      outputAudio: 7,
      inputImage: 3,
    });
  });

  test("a long cache write costs what a short one does, and a written zero stays", () => {
    const completed = completePrices({ input: 3, output: 7, cacheWriteShort: 4, cacheRead: 0 });
    expect([completed.cacheWriteLong, completed.cacheRead]).toEqual([4, 0]);
  });
});

describe("the largest amount", () => {
  const price = { input: 1_000_000 };
  test("can be charged, one micro more cannot", () => {
    expect(costOf({ input: MICRO_MAX }, price).micro).toBe(MICRO_MAX);
    expect(() => costOf({ input: MICRO_MAX }, { input: 1_000_001 })).toThrow(
      /passes the largest amount/,
    );
  });
  test("stands for every hold beyond it", () => {
    expect(holdOf({ input: MICRO_MAX }, { input: 999_999_999 })).toBe(MICRO_MAX);
    expect(holdOf({ input: MICRO_MAX - 1 }, price)).toBe(MICRO_MAX - 1);
  });
});

/** A request with prices of which many are half a micro, so that ties come up often. */
const request = fc.record({
  tokens: byClass(fc.oneof(fc.nat(9), fc.nat(2_000_000))),
  prices: byClass(fc.oneof(fc.constantFrom(0, 500_000, 1_500_000, 2_500_000), fc.nat(300_000_000))),
});

function byClass(value: fc.Arbitrary<number>): fc.Arbitrary<Record<TokenClass, number>> {
  return fc.record({
    input: value,
    cacheRead: value,
    cacheWriteShort: value,
    cacheWriteLong: value,
    output: value,
    inputAudio: value,
    outputAudio: value,
    inputImage: value,
  });
}

describe("any 10,000 requests", () => {
  test("sum up exactly: charges and residuals together are the rational sum, each rounded half to even", () => {
    const many = fc.array(request, { minLength: 10_000, maxLength: 10_000, size: "max" });
    fc.assert(
      fc.property(many, (requests) => {
        let [charged, residual, ties] = [0n, 0n, 0];
        let exact: Rational = [0n, 1n];
        for (const { tokens, prices } of requests) {
          const cost = costOf(tokens, prices);
          const each = exactMicro(tokens, prices);
          const [lower, upper] = neighbours(each);
          expect([BigInt(cost.micro), BigInt(holdOf(tokens, prices))]).toEqual([
            nearestEven(each),
            upper,
          ]);
          if (compare(distance(each, lower), distance(each, upper)) === 0n && lower !== upper)
            ties += 1;
          exact = add(exact, each);
          charged += BigInt(cost.micro);
          residual += BigInt(cost.residualPico);
        }
        expect(compare([charged * 1_000_000n + residual, 1_000_000n], exact)).toBe(0n);
        expect(ties).toBeGreaterThan(0);
      }),
      { numRuns: 2, endOnFailure: true },
    );
  });
});

// An arithmetic of its own, on fractions and without the code's remainder, so that both can be wrong only separately.
type Rational = readonly [numerator: bigint, denominator: bigint];

function exactMicro(
  tokens: Record<TokenClass, number>,
  prices: Record<TokenClass, number>,
): Rational {
  return TOKEN_CLASSES.map((name): Rational => [
    BigInt(tokens[name]) * BigInt(prices[name]),
    1_000_000n,
  ]).reduce(add);
}

function add([a, b]: Rational, [c, d]: Rational): Rational {
  return b === d ? [a + c, b] : [a * d + c * b, b * d];
}

function compare([a, b]: Rational, [c, d]: Rational): bigint {
  return a * d - c * b;
}

function distance([a, b]: Rational, whole: bigint): Rational {
  const difference = a - whole * b;
  return [difference < 0n ? -difference : difference, b];
}

function neighbours([a, b]: Rational): [lower: bigint, upper: bigint] {
  const lower = a / b;
  return [lower, lower * b === a ? lower : lower + 1n];
}

function nearestEven(value: Rational): bigint {
  const [lower, upper] = neighbours(value);
  const nearer = compare(distance(value, lower), distance(value, upper));
  if (nearer < 0n) return lower;
  if (nearer > 0n) return upper;
  return lower % 2n === 0n ? lower : upper;
}
