import { CRASH_POINTS, type Death } from "./faults.ts";
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

/** Crash points of worlds of these kinds at which no process ever ended. */
export function missingCrashPoints(coverage: Coverage, deaths: Iterable<Death>): string[] {
  const points = [...deaths].flatMap((death) => CRASH_POINTS[death]);
  return points.filter((point) => !coverage.crashes.has(point));
}

/** Cells of the hold table that are no fault and that nothing ever reached. */
export function missingCells(coverage: Coverage): string[] {
  return harmlessCells().filter((cell) => !coverage.cells.has(cell));
}
