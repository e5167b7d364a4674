import type { NewEvent } from "#domain/events/events.ts";
import type { AppendOutcome, Clock, EventStore } from "#services/ports.ts";
import { createFollowers } from "#infra/event-store/followers.ts";
import {
  ANY_REVISION,
  expectedNumber,
  recordedFrom,
  rowsOf,
  toOutcome,
  type AppendRequest,
} from "#infra/event-store/append-request.ts";
import { openSqliteCore } from "#infra/event-store/sqlite-core.ts";
import type { Pragma } from "#infra/event-store/sqlite-file.ts";
import { openReads } from "#infra/event-store/sqlite-reads.ts";

export interface MemoryEventStore extends EventStore {
  /** Reads a setting of the connection, after changing it if a value is given: how tests fill the disk. */
  pragma(name: Pragma, value?: number): Promise<string | number>;
  close(): Promise<void>;
}

/**
 * An event store that lives in memory and judges by the same SQL as the file: for simulations. It has no thread, no
 * timer and no queue: an append is done when it is called, and whatever waits goes on in microtasks, in the same
 * order on every run.
 */
export function createMemoryEventStore(options: {
  clock: Clock;
  followEventsMax?: number;
}): MemoryEventStore {
  const { clock, followEventsMax: bufferEventsMax } = options;
  const core = openSqliteCore(":memory:");
  const pause = () => Promise.resolve();
  const { reads, after } = openReads(core.db, pause);
  const followers = createFollowers({ after, pause, bufferEventsMax });
  let closed = false;

  function write(request: AppendRequest, events: readonly NewEvent[]): AppendOutcome {
    if (closed) return { outcome: "refused", reason: "closed" };
    try {
      const { judged, recordedAt } = core.appendAll([request], clock.now());
      const judgement = judged[0];
      if (!judgement) throw new Error("an append was not judged");
      if (followers.any())
        followers.handOver(recordedFrom(request.stream, events, judgement, recordedAt));
      return toOutcome(judgement);
    } catch (error) {
      return {
        outcome: "unknown",
        reason: error instanceof Error ? error.message : "the store failed",
      };
    }
  }

  return {
    async append(stream, events, expected) {
      if (events.length === 0) throw new TypeError("an append needs at least one event");
      return write({ stream, expected: expectedNumber(expected), rows: rowsOf(events) }, events);
    },
    async fence(stream, event) {
      const outcome = write({ stream, expected: ANY_REVISION, rows: rowsOf([event]) }, [event]);
      if (outcome.outcome === "appended") return outcome.position;
      throw new Error(`the fence of ${stream} was not written: ${outcome.outcome}`, {
        cause: outcome,
      });
    },
    ...reads,
    follow: followers.follow,
    pragma: async (name, value) => core.pragma(name, value),
    async close() {
      if (closed) return;
      closed = true;
      followers.end();
      core.close();
    },
  };
}
