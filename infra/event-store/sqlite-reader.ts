import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock, EventStore } from "#services/ports.ts";
import { storeReads } from "./outcomes.ts";
import { openSqliteReadOnly } from "./sqlite-file.ts";
import { createSlices } from "./sqlite-slices.ts";

/**
 * Reads an event store's file beside the process or thread that writes it. Following looks for new events every
 * `pollMs`. Everything runs on the calling thread, with a turn for others after each slice.
 * @throws when there is no such file, or it is no event store of this version.
 */
export function openSqliteEventReader(options: { path: string; clock: Clock; pollMs: number }) {
  const { path, clock, pollMs } = options;
  const db = openSqliteReadOnly(path);
  const slices = createSlices(db);
  const closing = new AbortController();
  const asleep = new Set<() => void>();

  /** Waits, at most until the signal aborts. */
  function sleep(delayMs: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = clock.timer(delayMs, awake);
      function awake(): void {
        cancel();
        signal.removeEventListener("abort", awake);
        asleep.delete(awake);
        resolve();
      }
      asleep.add(awake);
      signal.addEventListener("abort", awake);
    });
  }

  const follow: EventStore["follow"] = async function* follow({ after, signal }) {
    const stopped = AbortSignal.any([signal, closing.signal]);
    let position = after === "start" ? 0 : Number(after);
    while (!stopped.aborted) {
      const slice = slices.after(position);
      position = slice.position;
      if (slice.events.length > 0) yield slice.events;
      await (slice.atEnd ? sleep(pollMs, stopped) : nextTurn());
    }
  };

  return {
    ...storeReads(slices, nextTurn),
    follow,
    /** Has those who follow look for new events now, and not only when it is time again. */
    lookNow(): void {
      for (const wake of asleep) wake();
    },
    async close(): Promise<void> {
      if (closing.signal.aborted) return;
      closing.abort();
      db.close();
    },
  };
}
