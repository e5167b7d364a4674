import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { CommitCost } from "./commit-cost.ts";
import { type Child, type Cores, LeftOut, runForResult } from "./processes.ts";
import { summarizeProfiles } from "./profile.ts";
import type { ReplayResult } from "./replay.ts";
import type { Round } from "./report.ts";
import { type Figures, measureDirect, measureTarget, type Plan, RATES, runLoad } from "./rounds.ts";
import { runSoak, type Soak } from "./soak.ts";
import { startEmbedded } from "./relai.ts";
import { freshFolder, type Target } from "./targets.ts";

/** The measurements one after the other: each starts what it needs, prints what it found and leaves nothing behind. */

const PROFILE_SECONDS = 5;

/** What all measurements of a run share. */
export interface Bench {
  readonly folder: string;
  readonly cores: Cores | undefined;
  readonly plan: Plan;
  readonly upstreamUrl: string;
  readonly load: Child;
  readonly targets: readonly Target[];
  /** Why a target is not in the figures. */
  readonly leftOut: Map<string, string>;
  /** What went wrong: any makes the run fail. */
  readonly problems: string[];
}

/** Prints a line. */
export const say = (text: string): boolean => process.stdout.write(`${text}\n`);

/** Starts a target, measures it, stops it. What cannot run yet is left out; what fails is a problem. */
async function measureOne(bench: Bench, target: Target): Promise<Figures | undefined> {
  if (bench.leftOut.has(target.name)) return undefined;
  const folder = freshFolder(bench.folder, target.name);
  try {
    const { upstreamUrl, cores } = bench;
    const running = await target.start({ upstreamUrl, cores, folder });
    try {
      const figures = await Promise.race([
        measureTarget(running, bench.load, bench.plan),
        running.died,
      ]);
      if (Object.keys(figures.errors).length > 0) {
        bench.problems.push(`${target.name}: failed requests ${JSON.stringify(figures.errors)}`);
      }
      return figures;
    } finally {
      const ended = await running.stop();
      if (!ended) bench.problems.push(`${target.name}: did not end on SIGTERM`);
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (!(error instanceof LeftOut)) bench.problems.push(`${target.name}: ${reason}`);
    bench.leftOut.set(target.name, reason.split("\n")[0] ?? reason);
    say(`  ${target.name.padEnd(12)} left out: ${reason}`);
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function commitCost(bench: Bench): Promise<number> {
  const folder = freshFolder(bench.folder, "commit-cost");
  const seconds = bench.plan.closedSeconds / 4;
  const where = { core: bench.cores?.gateway, folder };
  const cost = await runForResult<CommitCost>(
    "commit-cost.ts",
    [folder, String(seconds)],
    where,
    30_000,
  );
  rmSync(folder, { recursive: true, force: true });
  return cost.medianMs;
}

export async function measureRound(bench: Bench): Promise<Round> {
  const figures = new Map<string, Figures>();
  const commitMs = await commitCost(bench);
  say(`  commit       ${commitMs.toFixed(2)} ms`);
  let direct: Round["direct"] | undefined;
  for (const target of bench.targets) {
    const measured = await measureOne(bench, target);
    if (measured === undefined) continue;
    figures.set(target.name, measured);
    // The direct path comes after the bare one, when the upstream and the load generator are warm.
    direct ??= await measureDirect(bench.upstreamUrl, bench.load, bench.plan);
    sayFigures(target.name, measured, figures.get("bare") ?? measured, direct);
  }
  if (direct === undefined) throw new Error(`bare did not run: ${bench.problems.join("; ")}`);
  return { commitMs, direct, figures };
}

function sayFigures(name: string, figures: Figures, bare: Figures, direct: Round["direct"]): void {
  const times = (of: "requestUs" | "streamUs"): string =>
    `${figures[of].toFixed(0)} µs (${(figures[of] / bare[of]).toFixed(2)} ×)`;
  const added = RATES.map((rate) => {
    const [mine, base] = [figures.at[rate], direct.at[rate]];
    return `${(mine.p50Ms - base.p50Ms).toFixed(2)}/${(mine.p99Ms - base.p99Ms).toFixed(2)} ms at ${rate}/s`;
  });
  say(
    `  ${name.padEnd(12)} ${figures.perSecond.toFixed(0)}/s (${(figures.busy * 100).toFixed(0)} % busy), request ${times("requestUs")}, stream ${times("streamUs")}, added ${added.join(", ")}, ${figures.memoryMiB.toFixed(0)} MiB`,
  );
}

/** The replay runs in a process of its own, with both cores: nothing else runs beside it. */
export async function replay(bench: Bench, events: number): Promise<ReplayResult> {
  const folder = freshFolder(bench.folder, "replay");
  const where = { core: undefined, folder };
  const result = await runForResult<ReplayResult>(
    "replay.ts",
    [folder, String(events)],
    where,
    180_000,
  );
  rmSync(folder, { recursive: true, force: true });
  say(`replay: ${JSON.stringify(result)}`);
  return result;
}

export async function soak(bench: Bench, seconds: number): Promise<Soak> {
  const folder = freshFolder(bench.folder, "soak");
  const { upstreamUrl, cores } = bench;
  const running = await startEmbedded({ upstreamUrl, cores, folder });
  try {
    const result = await Promise.race([runSoak(running, bench.load, seconds), running.died]);
    say(`soak: ${JSON.stringify(result)}`);
    return result;
  } finally {
    await running.stop();
  }
}

/** Runs relai under V8's sampling profiler and prints where the time of each thread went. */
export async function profile(bench: Bench, streamed: boolean): Promise<void> {
  const folder = freshFolder(bench.folder, "profile");
  const profiles = join(folder, "profiles");
  mkdirSync(profiles);
  const { upstreamUrl, cores, targets } = bench;
  const target = targets.find(({ profiled }) => profiled !== undefined);
  if (target?.profiled === undefined) throw new Error("of these targets none is relai");
  const nodeArgs = ["--cpu-prof", `--cpu-prof-dir=${profiles}`];
  const running = await target.profiled({ upstreamUrl, cores, folder }, nodeArgs);
  const { urls, headers } = running;
  const { connections } = bench.plan;
  const result = await runLoad(bench.load, {
    urls,
    headers,
    streamed,
    connections,
    seconds: PROFILE_SECONDS,
  });
  await running.stop();
  say(
    `${target.name}: ${result.requests} ${streamed ? "streams" : "requests"}, failed: ${JSON.stringify(result.errors)}`,
  );
  say(summarizeProfiles(profiles));
}
