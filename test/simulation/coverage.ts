import { CRASH_POINTS } from "./faults.ts";
import { harmlessCells } from "./watch.ts";
import type { World } from "./world.ts";

/** What a set of runs reached, together. */
export interface Coverage {
  readonly faults: Map<string, number>;
  readonly crashes: Map<string, number>;
  readonly cells: Map<string, number>;
}

export function emptyCoverage(): Coverage {
  return { faults: new Map(), crashes: new Map(), cells: new Map() };
}

export function addCoverage(coverage: Coverage, world: World): void {
  add(coverage.faults, world.faults.counts);
  add(coverage.crashes, world.faults.crashes);
  add(coverage.cells, world.watch.cells);
}

function add(to: Map<string, number>, counts: ReadonlyMap<string, number>): void {
  for (const [name, count] of counts) to.set(name, (to.get(name) ?? 0) + count);
}

/** Crash points at which no process ever ended. */
export function missingCrashPoints(coverage: Coverage): string[] {
  return CRASH_POINTS.filter((point) => !coverage.crashes.has(point));
}

/** Cells of the hold table that are no fault and that nothing ever reached. */
export function missingCells(coverage: Coverage): string[] {
  return harmlessCells().filter((cell) => !coverage.cells.has(cell));
}
