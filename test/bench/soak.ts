import { setTimeout } from "node:timers/promises";
import { cpuOf, memoryOf } from "./measure.ts";
import type { Child, Running } from "./processes.ts";
import { runLoad } from "./rounds.ts";
import { slope } from "./stats.ts";

/** Mixed load for a long time: memory and CPU per request have to stay flat. */

const REQUESTS_PER_SECOND = 250;
const STREAMS_PER_SECOND = 50;
const SAMPLES = 120;
/** Growth over the second half, as a share of the memory in use, from which memory is called growing. */
const GROWTH_MAX = 0.05;

export interface Soak {
  readonly minutes: number;
  readonly requests: number;
  readonly failed: number;
  readonly startMiB: number;
  readonly endMiB: number;
  readonly peakMiB: number;
  /** Least-squares slope over the second half. */
  readonly mibPerMinute: number;
  readonly flat: boolean;
  /** CPU per request and stream in the second quarter (the first warms up) and in the last. */
  readonly secondQuarterUs: number;
  readonly lastQuarterUs: number;
}

export async function runSoak(running: Running, load: Child, seconds: number): Promise<Soak> {
  const { urls, headers, gateways } = running;
  const job = (streamed: boolean, perSecond: number) =>
    runLoad(load, { urls, headers, streamed, connections: 16, seconds, perSecond });
  const beganMs = performance.now();
  const loads = Promise.all([job(false, REQUESTS_PER_SECOND), job(true, STREAMS_PER_SECOND)]);
  const samples: { x: number; y: number; us: number }[] = [];
  const sample = async (): Promise<void> => {
    for (let taken = 0; taken <= SAMPLES; taken++) {
      const nowMs = performance.now() - beganMs;
      samples.push({ x: nowMs / 60_000, y: memoryOf(gateways, "now"), us: cpuOf(gateways) });
      await setTimeout(Math.max(0, ((taken + 1) * seconds * 1000) / SAMPLES - nowMs));
    }
  };
  const [results] = await Promise.all([loads, sample()]);

  const at = (share: number) => samples[Math.round(share * SAMPLES)] ?? { x: 0, y: 0, us: 0 };
  const usPerRequest = (from: number, to: number): number => {
    const requests = (REQUESTS_PER_SECOND + STREAMS_PER_SECOND) * seconds * (to - from);
    return (at(to).us - at(from).us) / requests;
  };
  const secondHalf = samples.slice(samples.length >> 1);
  const mibPerMinute = slope(secondHalf);
  const halfMinutes = seconds / 120;
  return {
    minutes: seconds / 60,
    requests: results.reduce((sum, { requests }) => sum + requests, 0),
    failed: results
      .flatMap(({ errors }) => Object.values(errors))
      .reduce((sum, count) => sum + count, 0),
    startMiB: at(0).y,
    endMiB: at(1).y,
    peakMiB: memoryOf(gateways, "peak"),
    mibPerMinute,
    flat: mibPerMinute * halfMinutes <= GROWTH_MAX * at(1).y,
    secondQuarterUs: usPerRequest(0.25, 0.5),
    lastQuarterUs: usPerRequest(0.75, 1),
  };
}
