import type { NewEvent, RecordedEvent } from "#domain/events/events.ts";
import type { AppendOutcome, EventStore } from "#services/ports.ts";
import { NO_STREAM, type Judged } from "./append-request.ts";
import { SLICE_EVENTS_MAX, type SqliteSlices } from "./sqlite-slices.ts";

/** What every SQLite event store says at its port: the core's plain numbers become the port's bigints. */

/** The core's judgement as the port's outcome. */
export function toOutcome(judged: Judged): AppendOutcome {
  if (judged.outcome === "refused") return judged;
  if (judged.outcome === "conflict") {
    const { outcome, actual } = judged;
    return { outcome, actual: actual === NO_STREAM ? "no_stream" : BigInt(actual) };
  }
  const { outcome, revision, position } = judged;
  return { outcome, revision: BigInt(revision), position: BigInt(position) };
}

/** The events of an append as recorded, made of the very objects that were appended; none if it wrote nothing new. */
export function recordedFrom(
  stream: string,
  events: readonly NewEvent[],
  judged: Judged,
  recordedAt: number,
): RecordedEvent[] {
  if (judged.outcome !== "appended" || !judged.fresh) return [];
  const revision = BigInt(judged.revision - events.length + 1);
  const position = BigInt(judged.position - events.length + 1);
  return events.map((event, at) => {
    const { id, type, data, metadata } = event;
    const here = { revision: revision + BigInt(at), position: position + BigInt(at) };
    // The type and the data of a NewEvent belong together, which the compiler loses sight of here.
    return { id, type, data, metadata, stream, ...here, recordedAt } as RecordedEvent;
  });
}

/** What a connection reads for the port, giving others their turn after every slice. */
export function storeReads(
  slices: SqliteSlices,
  pause: () => Promise<void>,
): Pick<EventStore, "read" | "head" | "identity" | "eventAt"> {
  return {
    async read(stream, { from, direction, max }) {
      const step = direction === "forward" ? 1 : -1;
      // The end lies behind the last event: nothing is forward of it.
      if (from === "end" && direction === "forward") return [];
      let next = from === "start" ? 0 : from === "end" ? Number.MAX_SAFE_INTEGER : Number(from);
      const events: RecordedEvent[] = [];
      for (;;) {
        const want = Math.min(max - events.length, SLICE_EVENTS_MAX);
        if (want <= 0) return events;
        const slice = slices.stream(stream, next, direction, want);
        events.push(...slice);
        const last = slice.at(-1);
        if (slice.length < want || !last) return events;
        next = Number(last.revision) + step;
        await pause();
      }
    },
    async head() {
      const head = slices.head();
      return head === 0 ? "start" : BigInt(head);
    },
    identity: async () => slices.identity(),
    eventAt: async (position) => slices.eventAt(Number(position)),
  };
}
