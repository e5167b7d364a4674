import type { Clock } from "#services/ports.ts";

/** A timer that fires more than this after it was due has met a stopped process or a blocked event loop. */
const LATE_MS = 1_000;
/** How long such a timer then waits once more, so that what arrived in the meantime is read first. */
const GRACE_MS = 500;
/** The longest delay that Node's own timer takes; it fires at once for a longer one. */
const NODE_DELAY_MS_MAX = 2_147_483_647;

/**
 * The machine's time.
 *
 * A timer never calls back early and never keeps the process alive: a service lives by its listeners and sockets, and
 * a drained one shall end although a timer is pending. (A program that only waits must hold something else open.)
 *
 * A process that was stopped for 90 s finds every timer due on waking, although the bytes they waited for may lie in
 * its sockets. So a timer that fires more than 1 s late waits another 500 ms and at least one look at the sockets,
 * once, before it calls back; whoever it would have timed out has then seen what came and can cancel it.
 */
export function systemClock(): Clock {
  return {
    now: () => Date.now(),
    elapsed: () => performance.now(),
    timer(delayMs, callback) {
      if (delayMs === 0) {
        const immediate = setImmediate(callback);
        return () => clearImmediate(immediate);
      }
      if (!(delayMs >= 0)) throw new RangeError(`a timer cannot wait ${delayMs} ms`);
      const timer = new Timer(performance.now() + delayMs, callback);
      timer.arm(delayMs);
      return () => timer.cancel();
    },
  };
}

class Timer {
  private readonly dueMs: number;
  private readonly callback: () => void;
  private node: NodeJS.Timeout | undefined;
  private afterGrace: NodeJS.Immediate | undefined;
  private graced = false;

  constructor(dueMs: number, callback: () => void) {
    this.dueMs = dueMs;
    this.callback = callback;
  }

  arm(delayMs: number): void {
    this.node = setTimeout(() => this.fired(), Math.min(Math.ceil(delayMs), NODE_DELAY_MS_MAX));
    this.node.unref();
  }

  cancel(): void {
    clearTimeout(this.node);
    clearImmediate(this.afterGrace);
  }

  private fired(): void {
    const lateMs = performance.now() - this.dueMs;
    if (lateMs < 0) {
      // Node counts whole milliseconds, so its timers may come up to one early.
      this.arm(-lateMs);
    } else if (this.graced) {
      // Immediates run after the sockets were looked at, also when the grace itself ran out in a busy turn.
      this.afterGrace = setImmediate(this.callback);
    } else if (lateMs > LATE_MS) {
      this.graced = true;
      this.arm(GRACE_MS);
    } else {
      this.callback();
    }
  }
}
