import type { Clock } from "#services/ports.ts";

const MINUTE_MS = 60_000;

/**
 * Counts refusals per caller and minute, so that a caller who does nothing but fail can be told to stop. Past the cap
 * only what would have been refused anyway becomes a 429; nothing else changes for that caller. At most `callersMax`
 * callers are remembered; the one that was not refused for longest is forgotten first.
 */
export function createRefusalCaps(clock: Clock, callersMax = 10_000) {
  const counts = new Map<string, { minute: number; count: number }>();
  return {
    /** Counts one refusal; true when the caller is past `most` in this minute. */
    isPast(caller: string, most: number): boolean {
      const minute = Math.floor(clock.now() / MINUTE_MS);
      const known = counts.get(caller);
      const count = known?.minute === minute ? known.count + 1 : 1;
      counts.delete(caller);
      counts.set(caller, { minute, count });
      const [oldest] = counts.keys();
      if (counts.size > callersMax && oldest !== undefined) counts.delete(oldest);
      return count > most;
    },
  };
}

/** Seconds until the present minute of the caps is over. */
export function capRetryAfterSeconds(clock: Clock): number {
  return Math.ceil((MINUTE_MS - (clock.now() % MINUTE_MS)) / 1000);
}
