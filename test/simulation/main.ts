import { parseArgs } from "node:util";
import { CRASH_POINTS, FAULT_KINDS, type FaultKind } from "./faults.ts";
import { addCoverage, emptyCoverage, missingCells, missingCrashPoints } from "./coverage.ts";
import { runSeed, type RunResult } from "./run.ts";
import { shrink } from "./shrink.ts";

const USAGE = `Runs simulated worlds: the real services on in-memory ports under a virtual clock and one seed.

  node test/simulation/main.ts --seed 42 [--steps 5000] [--off kind,kind]
  node test/simulation/main.ts --seeds 1..200 [--steps 5000]

Prints a line for each seed. On a broken invariant it prints the shortest run found that breaks it, and exits 1.
Kinds of fault that --off takes: ${FAULT_KINDS.join(", ")}
`;

function fail(message: string): never {
  console.error(`${message}\n\n${USAGE}`);
  process.exit(2);
}

function wholeNumber(text: string, name: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) fail(`--${name} takes a whole number`);
  return value;
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      seeds: { type: "string" },
      steps: { type: "string", default: "5000" },
      off: { type: "string", default: "" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const range = /^(\d+)\.\.(\d+)$/.exec(values.seeds ?? "");
  if (values.seeds !== undefined && !range) fail("--seeds takes a range: 1..200");
  const seed = wholeNumber(values.seed ?? "42", "seed");
  const off = values.off.split(",").filter((kind) => kind !== "");
  for (const kind of off)
    if (!FAULT_KINDS.some((known) => known === kind)) fail(`'${kind}' is no kind of fault`);
  return {
    first: range ? Number(range[1]) : seed,
    last: range ? Number(range[2]) : seed,
    steps: wholeNumber(values.steps, "steps"),
    off: off as FaultKind[],
  };
}

function lineOf(result: RunResult): string {
  const { seed, steps, requests, virtualMs, broken, world } = result;
  const faults = [...world.faults.counts.values()].reduce((sum, count) => sum + count, 0);
  const crashes = [...world.faults.crashes.values()].reduce((sum, count) => sum + count, 0);
  const how = broken ? broken.message : "ok";
  return `seed ${seed}: ${steps} steps, ${Math.round(virtualMs / 1000)} s, ${requests} requests, ${world.watch.events.length} events, ${faults} faults, ${crashes} crashes: ${how}`;
}

function counted(title: string, counts: ReadonlyMap<string, number>): void {
  const entries = [...counts].sort(([one], [other]) => (one < other ? -1 : 1));
  console.log(
    `${title}: ${entries.map(([name, count]) => `${name} ${count}`).join(", ") || "none"}`,
  );
}

const { first, last, steps, off } = readOptions();
const coverage = emptyCoverage();
const begun = performance.now();
let stepsDone = 0;
for (let seed = first; seed <= last; seed++) {
  const result = await runSeed(seed, steps, off);
  stepsDone += result.steps;
  addCoverage(coverage, result.world);
  console.log(lineOf(result));
  if (result.broken) {
    const shortest = await shrink(result, steps, off);
    console.log(
      `\nshortest: --seed ${seed} --steps ${shortest.steps}${shortest.off.length > 0 ? ` --off ${shortest.off.join(",")}` : ""}\n${shortest.result.broken?.message}\n`,
    );
    console.log(shortest.history.join("\n"));
    process.exit(1);
  }
}
const seconds = (performance.now() - begun) / 1000;
const seeds = last - first + 1;
counted("\nfaults", coverage.faults);
counted("crashes", coverage.crashes);
counted("cells", coverage.cells);
console.log(
  `${seeds} seeds, ${stepsDone} steps in ${seconds.toFixed(1)} s; ${coverage.crashes.size} of ${CRASH_POINTS.length} crash points`,
);
if (seeds > 1) {
  console.log(`crash points never reached: ${missingCrashPoints(coverage).join(", ") || "none"}`);
  console.log(`cells never reached: ${missingCells(coverage).join(", ") || "none"}`);
}
