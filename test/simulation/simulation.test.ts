import { describe, expect, test } from "vitest";
import { addCoverage, emptyCoverage, missingCells, missingCrashPoints } from "./coverage.ts";
import { FAULT_KINDS } from "./faults.ts";
import { runSeed } from "./run.ts";

const SEEDS = 40;
const STEPS = 6_000;

function text(events: readonly unknown[]): string {
  return JSON.stringify(events, (_key, value: unknown) =>
    typeof value === "bigint" ? String(value) : value,
  );
}

describe("random worlds", () => {
  test(`${SEEDS} seeds keep every invariant and reach every cell and crash point`, async () => {
    const coverage = emptyCoverage();
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { world, broken } = await runSeed(seed, STEPS);
      expect(broken, `seed ${seed}: ${broken?.message}`).toBeUndefined();
      addCoverage(coverage, world);
    }
    expect(missingCells(coverage)).toEqual([]);
    expect(missingCrashPoints(coverage)).toEqual([]);
    expect(FAULT_KINDS.filter((kind) => !coverage.faults.has(kind))).toEqual([]);
  });

  test("a world without faults serves whatever fits, and seals nobody", async () => {
    const { world, broken } = await runSeed(7, 6_000, FAULT_KINDS);
    expect(broken?.message).toBeUndefined();
    expect([...world.alarms.keys()]).toEqual([]);
    const statuses = new Set(world.seen.map((seen) => seen.status));
    expect(statuses.has(200)).toBe(true);
    expect(statuses.has(503)).toBe(false);
    expect(world.watch.events.some((event) => event.type === "JournalSealed.v1")).toBe(false);
  });

  test("the same seed gives the same history, byte for byte; another seed another", async () => {
    const [one, again, other] = [
      await runSeed(11, 4_000),
      await runSeed(11, 4_000),
      await runSeed(12, 4_000),
    ];
    expect(text(one.world.watch.events)).toBe(text(again.world.watch.events));
    expect(text(one.world.seen)).toBe(text(again.world.seen));
    expect(text(one.world.watch.events)).not.toBe(text(other.world.watch.events));
  });
});
