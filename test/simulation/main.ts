import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { CRASH_POINTS, FAULT_KINDS, type Death, type FaultKind } from "./faults.ts";
import { addCoverage, emptyCoverage, missingCells, missingCrashPoints } from "./coverage.ts";
import { deathOf, runSeed, type RunResult } from "./run.ts";
import { shrink } from "./shrink.ts";

const USAGE = `Runs simulated worlds: the real services on in-memory ports under a virtual clock and one seed.

  node test/simulation/main.ts --seed 42 [--steps 5000] [--off kind,kind] [--death silence|lock|"lock, apart"]
  node test/simulation/main.ts --seeds 1..200 [--steps 5000]
  node test/simulation/main.ts --fresh 10000 [--steps 5000]

Prints a line for each seed, and what all of them reached. --fresh takes so many seeds that nobody has run, from the
system's randomness. Every fifth seed is a region in one process that dies by the lock of its data folder; in the
others ledger and gateways are processes apart, and silence seals; --death takes one way for all.
On a broken invariant it goes on, prints the shortest run found that breaks the first of them, and exits 1.
Kinds of fault that --off takes: ${FAULT_KINDS.join(", ")}
`;

/** Fresh seeds begin somewhere below this: so many that no two runs meet, and each is a safe integer. */
const FRESH_BELOW = 2 ** 47;

function fail(message: string): never {
  console.error(`${message}\n\n${USAGE}`);
  process.exit(2);
}

function wholeNumber(text: string, name: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) fail(`--${name} takes a whole number`);
  return value;
}

/** The first and the last seed to run. */
function rangeOf(values: { seed?: string; seeds?: string; fresh?: string }): [number, number] {
  if (values.fresh !== undefined) {
    const count = wholeNumber(values.fresh, "fresh");
    if (count === 0) fail("--fresh takes a number of seeds");
    const first = randomInt(FRESH_BELOW);
    console.log(`fresh seeds: --seeds ${first}..${first + count - 1}`);
    return [first, first + count - 1];
  }
  const range = /^(\d+)\.\.(\d+)$/.exec(values.seeds ?? "");
  if (values.seeds !== undefined && !range) fail("--seeds takes a range: 1..200");
  const seed = wholeNumber(values.seed ?? "42", "seed");
  return range ? [Number(range[1]), Number(range[2])] : [seed, seed];
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      seeds: { type: "string" },
      fresh: { type: "string" },
      steps: { type: "string", default: "5000" },
      off: { type: "string", default: "" },
      death: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const off = values.off.split(",").filter((kind) => kind !== "");
  for (const kind of off)
    if (!FAULT_KINDS.some((known) => known === kind)) fail(`'${kind}' is no kind of fault`);
  const { death } = values;
  if (death !== undefined && !(death in CRASH_POINTS)) fail(`'${death}' is no way to die`);
  const [first, last] = rangeOf(values);
  return {
    first,
    last,
    steps: wholeNumber(values.steps, "steps"),
    off: off as FaultKind[],
    death: death as Death | undefined,
  };
}

const sumOf = (counts: ReadonlyMap<string, number>) =>
  [...counts.values()].reduce((sum, count) => sum + count, 0);

function lineOf(result: RunResult): string {
  const { seed, steps, requests, virtualMs, broken, world } = result;
  const { death, watch, faults } = world;
  const how = broken ? broken.message : "ok";
  return `seed ${seed} (${death}): ${steps} steps, ${Math.round(virtualMs / 1000)} s, ${requests} requests, ${watch.events.length} events, ${sumOf(faults.counts)} faults, ${sumOf(faults.crashes)} crashes: ${how}`;
}

function counted(title: string, counts: ReadonlyMap<string, number>): void {
  const entries = [...counts].sort(([one], [other]) => (one < other ? -1 : 1));
  console.log(
    `${title}: ${entries.map(([name, count]) => `${name} ${count}`).join(", ") || "none"}`,
  );
}

async function explain(found: RunResult, steps: number, off: readonly FaultKind[]): Promise<void> {
  const shortest = await shrink(found, steps, off);
  const without = shortest.off.length > 0 ? ` --off ${shortest.off.join(",")}` : "";
  console.log(
    `\nshortest: --seed ${found.seed} --death ${found.world.death} --steps ${shortest.steps}${without}`,
  );
  console.log(`${shortest.result.broken?.message}\n`);
  console.log(shortest.history.join("\n"));
}

const { first, last, steps, off, death } = readOptions();
const coverage = emptyCoverage();
const deaths = new Map<Death, number>();
const found: number[] = [];
let firstFound: RunResult | undefined;
const begun = performance.now();
let [stepsDone, requests] = [0, 0];
for (let seed = first; seed <= last; seed++) {
  const result = await runSeed(seed, steps, off, death ?? deathOf(seed));
  stepsDone += result.steps;
  requests += result.requests;
  deaths.set(result.world.death, (deaths.get(result.world.death) ?? 0) + 1);
  addCoverage(coverage, result.world);
  console.log(lineOf(result));
  if (result.broken) {
    found.push(seed);
    firstFound ??= result;
  }
}
const seconds = (performance.now() - begun) / 1000;
counted("\nfaults", coverage.faults);
counted("crashes", coverage.crashes);
counted("cells", coverage.cells);
if (last > first) {
  const missing = missingCrashPoints(coverage, deaths.keys());
  console.log(`crash points never reached: ${missing.join(", ") || "none"}`);
  console.log(`cells never reached: ${missingCells(coverage).join(", ") || "none"}`);
}
if (firstFound) await explain(firstFound, steps, off);
const ways = [...deaths].map(([way, count]) => `${count} by ${way}`).join(", ");
console.log(
  `${last - first + 1} seeds (${ways}) of ${steps} steps, ${stepsDone} steps and ${requests} requests in all, ${sumOf(coverage.faults)} faults, ${sumOf(coverage.crashes)} crashes, ${seconds.toFixed(0)} s; findings: ${found.join(", ") || "none"}`,
);
if (firstFound) process.exitCode = 1;
