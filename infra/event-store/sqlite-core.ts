import type { DatabaseSync } from "node:sqlite";
import {
  ANY_REVISION,
  isTooLarge,
  NO_STREAM,
  ROW_FIELDS,
  type AppendRequest,
  type Judged,
  type Written,
} from "./append-request.ts";
import { arrays, codeOf, first, SQLITE_FULL, SQLITE_READONLY } from "#infra/sqlite.ts";
import { openSqliteFile, pragmaOf, type Pragma } from "./sqlite-file.ts";

/**
 * The synchronous heart of the embedded event store: the judging and writing of appends. The writer thread and the
 * memory store write with it; reading stands in sqlite-slices.ts, so that the writer thread loads no event schema.
 */

/** Names of streams kept in memory; past this many they are forgotten and looked up again. */
const STREAMS_CACHED_MAX = 100_000;

/** Opens the store's file for writing; see {@link openSqliteFile} for what it throws. */
export function openSqliteCore(path: string) {
  const db = openSqliteFile(path);
  return {
    /**
     * Writes several appends in one transaction, each judged on its own; durable when it returns. A full disk or a
     * read-only file refuses all of them, but for repeats of what is already there.
     * @throws when the outcome is not certain (an I/O error): the connection should then be given up.
     */
    appendAll: preparedWriter(db),
    /** Reads a setting of this very connection, after changing it if a value is given. */
    pragma: (name: Pragma, value?: number) => pragmaOf(db, name, value),
    db,
    close: () => db.close(),
  };
}

/** What is to be done with an append: it stands at `next`, or it is settled already. */
type Look = { readonly next: number } | Judged;

/** The streams' numbers, by name. */
function streamNumbers(db: DatabaseSync) {
  const named = arrays(db, "SELECT stream FROM streams WHERE name = ?");
  const add = db.prepare("INSERT INTO streams (name) VALUES (?)");
  const known = new Map<string, number>();

  function remember(name: string, stream: number): number {
    if (known.size >= STREAMS_CACHED_MAX) known.clear();
    known.set(name, stream);
    return stream;
  }
  function get(name: string): number | undefined {
    const cached = known.get(name);
    if (cached !== undefined) return cached;
    const found = first(named, name)?.[0];
    return typeof found === "number" ? remember(name, found) : undefined;
  }
  return {
    get,
    getOrAdd: (name: string): number =>
      get(name) ?? remember(name, Number(add.run(name).lastInsertRowid)),
    /** After a rollback: what was added is gone. */
    forget: () => known.clear(),
  };
}

/** Prepares the look at what is stored already that judges an append; it writes nothing. */
function preparedLook(db: DatabaseSync, numbers: ReturnType<typeof streamNumbers>) {
  const lastRevision = arrays(db, "SELECT max(revision) FROM events WHERE stream = ?");
  const idsBetween = arrays(
    db,
    "SELECT id, position FROM events WHERE stream = ? AND revision BETWEEN ? AND ? ORDER BY revision",
  );
  const fenceWithId = arrays(
    db,
    "SELECT revision, position FROM events WHERE stream = ? AND id = ? AND type = 'OwnerFenced.v1'",
  );

  function look({ stream: name, expected, rows }: AppendRequest): Look {
    const stream = numbers.get(name);
    const actual =
      stream === undefined ? NO_STREAM : Number(first(lastRevision, stream)?.[0] ?? NO_STREAM);
    if (expected === actual || stream === undefined) {
      return expected === actual || expected === ANY_REVISION
        ? { next: actual + 1 }
        : { outcome: "conflict", actual };
    }
    if (expected === ANY_REVISION) {
      const fence = first(fenceWithId, stream, rows[0] ?? "");
      if (!fence) return { next: actual + 1 };
      return repeat(Number(fence[0]), Number(fence[1]));
    }
    return repeatOf(stream, expected, rows) ?? { outcome: "conflict", actual };
  }

  const repeat = (revision: number, position: number): Judged => {
    return { outcome: "appended", revision, position, fresh: false };
  };

  /** The first outcome of an identical append, if there was one: every id stands where it would stand. */
  function repeatOf(stream: number, expected: number, rows: readonly string[]): Judged | undefined {
    const count = rows.length / ROW_FIELDS;
    const stored = idsBetween.all(stream, expected + 1, expected + count) as unknown as [
      string,
      number,
    ][];
    if (stored.length !== count) return undefined;
    if (stored.some(([id], at) => id !== rows[at * ROW_FIELDS])) return undefined;
    return repeat(expected + count, Number(stored.at(-1)?.[1]));
  }

  return look;
}

function preparedWriter(db: DatabaseSync) {
  const begin = db.prepare("BEGIN IMMEDIATE");
  const commit = db.prepare("COMMIT");
  const insert = db.prepare("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  const tail = arrays(
    db,
    "SELECT position, recorded_at FROM events ORDER BY position DESC LIMIT 1",
  );
  const numbers = streamNumbers(db);
  const look = preparedLook(db, numbers);

  function write(
    request: AppendRequest,
    revision: number,
    position: number,
    recordedAt: number,
  ): void {
    const { rows } = request;
    const stream = numbers.getOrAdd(request.stream);
    for (let at = 0, offset = 0; at < rows.length; at += ROW_FIELDS, offset += 1) {
      const place = [position + offset, stream, revision + offset];
      const [id = null, type = null, data = null, metadata = null] = rows.slice(
        at,
        at + ROW_FIELDS,
      );
      insert.run(...place, id, type, recordedAt, data, metadata);
    }
  }

  function transaction(requests: readonly AppendRequest[], nowMs: number): Written {
    begin.run();
    const [lastPosition, lastRecordedAt] = first(tail) ?? [0, 0];
    let position = Number(lastPosition);
    const recordedAt = Math.max(Number(lastRecordedAt), Math.trunc(nowMs));
    const judged = requests.map((request): Judged => {
      if (isTooLarge(request.rows)) return { outcome: "refused", reason: "too_large" };
      const seen = look(request);
      if (!("next" in seen)) return seen;
      const count = request.rows.length / ROW_FIELDS;
      write(request, seen.next, position + 1, recordedAt);
      position += count;
      return { outcome: "appended", revision: seen.next + count - 1, position, fresh: true };
    });
    commit.run();
    return { judged, recordedAt };
  }

  /** After a refusal: a repeat of what is in the file must not hear that it is certainly not written. */
  function refused(request: AppendRequest, reason: "disk_full" | "read_only"): Judged {
    if (isTooLarge(request.rows)) return { outcome: "refused", reason: "too_large" };
    const seen = look(request);
    return "next" in seen || seen.outcome !== "appended" ? { outcome: "refused", reason } : seen;
  }

  return (requests: readonly AppendRequest[], nowMs: number): Written => {
    try {
      return transaction(requests, nowMs);
    } catch (error) {
      // SQLite ends the transaction itself after some errors, after others it leaves that to us.
      if (db.isTransaction) db.exec("ROLLBACK");
      numbers.forget();
      const reason = refusalOf(error);
      if (!reason) throw error;
      return { judged: requests.map((request) => refused(request, reason)), recordedAt: nowMs };
    }
  };
}

// Both are certain: the pages of the transaction never became part of the file. An I/O error is not, because a sync may
// have failed after the bytes had reached the disk.
function refusalOf(error: unknown): "disk_full" | "read_only" | undefined {
  const code = codeOf(error);
  if (code === SQLITE_FULL) return "disk_full";
  return code === SQLITE_READONLY ? "read_only" : undefined;
}
