/**
 * Requests per minute: 61 one-second buckets with a running total. Any 60,000 ms touch at most 61 of them, so there
 * are never more than the limit in any minute; a slot comes back at most a second later than it could.
 */

const BUCKETS = 61;

export interface RateWindow {
  /** The newest second counted, in seconds since 1970; never goes back. */
  second: number;
  total: number;
  readonly counts: number[];
}

export function emptyWindow(): RateWindow {
  return { second: 0, total: 0, counts: Array.from({ length: BUCKETS }, () => 0) };
}

/** Brings the window to a time; a clock that went back leaves it where it is. */
export function advance(window: RateWindow, nowMs: number): void {
  const second = Math.floor(nowMs / 1000);
  if (second <= window.second) return;
  const steps = Math.min(BUCKETS, second - window.second);
  for (let step = 0; step < steps; step++) {
    const bucket = (second - step) % BUCKETS;
    window.total -= window.counts[bucket] ?? 0;
    window.counts[bucket] = 0;
  }
  window.second = second;
}

/** Counts one request at the window's newest second. */
export function count(window: RateWindow): void {
  const bucket = window.second % BUCKETS;
  window.counts[bucket] = (window.counts[bucket] ?? 0) + 1;
  window.total += 1;
}

/** Milliseconds from `nowMs` until the total has fallen below `limit`; 0 when it is already. The window must be advanced. */
export function freeInMs(window: RateWindow, limit: number, nowMs: number): number {
  let left = window.total;
  if (left < limit) return 0;
  for (let age = BUCKETS - 1; age >= 0; age--) {
    left -= window.counts[(window.second - age + BUCKETS) % BUCKETS] ?? 0;
    if (left < limit) return Math.max(0, (window.second - age + BUCKETS) * 1000 - nowMs);
  }
  return BUCKETS * 1000;
}
