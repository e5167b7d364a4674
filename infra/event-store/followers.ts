import type { RecordedEvent } from "#domain/events/events.ts";
import type { EventStore } from "#services/ports.ts";
import type { Slice } from "./sqlite-reads.ts";

interface Follower {
  /** The last position that is in `buffer`, or was before. */
  position: number;
  buffer: RecordedEvent[];
  /** True while the next events must be read from the store; nothing is buffered then. */
  behind: boolean;
  wake: (() => void) | undefined;
}

/**
 * Following a store: first what is stored, then what comes, handed over in memory as it was appended. A follower knows
 * the last position it has; what is handed over must join there. It goes back to reading the store when it does not,
 * and when it is too slow for a bounded buffer. An idle follower waits on a promise and costs nothing.
 * `pause` lets other work of the thread run between two reads of a long catching-up.
 */
export function createFollowers(options: {
  after: (position: number) => Slice;
  pause: () => Promise<void>;
  bufferEventsMax?: number | undefined;
}) {
  const { pause, bufferEventsMax = 10_000 } = options;
  const followers = new Set<Follower>();
  const ending = new AbortController();

  function wake(follower: Follower): void {
    follower.wake?.();
    follower.wake = undefined;
  }

  /** The switch to live has no gap: reading the last slice and leaving `behind` is one step, with no wait in between. */
  function catchUp(follower: Follower): RecordedEvent[] {
    const slice = options.after(follower.position);
    follower.position = slice.position;
    follower.behind = !slice.atEnd;
    return slice.events;
  }

  const follow: EventStore["follow"] = async function* follow({ after, signal }) {
    const stopped = AbortSignal.any([signal, ending.signal]);
    const follower: Follower = {
      position: after === "start" ? 0 : Number(after),
      buffer: [],
      behind: true,
      wake: undefined,
    };
    const stop = () => wake(follower);
    stopped.addEventListener("abort", stop);
    followers.add(follower);
    try {
      while (!stopped.aborted) {
        if (follower.buffer.length > 0) {
          yield follower.buffer.splice(0);
        } else if (follower.behind) {
          const events = catchUp(follower);
          if (events.length > 0) yield events;
          if (follower.behind) await pause();
        } else {
          await new Promise<void>((resolve) => {
            follower.wake = resolve;
          });
        }
      }
    } finally {
      followers.delete(follower);
      stopped.removeEventListener("abort", stop);
    }
  };

  function giveTo(
    follower: Follower,
    events: readonly RecordedEvent[],
    firstPosition: number,
  ): void {
    if (follower.behind) return;
    const known = follower.position + 1 - firstPosition;
    if (known >= events.length) return;
    if (known < 0 || follower.buffer.length + events.length > bufferEventsMax) {
      follower.behind = true;
    } else {
      follower.position = firstPosition + events.length - 1;
      for (const event of known > 0 ? events.slice(known) : events) follower.buffer.push(event);
    }
    if (follower.behind || follower.buffer.length > 0) wake(follower);
  }

  return {
    follow,
    /** Whether anybody follows: if not, there is no need to make recorded events for them. */
    any: () => followers.size > 0,
    /** Hands over freshly appended events; their positions are one after the other. */
    handOver(events: readonly RecordedEvent[]): void {
      const oldest = events[0];
      if (!oldest) return;
      for (const follower of followers) giveTo(follower, events, Number(oldest.position));
    },
    /** Events may be stored that were never handed over: every follower looks. */
    lookAgain(): void {
      for (const follower of followers) {
        follower.behind = true;
        wake(follower);
      }
    },
    /** Ends every follower. */
    end: () => ending.abort(),
  };
}
