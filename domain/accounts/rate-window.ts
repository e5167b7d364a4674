/**
 * Requests per minute: 61 one-second buckets with a running total. Any 60,000 ms touch at most 61 of them, so there
 * are never more than the limit in any minute; a slot comes back at most a second later than it could.
 *
 * The times are a machine's clock, which may be set back. By up to 61 s, what an adjustment needs, the window stays at
 * its newest second and goes on counting there: nobody gets more than the limit, and somebody may wait longer. From
 * further back the window lies in a future that was never true, so a new one begins.
 */

export const BUCKETS = 61;

export interface RateWindow {
  /** The newest second counted, in seconds since 1970; goes back only where a new window begins. */
  second: number;
  total: number;
  readonly counts: number[];
}

export function emptyWindow(): RateWindow {
  return { second: 0, total: 0, counts: Array.from({ length: BUCKETS }, () => 0) };
}

/** Brings the window to a time; one that lies back by up to a window leaves it where it is. */
export function advance(window: RateWindow, nowMs: number): void {
  const second = Math.floor(nowMs / 1000);
  const ahead = second - window.second;
  if (ahead <= 0 && -ahead <= BUCKETS) return;
  // From far away, on either side, every bucket is emptied.
  const steps = ahead > 0 ? Math.min(BUCKETS, ahead) : BUCKETS;
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
