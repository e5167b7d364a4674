import type { LoadJob, LoadMessage, LoadReply, LoadResult } from "./load.ts";
import { cpuOf, memoryOf } from "./measure.ts";
import { type Appended, type Child, type Running, within } from "./processes.ts";
import { checkAnswers } from "./request.ts";

/** How long each part of a measurement takes. */
export interface Plan {
  /** Of the closed loops, to each process of a gateway. */
  readonly connections: number;
  /** A closed loop goes before each that is measured: for so long, and until it made so many requests to each process. */
  readonly warmSeconds: number;
  readonly warmRequests: number;
  readonly closedSeconds: number;
  readonly openSeconds: number;
  readonly streamsPerSecond: number;
}

export const FULL: Plan = {
  connections: 16,
  // V8 takes some thousands of requests until its code is about as fast as it gets.
  warmSeconds: 3,
  warmRequests: 8_000,
  closedSeconds: 4,
  openSeconds: 3,
  streamsPerSecond: 50,
};
/** Only to see that every part works. */
export const SMOKE: Plan = {
  ...FULL,
  warmSeconds: 0.1,
  warmRequests: 0,
  closedSeconds: 0.2,
  openSeconds: 0.15,
};
/** What is so slow that it takes longer is measured as it is. */
const WARM_TIMES_MAX = 10;

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
  /** The same in the open loop of 300 requests a second. */
  readonly at300Us: number;
  /** The share of its core that the gateway used in the closed loop: below about 0.95 the rate is not the core's. */
  readonly busy: number;
  readonly streamsPerSecond: number;
  readonly streamUs: number;
  /** What each of the processes beside the gateways used for a request and for a stream. */
  readonly beside: readonly BesideUs[];
  /** How many events one append to the event store carried, where it can be asked: in the loops of requests and of streams. */
  readonly eventsPerAppend?: { readonly requests: number; readonly streams: number };
  readonly memoryMiB: number;
  /** Failed requests of all parts, by what was wrong with them. */
  readonly errors: Readonly<Record<string, number>>;
}

export interface BesideUs {
  readonly name: string;
  readonly requestUs: number;
  readonly at300Us: number;
  readonly streamUs: number;
}

type Work = Omit<LoadJob, "urls" | "headers" | "connections">;

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
function loadsOf(target: Pick<Running, "urls" | "headers">, load: Child, plan: Plan) {
  const errors: Record<string, number> = {};
  const run = async (work: Work): Promise<LoadResult> => {
    const { urls, headers } = target;
    const result = await runLoad(load, { ...work, urls, headers, connections: plan.connections });
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
  const target = { urls: [upstreamUrl], headers: { authorization: "Bearer bench" } };
  await checkAnswers(upstreamUrl, target.headers);
  const { run, errors } = loadsOf(target, load, plan);
  await run({ streamed: false, seconds: plan.warmSeconds });
  const result = await latencies(run, plan);
  if (Object.keys(errors).length > 0)
    throw new Error(`the upstream itself failed: ${JSON.stringify(errors)}`);
  return result;
}

/** Measures a gateway that has just been started: answers checked, warmed up, then every kind of load. */
export async function measureTarget(running: Running, load: Child, plan: Plan): Promise<Figures> {
  const { urls, headers, gateways, beside } = running;
  for (const url of urls) await checkAnswers(url, headers);
  const { run, errors } = loadsOf(running, load, plan);
  const used = async () => ({
    us: cpuOf(gateways),
    besideUs: beside.map((process) => cpuOf([process])),
    appended: await running.appended?.(),
  });
  const warm = async (streamed: boolean) => {
    // What streams share with requests is warm when they begin.
    const share = streamed ? 0.5 : 1;
    let left = plan.warmRequests * share * gateways.length;
    for (let times = 0; times === 0 || (left > 0 && times < WARM_TIMES_MAX); times += 1)
      left -= (await run({ streamed, seconds: plan.warmSeconds * share })).requests;
  };
  const costOf = async (work: Work) => {
    const before = await used();
    const result = await run(work);
    const after = await used();
    const { requests, seconds } = result;
    const us = after.us - before.us;
    return {
      result,
      perSecond: requests / seconds,
      us: us / requests,
      busy: us / (seconds * 1e6),
      besideUs: after.besideUs.map((total, at) => (total - (before.besideUs[at] ?? 0)) / requests),
      eventsPerAppend: eventsPerAppend(before.appended, after.appended),
    };
  };
  const closed = async (streamed: boolean) => {
    await warm(streamed);
    return costOf({ streamed, seconds: plan.closedSeconds });
  };
  const requests = await closed(false);
  const streams = await closed(true);
  let at300 = requests;
  const open = await latencies(async (work) => {
    const cost = await costOf(work);
    if (work.perSecond === 300) at300 = cost;
    return cost.result;
  }, plan);
  return {
    ...open,
    perSecond: requests.perSecond,
    requestUs: requests.us,
    at300Us: at300.us,
    busy: requests.busy,
    streamsPerSecond: streams.perSecond,
    streamUs: streams.us,
    beside: beside.map(({ name }, at) => ({
      name,
      requestUs: requests.besideUs[at] ?? 0,
      at300Us: at300.besideUs[at] ?? 0,
      streamUs: streams.besideUs[at] ?? 0,
    })),
    ...(running.appended && {
      eventsPerAppend: { requests: requests.eventsPerAppend, streams: streams.eventsPerAppend },
    }),
    memoryMiB: memoryOf(gateways, "peak"),
    errors,
  };
}

const eventsPerAppend = (before: Appended | undefined, after: Appended | undefined): number =>
  ((after?.events ?? 0) - (before?.events ?? 0)) / ((after?.appends ?? 0) - (before?.appends ?? 0));
