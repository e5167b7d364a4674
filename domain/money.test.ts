import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  MICRO_MAX,
  formatDollars,
  isMicro,
  parseDollars,
  roundHalfToEven,
  roundUp,
} from "./money.ts";

describe("dollars as text", () => {
  test.each([
    ["25", 25_000_000],
    ["25.00", 25_000_000],
    ["0.000001", 1],
    ["0", 0],
    [" 10.5 ", 10_500_000],
    ["9007199254.740991", MICRO_MAX],
  ])("%j is %d micro", (text, amountMicro) => {
    expect(parseDollars(text)).toBe(amountMicro);
  });

  test.each([
    "",
    "-1",
    "+1",
    "1e3",
    "1.",
    ".5",
    "1.0000001",
    "1,00",
    "0x10",
    "NaN",
    "Infinity",
    "1 0",
    "٣",
    "9007199254.740992",
  ])("%j is no amount", (text) => {
    expect(parseDollars(text)).toBeUndefined();
  });

  test.each([
    [0, "0.00"],
    [1, "0.000001"],
    [10_000_000, "10.00"],
    [10_500_000, "10.50"],
    [1_230_000, "1.23"],
    [1_234_000, "1.234"],
    [-1_500_000, "-1.50"],
    [MICRO_MAX, "9007199254.740991"],
  ])("%d micro is written %j", (amountMicro, text) => {
    expect(formatDollars(amountMicro)).toBe(text);
  });

  test("what is written reads back as the same amount", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: MICRO_MAX }), (amountMicro) => {
        expect(parseDollars(formatDollars(amountMicro))).toBe(amountMicro);
      }),
    );
  });
});

describe("amounts", () => {
  test("are safe integers from zero to the largest amount", () => {
    expect([0, 1, MICRO_MAX].map(isMicro)).toEqual([true, true, true]);
    const others = [
      -1,
      0.5,
      MICRO_MAX + 1,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      "1",
      1n,
      null,
      undefined,
    ];
    expect(others.filter(isMicro)).toEqual([]);
  });
});

describe("rounding", () => {
  test.each([
    [0n, 0n, 0],
    [499_999n, 0n, 499_999],
    [500_000n, 0n, 500_000],
    [500_001n, 1n, -499_999],
    [1_499_999n, 1n, 499_999],
    [1_500_000n, 2n, -500_000],
    [2_500_000n, 2n, 500_000],
    [3_000_000n, 3n, 0],
  ])("%d pico is %d micro, half to even, and leaves %d", (exactPico, rounded, residualPico) => {
    expect(roundHalfToEven(exactPico)).toEqual({ micro: rounded, residualPico });
  });

  test.each([
    [0n, 0n],
    [1n, 1n],
    [999_999n, 1n],
    [1_000_000n, 1n],
    [1_000_001n, 2n],
  ])("%d pico is %d micro rounded up", (exactPico, rounded) => {
    expect(roundUp(exactPico)).toBe(rounded);
  });
});
