import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { buildCatalogue } from "./catalogue/build.ts";
import { holdPrices, pricesAt, serviceTiersFor } from "./catalogue/lookup.ts";
import type { Binding } from "./catalogue/types.ts";
import { holdFor, outputTokensThatFit } from "./hold.ts";
import type { HoldBounds } from "./hold.ts";
import { MICRO_MAX } from "./money.ts";
import { TOKEN_CLASSES, costOf, totalInput } from "./prices.ts";
import type { ClassPrices, ContextTier, Price, TokenClass, Tokens } from "./prices.ts";

const TEXT = { hasAudioInput: false, hasImages: false, hasAudioOutput: false };
const PRICES: ClassPrices = {
  input: 2_000_000,
  cacheRead: 200_000,
  cacheWriteShort: 2_500_000,
  cacheWriteLong: 3_000_001,
  output: 10_000_000,
  inputAudio: 32_000_000,
  outputAudio: 64_000_000,
  inputImage: 5_000_000,
};

function sides(salePico: ClassPrices, costPico: ClassPrices = salePico) {
  return { salePico, costPico };
}

describe("the size of a hold", () => {
  test.each<[string, Partial<HoldBounds>, number]>([
    ["input at its dearest text class, rounded up", { inputTokensBound: 1 }, 4],
    ["output", { outputTokensBound: 3 }, 30],
    ["both, rounded once", { inputTokensBound: 3, outputTokensBound: 1 }, 20],
    ["images", { inputTokensBound: 10, hasImages: true }, 50],
    ["audio in", { inputTokensBound: 10, hasAudioInput: true, hasImages: true }, 320],
    ["audio out", { outputTokensBound: 10, hasAudioOutput: true }, 640],
    ["nothing", {}, 0],
  ])("%s", (_, bounds, holdMicro) => {
    const full = { inputTokensBound: 0, outputTokensBound: 0, ...TEXT, ...bounds };
    expect(holdFor(full, sides(PRICES)).holdMicro).toBe(holdMicro);
  });

  test("has a cost side of its own", () => {
    const [flat] =
      buildCatalogue({ openai: false, simulator: true, processingArea: "us" }).bindings.get(
        "sim-flat",
      ) ?? [];
    if (!flat) throw new Error("sim-flat has no binding");
    const prices = holdPrices([flat], undefined, 1_000);
    const hold = holdFor({ inputTokensBound: 1_000, outputTokensBound: 9_000, ...TEXT }, prices);
    expect(hold).toEqual({ holdMicro: 10_000, holdCostMicro: 8_000 });
  });

  test("is the largest amount when the sum passes it", () => {
    const bounds = { inputTokensBound: MICRO_MAX, outputTokensBound: MICRO_MAX, ...TEXT };
    expect(holdFor(bounds, sides(PRICES))).toEqual({
      holdMicro: MICRO_MAX,
      holdCostMicro: MICRO_MAX,
    });
  });

  test("considers every text class that an input token can be counted in", () => {
    for (const name of ["input", "cacheRead", "cacheWriteShort", "cacheWriteLong"] as const) {
      const bounds = { inputTokensBound: 1, outputTokensBound: 0, ...TEXT };
      expect(holdFor(bounds, sides({ ...PRICES, [name]: 9_000_000 })).holdMicro).toBe(9);
    }
  });
});

describe("output tokens that fit", () => {
  const bounds = { inputTokensBound: 10, outputTokensBound: 1_000, ...TEXT };
  // The input holds 30.00001 micro.
  test.each([
    [30, undefined],
    [31, 0],
    [40, 0],
    [41, 1],
    [131, 10],
    [-5, undefined],
    [MICRO_MAX, 1_000],
  ])("in %d micro: %j", (availableMicro, tokens) => {
    expect(outputTokensThatFit(availableMicro, bounds, PRICES)).toBe(tokens);
  });

  test("are none, which is not the same as no room for the input, when the input takes it all", () => {
    const whole = { ...PRICES, cacheWriteLong: 3_000_000 };
    expect(outputTokensThatFit(30, bounds, whole)).toBe(0);
    expect(outputTokensThatFit(29, bounds, whole)).toBeUndefined();
  });

  test("are what was asked for when output is free", () => {
    expect(outputTokensThatFit(31, bounds, { ...PRICES, output: 0 })).toBe(1_000);
  });

  test("are exactly as many as make a hold that is available", () => {
    fc.assert(
      fc.property(
        fc.nat(100_000),
        fc.nat(5_000),
        fc.nat(3_000_000),
        (availableMicro, inputTokensBound, outputPico) => {
          const prices = { ...PRICES, output: outputPico };
          const asked = { ...TEXT, inputTokensBound, outputTokensBound: 5_000 };
          const holdOf = (outputTokensBound: number) =>
            holdFor({ ...asked, outputTokensBound }, sides(prices)).holdMicro;
          const fitting = outputTokensThatFit(availableMicro, asked, prices);
          if (fitting === undefined) {
            expect(holdOf(0)).toBeGreaterThan(availableMicro);
          } else {
            expect(holdOf(fitting)).toBeLessThanOrEqual(availableMicro);
            if (fitting < 5_000) expect(holdOf(fitting + 1)).toBeGreaterThan(availableMicro);
          }
        },
      ),
    );
  });
});

const shipped = [
  ...buildCatalogue({
    openai: { processingArea: "us", pinsServiceTier: true },
    simulator: true,
    processingArea: "us",
  }).bindings.values(),
].flat();
const [template] = shipped;
if (!template) throw new Error("nothing ships");

const classPrices: fc.Arbitrary<ClassPrices> = fc
  .array(fc.nat(100_000_000), { minLength: TOKEN_CLASSES.length, maxLength: TOKEN_CLASSES.length })
  .map(
    (pico) =>
      Object.fromEntries(TOKEN_CLASSES.map((name, i) => [name, pico[i]])) as Record<
        TokenClass,
        number
      >,
  );

function contextTier(fromInputTokens: number): fc.Arbitrary<ContextTier> {
  return fc.record({
    fromInputTokens: fc.constant(fromInputTokens),
    salePico: classPrices,
    costPico: classPrices,
  });
}

const contextTiers = fc.oneof(
  fc.tuple(contextTier(0)),
  fc.tuple(contextTier(0), contextTier(100)),
  fc.tuple(contextTier(0), contextTier(100), contextTier(10_000)),
);
const anyPrice: fc.Arbitrary<Price> = fc.record(
  { default: contextTiers, flex: contextTiers, priority: contextTiers },
  { requiredKeys: ["default"] },
);
const anyBinding: fc.Arbitrary<Binding> = fc.oneof(
  fc.constantFrom(...shipped),
  anyPrice.map((price) => ({ ...template, price })),
);

/** Counts near the places where context tiers begin, and some anywhere. */
const count = fc.oneof(
  fc.nat(3),
  ...[100, 10_000, 200_000, 272_000].map((start) => fc.integer({ min: start - 2, max: start + 2 })),
  fc.nat(2_000_000),
);

/** A request's kinds of token, what it used, and bounds that hold the usage tightly or with room to spare. */
const request = fc
  .record({
    hasAudioInput: fc.boolean(),
    hasImages: fc.boolean(),
    hasAudioOutput: fc.boolean(),
    used: fc.subarray([...TOKEN_CLASSES], { minLength: 1 }),
    counts: fc.array(count, { minLength: TOKEN_CLASSES.length, maxLength: TOKEN_CLASSES.length }),
    spareInput: fc.oneof(fc.constant(0), fc.nat(300_000)),
    spareOutput: fc.oneof(fc.constant(0), fc.nat(300_000)),
  })
  .map(({ used, counts, spareInput, spareOutput, ...kinds }) => {
    const possible = used.filter(
      (name) =>
        (kinds.hasAudioInput || name !== "inputAudio") &&
        (kinds.hasImages || name !== "inputImage") &&
        (kinds.hasAudioOutput || name !== "outputAudio"),
    );
    const tokens: Tokens = Object.fromEntries(possible.map((name, i) => [name, counts[i]]));
    const inputTokensBound = totalInput(tokens) + spareInput;
    const outputTokensBound = (tokens.output ?? 0) + (tokens.outputAudio ?? 0) + spareOutput;
    return { tokens, bounds: { ...kinds, inputTokensBound, outputTokensBound } };
  });

test("a hold covers any usage within its bounds, whichever candidate serves it at whichever tier can apply", () => {
  fc.assert(
    fc.property(
      fc.array(anyBinding, { minLength: 1, maxLength: 3 }),
      fc.constantFrom(undefined, "auto", "default", "flex", "priority", "fast", "scale"),
      request,
      (bindings, requestedTier, { tokens, bounds }) => {
        const prices = holdPrices(bindings, requestedTier, bounds.inputTokensBound);
        const hold = holdFor(bounds, prices);
        for (const { price, host } of bindings) {
          for (const served of serviceTiersFor(requestedTier, host)) {
            const { salePico, costPico } = pricesAt(price, served, totalInput(tokens));
            expect(costOf(tokens, salePico).micro).toBeLessThanOrEqual(hold.holdMicro);
            expect(costOf(tokens, costPico).micro).toBeLessThanOrEqual(hold.holdCostMicro);
          }
        }
      },
    ),
    { numRuns: 2_000 },
  );
});
