import type { Clock } from "#services/ports.ts";

/**
 * What a promise gives, or what `late` gives when that takes longer than `limitMs`. The promise itself goes on; what
 * becomes of it later is nobody's business, also when it rejects.
 */
export function within<T, L>(
  clock: Clock,
  limitMs: number,
  promise: Promise<T>,
  late: () => L,
): Promise<T | L> {
  let cancel: () => void = () => undefined;
  const limit = new Promise<L>((resolve, reject) => {
    cancel = clock.timer(limitMs, () => {
      try {
        resolve(late());
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
  });
  return Promise.race([promise, limit]).finally(cancel);
}

/** Waits for at least `delayMs`, at most until the signal aborts. */
export function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const cancel = clock.timer(delayMs, done);
    function done(): void {
      cancel();
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
  });
}
