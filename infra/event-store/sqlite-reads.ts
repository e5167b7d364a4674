import type { DatabaseSync, StatementSync } from "node:sqlite";
import { readEvent, type RecordedEvent } from "#domain/events/events.ts";
import type { EventStore } from "#services/ports.ts";
import { arrays, first } from "#infra/sqlite.ts";

/** Rows read in one go: a few milliseconds of work, after which others get their turn. */
const SLICE_EVENTS_MAX = 500;

/** A stretch of the store: its events, the last position in it, and whether that was the end. */
export interface Slice {
  readonly events: RecordedEvent[];
  readonly position: number;
  readonly atEnd: boolean;
}

// A stream without a name, which only damage makes, shows its number.
const EVENTS = `SELECT position, ifnull(name, stream), revision, id, type, recorded_at, data, metadata
  FROM events LEFT JOIN streams USING (stream)`;
const OF_STREAM = `${EVENTS} WHERE stream = (SELECT stream FROM streams WHERE name = ?)`;
type Row = [number, string | number, number, string, string, number, string, string];

/**
 * Reads events over a connection to the store's file, synchronously, and what every SQLite event store reads for its
 * port, giving others their turn in a `pause` after every slice.
 * Every read throws `UnreadableEvent` when it meets an event that this version cannot read.
 */
export function openReads(db: DatabaseSync, pause: () => Promise<void>) {
  const all = arrays(
    db,
    `${EVENTS} WHERE position > ? ORDER BY position LIMIT ${SLICE_EVENTS_MAX}`,
  );
  const forward = arrays(db, `${OF_STREAM} AND revision >= ? ORDER BY revision LIMIT ?`);
  const backward = arrays(db, `${OF_STREAM} AND revision <= ? ORDER BY revision DESC LIMIT ?`);
  const newest = arrays(db, "SELECT max(position) FROM events");
  const mark = arrays(db, "SELECT id, recorded_at FROM events WHERE position = ?");

  const reads: Pick<EventStore, "read" | "head" | "identity" | "eventAt"> = {
    async read(stream, { from, direction, max }) {
      // The end lies behind the last event: nothing is forward of it.
      if (from === "end" && direction === "forward") return [];
      const [statement, step] = direction === "forward" ? [forward, 1] : [backward, -1];
      let next = from === "start" ? 0 : from === "end" ? Number.MAX_SAFE_INTEGER : Number(from);
      const events: RecordedEvent[] = [];
      for (;;) {
        const want = Math.min(max - events.length, SLICE_EVENTS_MAX);
        if (want <= 0) return events;
        const slice = rowsOf(statement, stream, next, want).map(eventOf);
        events.push(...slice);
        const last = slice.at(-1);
        if (slice.length < want || !last) return events;
        next = Number(last.revision) + step;
        await pause();
      }
    },
    async head() {
      const head = Number(first(newest)?.[0] ?? 0);
      return head === 0 ? "start" : BigInt(head);
    },
    // Throws for a file that nobody has opened for writing since stores have an identity.
    identity: async () => String(first(arrays(db, "SELECT identity FROM store"))?.[0]),
    // Also one that this version cannot read.
    async eventAt(position) {
      const found = first(mark, Number(position));
      return found && { id: String(found[0]), recordedAt: Number(found[1]) };
    },
  };

  return {
    reads,
    /**
     * At most {@link SLICE_EVENTS_MAX} stored events after a position (0 for the start). What precedes an event that
     * cannot be read is given by itself.
     */
    after(position: number): Slice {
      const events: RecordedEvent[] = [];
      let atEnd = true;
      try {
        for (const row of rowsOf(all, position)) events.push(eventOf(row));
        atEnd = events.length < SLICE_EVENTS_MAX;
      } catch (error) {
        if (events.length === 0) throw error;
        atEnd = false;
      }
      const end = events.at(-1)?.position ?? position;
      return { events, position: Number(end), atEnd };
    },
  };
}

// The tables are STRICT, so a row is what its columns say.
function rowsOf(statement: StatementSync, ...values: (string | number)[]): Row[] {
  const rows: unknown[] = statement.all(...values);
  return rows as Row[];
}

function eventOf(row: Row): RecordedEvent {
  const [position, stream, revision, id, type, recordedAt, data, metadata] = row;
  if (typeof stream !== "string")
    throw new Error(`the event store holds events of a stream ${stream} without a name`);
  const place = { stream, revision: BigInt(revision), position: BigInt(position) };
  return readEvent({ id, type, ...place, recordedAt }, data, metadata);
}
