import type { Clock } from "#services/ports.ts";

/** A timer that fires more than this after it was due has met a stopped process or a blocked event loop. */
const LATE_MS = 1_000;
/** How long such a timer then waits once more, so that what arrived in the meantime is read first. */
const GRACE_MS = 500;
/** By how much the machine's clock may be adjusted before it counts as a jump. */
export const CLOCK_JUMP_MS = 60_000;
/** The longest delay that Node's own timer takes; it fires at once for a longer one. */
const NODE_DELAY_MS_MAX = 2_147_483_647;

/**
 * The machine's time.
 *
 * `onJump` is told when the machine's clock has moved by more than a minute against the one that never goes back, since
 * the start or since the last time it was told: ahead (above zero) or back, in milliseconds. It is told by the first
 * reading that shows it, so before anything is dated with that reading. A machine that slept jumps ahead too.
 *
 * A timer never calls back early and never keeps the process alive: a service lives by its listeners and sockets, and
 * a drained one shall end although a timer is pending. (A program that only waits must hold something else open.)
 *
 * A process that was stopped for 90 s finds every timer due on waking, although the bytes they waited for may lie in
 * its sockets. So a timer that fires more than 1 s late waits another 500 ms and at least one look at the sockets,
 * once, before it calls back; whoever it would have timed out has then seen what came and can cancel it.
 */
export function systemClock(onJump?: (jumpMs: number) => void): Clock {
  return {
    now: onJump ? watchedNow(onJump) : () => Date.now(),
    elapsed: () => performance.now(),
    timer(delayMs, callback) {
      if (delayMs === 0) {
        const immediate = setImmediate(callback);
        return () => clearImmediate(immediate);
      }
      if (!(delayMs >= 0)) throw new RangeError(`a timer cannot wait ${delayMs} ms`);
      return startTimer(delayMs, callback);
    },
  };
}

function watchedNow(onJump: (jumpMs: number) => void): () => number {
  let offsetMs = Date.now() - performance.now();
  return () => {
    const nowMs = Date.now();
    const jumpMs = nowMs - performance.now() - offsetMs;
    if (Math.abs(jumpMs) > CLOCK_JUMP_MS) {
      offsetMs += jumpMs;
      onJump(jumpMs);
    }
    return nowMs;
  };
}

function startTimer(delayMs: number, callback: () => void): () => void {
  const dueMs = performance.now() + delayMs;
  let isGraced = false;
  let afterGrace: NodeJS.Immediate | undefined;
  let node = arm(delayMs);

  function arm(ms: number): NodeJS.Timeout {
    return setTimeout(fired, Math.min(Math.ceil(ms), NODE_DELAY_MS_MAX)).unref();
  }

  function fired(): void {
    const lateMs = performance.now() - dueMs;
    if (lateMs < 0) {
      // Node counts whole milliseconds, so its timers may come up to one early.
      node = arm(-lateMs);
    } else if (isGraced) {
      // Immediates run after the sockets were looked at, also when the grace itself ran out in a busy turn.
      afterGrace = setImmediate(callback);
    } else if (lateMs > LATE_MS) {
      isGraced = true;
      node = arm(GRACE_MS);
    } else {
      callback();
    }
  }

  return () => {
    clearTimeout(node);
    clearImmediate(afterGrace);
  };
}
