import type { DatabaseSync, StatementSync } from "node:sqlite";
import { readEvent, type RecordedEvent } from "#domain/events/events.ts";
import type { EventMark } from "#services/ports.ts";
import { arrays, first } from "#infra/sqlite.ts";

/** Rows read in one go: a few milliseconds of work, after which others get their turn. */
export const SLICE_EVENTS_MAX = 500;

/** A stretch of the store: its events, the last position in it, and whether that was the end. */
export interface Slice {
  readonly events: RecordedEvent[];
  readonly position: number;
  readonly atEnd: boolean;
}

export type SqliteSlices = ReturnType<typeof createSlices>;

const COLUMNS = "position, stream, revision, id, type, recorded_at, data, metadata";
type Row = [number, number, number, string, string, number, string, string];
const STREAMS_CACHED_MAX = 100_000;

/**
 * Reads events over a connection to the store's file, synchronously.
 * Every read throws `UnreadableEvent` when it meets one that this version cannot read.
 */
export function createSlices(db: DatabaseSync) {
  const all = arrays(
    db,
    `SELECT ${COLUMNS} FROM events WHERE position > ? ORDER BY position LIMIT ${SLICE_EVENTS_MAX}`,
  );
  const forward = arrays(
    db,
    `SELECT ${COLUMNS} FROM events WHERE stream = ? AND revision >= ? ORDER BY revision LIMIT ?`,
  );
  const backward = arrays(
    db,
    `SELECT ${COLUMNS} FROM events WHERE stream = ? AND revision <= ? ORDER BY revision DESC LIMIT ?`,
  );
  const streamNamed = arrays(db, "SELECT stream FROM streams WHERE name = ?");
  const nameOf = arrays(db, "SELECT name FROM streams WHERE stream = ?");
  const last = arrays(db, "SELECT max(position) FROM events");
  const mark = arrays(db, "SELECT id, recorded_at FROM events WHERE position = ?");
  const names = new Map<number, string>();

  function streamName(stream: number): string {
    const cached = names.get(stream);
    if (cached !== undefined) return cached;
    const name = first(nameOf, stream)?.[0];
    if (typeof name !== "string")
      throw new Error(`the event store holds events of a stream ${stream} without a name`);
    if (names.size >= STREAMS_CACHED_MAX) names.clear();
    names.set(stream, name);
    return name;
  }

  return {
    /** At most {@link SLICE_EVENTS_MAX} stored events after a position (0 for the start). */
    after(position: number): Slice {
      const rows = rowsFrom(all, position);
      return {
        events: rows.map((row) => eventOf(row, streamName(row[1]))),
        position: rows.at(-1)?.[0] ?? position,
        atEnd: rows.length < SLICE_EVENTS_MAX,
      };
    },
    /** A stream from a revision, inclusive; the start of a backward read from the end is Number.MAX_SAFE_INTEGER. */
    stream(name: string, from: number, direction: "forward" | "backward", max: number) {
      const stream = first(streamNamed, name)?.[0];
      if (typeof stream !== "number") return [];
      return rowsFrom(direction === "forward" ? forward : backward, stream, from, max).map((row) =>
        eventOf(row, name),
      );
    },
    /** The newest event's position; 0 for an empty store. */
    head: () => Number(first(last)?.[0] ?? 0),
    /** The store's identity. Throws for a file that nobody has opened for writing since stores have one. */
    identity: () => String(first(arrays(db, "SELECT identity FROM store"))?.[0]),
    /** The event at a position, also one that this version cannot read. */
    eventAt(position: number): EventMark | undefined {
      const found = first(mark, position);
      return found && { id: String(found[0]), recordedAt: Number(found[1]) };
    },
  };
}

// The table is STRICT, so a row is what its columns say.
function rowsFrom(statement: StatementSync, ...values: number[]): Row[] {
  return statement.all(...values) as unknown as Row[];
}

function eventOf(row: Row, stream: string): RecordedEvent {
  const [position, , revision, id, type, recordedAt, data, metadata] = row;
  const place = { stream, revision: BigInt(revision), position: BigInt(position) };
  return readEvent({ id, type, ...place, recordedAt }, data, metadata);
}
