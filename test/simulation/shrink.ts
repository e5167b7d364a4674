import { FAULT_KINDS, type FaultKind } from "./faults.ts";
import { runSeed, type RunResult } from "./run.ts";

const HISTORY_EVENTS_MAX = 60;
const LINE_CHARACTERS_MAX = 400;

export interface Shortest {
  readonly steps: number;
  readonly off: readonly FaultKind[];
  readonly result: RunResult;
  /** The end of the history that breaks it: the events of the request or organization concerned, else the last ones. */
  readonly history: readonly string[];
}

/**
 * Runs the seed again with fewer steps and with kinds of fault left out, as long as the same invariant breaks: a cheap
 * search that need not find the very shortest run.
 */
export async function shrink(
  found: RunResult,
  steps: number,
  off: readonly FaultKind[],
): Promise<Shortest> {
  let best = { steps: Math.min(steps, found.steps), off: [...off], result: found };
  async function attempt(stepsTried: number, offTried: readonly FaultKind[]): Promise<boolean> {
    const result = await runSeed(found.seed, stepsTried, offTried, found.world.death);
    if (result.broken?.invariant !== found.broken?.invariant) return false;
    best = { steps: Math.min(stepsTried, result.steps), off: [...offTried], result };
    return true;
  }
  for (const kind of FAULT_KINDS)
    if (!best.off.includes(kind)) await attempt(best.steps, [...best.off, kind]);
  for (let part = best.steps >> 1; part >= 10; part >>= 1)
    while (best.steps > part && (await attempt(best.steps - part, best.off)));
  return { ...best, history: historyOf(best.result) };
}

function historyOf({ world, broken }: RunResult): string[] {
  const named = /\b(?:req|org|lot|key)_[0-9A-Z]{26}\b/.exec(broken?.message ?? "")?.[0];
  const lines = world.watch.events.map((event) => ({
    text: `${event.position} ${event.stream}@${event.revision} ${event.type} ${JSON.stringify(event.data)}`,
    isMark: ["OwnerChanged.v1", "OwnerFenced.v1", "JournalSealed.v1", "WriterStarted.v1"].includes(
      event.type,
    ),
  }));
  const kept = lines.filter(({ text, isMark }) => !named || isMark || text.includes(named));
  return kept.slice(-HISTORY_EVENTS_MAX).map(({ text }) => text.slice(0, LINE_CHARACTERS_MAX));
}
