import type { RecordedEvent } from "#domain/events/events.ts";
import type { Clock } from "#services/ports.ts";
import { pause } from "./waits.ts";

const RESUME_MS_FIRST = 50;
const RESUME_MS_MAX = 2_000;
/** A subscription that stood for so long was a good one, also if nothing was to be told. */
const HELD_MS = 5_000;

/** How far a follower has come: what it was given and came back for more, and the recording time there, where known. */
export interface Followed {
  readonly position: bigint | "start";
  readonly recordedAt: number | undefined;
}

/**
 * Follows over any number of subscriptions: a server that goes away ends one for good, so another begins after the last
 * event that was *processed*. A batch counts as that when its reader asks for the next.
 * Ends when the signal aborts. Throws what `isFinal` says that waiting cannot mend; and, so that somebody hears of it,
 * also when no subscription has held for `troubleMsMax`.
 */
export async function* resuming(options: {
  clock: Clock;
  after: bigint | "start";
  signal: AbortSignal;
  /** One subscription. It calls `joined` when the server has taken it, and ends or throws when it is lost. */
  subscribe: (
    from: Followed,
    signal: AbortSignal,
    joined: () => void,
  ) => AsyncIterable<RecordedEvent[]>;
  isFinal: (error: unknown) => boolean;
  troubleMsMax: number;
}): AsyncGenerator<RecordedEvent[]> {
  const { clock, signal, subscribe, isFinal, troubleMsMax } = options;
  let followed: Followed = { position: options.after, recordedAt: undefined };
  let troubleSinceMs: number | undefined;
  for (let attempt = 0; !signal.aborted; attempt += 1) {
    let joinedMs: number | undefined;
    let held = false;
    let lost = new Error("the event store ended the subscription");
    try {
      const joined = () => void (joinedMs = clock.elapsed());
      for await (const events of subscribe(followed, signal, joined)) {
        yield events;
        followed = events.at(-1) ?? followed;
        held = true;
      }
    } catch (error) {
      lost = error instanceof Error ? error : new Error(String(error));
    }
    if (signal.aborted) return;
    const nowMs = clock.elapsed();
    held ||= joinedMs !== undefined && nowMs - joinedMs >= HELD_MS;
    if (held) attempt = 0;
    if (held || troubleSinceMs === undefined) troubleSinceMs = nowMs;
    if (isFinal(lost) || nowMs - troubleSinceMs >= troubleMsMax) throw lost;
    const backOffMs = Math.min(RESUME_MS_MAX, RESUME_MS_FIRST * 2 ** Math.min(attempt, 10));
    await pause(clock, backOffMs, signal);
  }
}
