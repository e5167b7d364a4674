import type { ApiError } from "#services/errors.ts";
import type { Clock } from "#services/ports.ts";

const MINUTE_MS = 60_000;

/**
 * Counts refusals per caller and minute, so that a caller who does nothing but fail can be told to stop. Past the cap
 * only what would have been refused anyway becomes a 429; nothing else changes for that caller. At most `callersMax`
 * callers are remembered; the one that was not refused for longest is forgotten first.
 */
export function createRefusalCaps(clock: Clock, message: string, callersMax = 10_000) {
  const counts = new Map<string, { minute: number; count: number }>();
  return {
    /** Counts a refusal, and gives what its caller is told: the same, or `message` past `most` in this minute. */
    told(caller: string, most: number, refusal: ApiError): ApiError {
      const nowMs = clock.now();
      const minute = Math.floor(nowMs / MINUTE_MS);
      const known = counts.get(caller);
      const count = known?.minute === minute ? known.count + 1 : 1;
      counts.delete(caller);
      counts.set(caller, { minute, count });
      const [oldest] = counts.keys();
      if (counts.size > callersMax && oldest !== undefined) counts.delete(oldest);
      if (count <= most) return refusal;
      const retryAfterSeconds = Math.ceil((MINUTE_MS - (nowMs % MINUTE_MS)) / 1000);
      const extra = { retry_after: retryAfterSeconds };
      return { code: "rate_limit_exceeded", message, extra, retryAfterSeconds };
    },
  };
}
