import type { Clock } from "#services/ports.ts";

/** Time that stands still until a test moves it. */
export interface ManualClock extends Clock {
  /** Moves time on, timer by timer; after each one all that follows from it runs. */
  advance(ms: number): Promise<void>;
  /** Sets the machine's clock to another time, as somebody might; durations go on. */
  setBack(ms: number): void;
  /** How many timers are armed. */
  armed(): number;
}

const START_MS = 1_790_000_000_000;

/** Lets every promise that can go on do so. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 300; turn++) await Promise.resolve();
}

export function manualClock(): ManualClock {
  const timers = new Set<{ dueMs: number; callback: () => void }>();
  let elapsedMs = 0;
  let skewMs = 0;

  function nextBy(limitMs: number) {
    let next: { dueMs: number; callback: () => void } | undefined;
    for (const timer of timers)
      if (timer.dueMs <= limitMs && (!next || timer.dueMs < next.dueMs)) next = timer;
    return next;
  }

  return {
    now: () => START_MS + elapsedMs + skewMs,
    elapsed: () => elapsedMs,
    timer(delayMs, callback) {
      if (delayMs === 0) {
        let cancelled = false;
        queueMicrotask(() => {
          if (!cancelled) callback();
        });
        return () => {
          cancelled = true;
        };
      }
      const timer = { dueMs: elapsedMs + delayMs, callback };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
    async advance(ms) {
      const untilMs = elapsedMs + ms;
      await settled();
      for (let next = nextBy(untilMs); next; next = nextBy(untilMs)) {
        timers.delete(next);
        elapsedMs = Math.max(elapsedMs, next.dueMs);
        next.callback();
        await settled();
      }
      elapsedMs = untilMs;
      await settled();
    },
    setBack(ms) {
      skewMs -= ms;
    },
    armed: () => timers.size,
  };
}
