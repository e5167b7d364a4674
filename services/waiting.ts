import type { Clock } from "./ports.ts";

/** Resolves after at least `delayMs`. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.timer(delayMs, resolve);
  });
}

/** What {@link within} gives when the time ran out first. */
export const TIMED_OUT = Symbol("timed out");

/** Waits for a promise, but not longer than `limitMs`; the promise itself goes on. Its rejection is the caller's. */
export function within<T>(
  clock: Clock,
  limitMs: number,
  promise: Promise<T>,
): Promise<T | typeof TIMED_OUT> {
  return new Promise((resolve, reject) => {
    const cancel = clock.timer(limitMs, () => resolve(TIMED_OUT));
    promise.then(
      (value) => {
        cancel();
        resolve(value);
      },
      (error: unknown) => {
        cancel();
        reject(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
}

/** The wait before attempt number `attempt` (from 0): doubling from `firstMs`, never above `mostMs`. */
export function backOffMs(attempt: number, firstMs: number, mostMs: number): number {
  return Math.min(mostMs, firstMs * 2 ** Math.min(attempt, 20));
}
