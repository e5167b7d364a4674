import type { LoadJob, LoadMessage, LoadReply, LoadResult } from "./load.ts";
import { cpuUs, memoryMiB } from "./measure.ts";
import type { Child } from "./processes.ts";
import { within } from "./processes.ts";
import { checkAnswers } from "./request.ts";
import type { Running } from "./targets.ts";

/** How long each part of a measurement takes. */
export interface Plan {
  readonly connections: number;
  readonly warmSeconds: number;
  readonly closedSeconds: number;
  readonly openSeconds: number;
  readonly streamsPerSecond: number;
}

export const FULL: Plan = {
  connections: 16,
  // V8 takes tens of thousands of requests until its code is as fast as it gets.
  warmSeconds: 3,
  closedSeconds: 4,
  openSeconds: 3,
  streamsPerSecond: 50,
};
/** Only to see that every part works. */
export const SMOKE: Plan = { ...FULL, warmSeconds: 0.1, closedSeconds: 0.2, openSeconds: 0.15 };

export const RATES = [50, 300] as const;
type Rate = (typeof RATES)[number];
type Latency = { readonly p50Ms: number; readonly p99Ms: number };

/** The latencies of a gateway, or of the upstream itself, which is the direct path. */
export interface Latencies {
  readonly at: Readonly<Record<Rate, Latency>>;
  readonly firstByte: Latency;
}

/** What one target showed in one round. */
export interface Figures extends Latencies {
  readonly perSecond: number;
  readonly requestUs: number;
  /** The share of its core that the gateway used in the closed loop: below about 0.95 the rate is not the core's. */
  readonly busy: number;
  readonly streamsPerSecond: number;
  readonly streamUs: number;
  readonly memoryMiB: number;
  /** Failed requests of all parts, by what was wrong with them. */
  readonly errors: Readonly<Record<string, number>>;
}

type Work = Omit<LoadJob, "url" | "headers" | "connections">;

/** Runs a job in the load generator. Throws when that dies or does not answer in time. */
export function runLoad(load: Child, job: LoadJob): Promise<LoadResult> {
  const id = nextJob++;
  const answer = new Promise<LoadResult>((resolve) => {
    const listen = (reply: LoadReply): void => {
      if (reply.id !== id) return;
      load.process.off("message", listen);
      resolve(reply.result);
    };
    load.process.on("message", listen);
  });
  load.process.send({ id, job } satisfies LoadMessage);
  const waitMs = job.seconds * 1000 + 30_000;
  return within(waitMs, Promise.race([answer, load.died])).then((result) => {
    if (result === undefined) throw new Error("the load generator does not answer");
    return result;
  });
}
let nextJob = 0;

/** The loads of one target, with the errors of all of them added up. */
function loadsOf(target: Pick<Running, "url" | "headers">, load: Child, plan: Plan) {
  const errors: Record<string, number> = {};
  const run = async (work: Work): Promise<LoadResult> => {
    const { url, headers } = target;
    const result = await runLoad(load, { ...work, url, headers, connections: plan.connections });
    for (const [what, count] of Object.entries(result.errors))
      errors[what] = (errors[what] ?? 0) + count;
    return result;
  };
  return { run, errors };
}

/** Latencies in open loops, requests at each rate and streams. */
async function latencies(run: (work: Work) => Promise<LoadResult>, plan: Plan): Promise<Latencies> {
  const seconds = plan.openSeconds;
  const at = async (perSecond: number): Promise<Latency> => {
    const { latencyP50Ms, latencyP99Ms } = await run({ streamed: false, seconds, perSecond });
    return { p50Ms: latencyP50Ms, p99Ms: latencyP99Ms };
  };
  const rates = { 300: await at(300), 50: await at(50) };
  const streams = await run({ streamed: true, seconds, perSecond: plan.streamsPerSecond });
  return {
    at: rates,
    firstByte: { p50Ms: streams.firstByteP50Ms, p99Ms: streams.firstByteP99Ms },
  };
}

/** The direct path: what remains when there is no gateway. */
export async function measureDirect(
  upstreamUrl: string,
  load: Child,
  plan: Plan,
): Promise<Latencies> {
  const target = { url: upstreamUrl, headers: { authorization: "Bearer bench" } };
  await checkAnswers(target.url, target.headers);
  const { run, errors } = loadsOf(target, load, plan);
  await run({ streamed: false, seconds: plan.warmSeconds });
  const result = await latencies(run, plan);
  if (Object.keys(errors).length > 0)
    throw new Error(`the upstream itself failed: ${JSON.stringify(errors)}`);
  return result;
}

/** Measures a gateway that has just been started: answers checked, warmed up, then every kind of load. */
export async function measureTarget(running: Running, load: Child, plan: Plan): Promise<Figures> {
  const { pid } = running.child;
  await checkAnswers(running.url, running.headers);
  const { run, errors } = loadsOf(running, load, plan);
  const closed = async (streamed: boolean) => {
    await run({ streamed, seconds: plan.warmSeconds / (streamed ? 2 : 1) });
    const beforeUs = cpuUs(pid);
    const { requests, seconds } = await run({ streamed, seconds: plan.closedSeconds });
    const usedUs = cpuUs(pid) - beforeUs;
    return { perSecond: requests / seconds, us: usedUs / requests, busy: usedUs / (seconds * 1e6) };
  };
  const requests = await closed(false);
  const streams = await closed(true);
  const open = await latencies(run, plan);
  return {
    ...open,
    perSecond: requests.perSecond,
    requestUs: requests.us,
    busy: requests.busy,
    streamsPerSecond: streams.perSecond,
    streamUs: streams.us,
    memoryMiB: memoryMiB(pid, "peak"),
    errors,
  };
}
