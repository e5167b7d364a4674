import type { Clock } from "#services/ports.ts";
import type { Timeline } from "./timeline.ts";

/** The moment at which every simulated world begins: 2026-11-21, as milliseconds since 1970. */
export const BEGIN_MS = 1_795_219_200_000;

/** One simulated operating-system process: it can be stopped and go on later, and it can end at any moment. */
export interface SimProcess {
  readonly name: string;
  readonly kind: "gateway" | "ledger" | "region";
  readonly clock: Clock;
  isAlive(): boolean;
  isPaused(): boolean;
  /** Runs something of this process: at once, when it goes on, or never. */
  deliver(run: () => void): void;
  /** Stops it: timers and replies are held back, in their order, until it goes on. */
  pause(): void;
  resume(): void;
  /** Ends it: nothing of it ever runs again. */
  end(): void;
  onEnd(told: () => void): void;
}

export function createProcess(
  timeline: Timeline,
  name: string,
  kind: SimProcess["kind"],
  skewMs: number,
): SimProcess {
  const held: (() => void)[] = [];
  const toTell: (() => void)[] = [];
  let alive = true;
  let paused = false;

  function deliver(run: () => void): void {
    if (!alive) return;
    if (paused || held.length > 0) held.push(run);
    else run();
  }

  /** What was held back runs one piece after the other, each with all that follows from it. */
  function release(): void {
    if (!alive || paused) return;
    held[0]?.();
    held.shift();
    if (held.length > 0) timeline.after(0, release);
  }

  return {
    name,
    kind,
    isAlive: () => alive,
    isPaused: () => paused,
    deliver,
    pause() {
      paused = true;
    },
    resume() {
      if (!paused) return;
      paused = false;
      if (held.length > 0) timeline.after(0, release);
    },
    end() {
      if (!alive) return;
      alive = false;
      held.length = 0;
      for (const told of toTell.splice(0)) told();
    },
    onEnd(told) {
      if (alive) toTell.push(told);
      else told();
    },
    clock: {
      now: () => Math.floor(BEGIN_MS + timeline.nowMs() + skewMs),
      elapsed: () => timeline.nowMs(),
      timer(delayMs, callback) {
        if (!alive) return () => {};
        let cancelled = false;
        const cancel = timeline.after(delayMs, () =>
          deliver(() => {
            if (!cancelled) callback();
          }),
        );
        return () => {
          cancelled = true;
          cancel();
        };
      },
    },
  };
}
