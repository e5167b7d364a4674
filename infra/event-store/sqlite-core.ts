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
 * memory store write with it; reading stands in sqlite-reads.ts, so that the writer thread loads no event schema.
 */

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

/** A stream's number, by its name. */
const NUMBER = "(SELECT stream FROM streams WHERE name = ?)";

/** What is to be done with an append: it stands at `next`, or it is settled already. */
type Look = { readonly next: number } | Judged;

/** Prepares the look at what is stored already that judges an append; it writes nothing. */
function preparedLook(db: DatabaseSync) {
  const lastRevision = arrays(db, `SELECT max(revision) FROM events WHERE stream = ${NUMBER}`);
  const idsBetween = arrays(
    db,
    `SELECT id, position FROM events WHERE stream = ${NUMBER} AND revision BETWEEN ? AND ? ORDER BY revision`,
  );
  const fenceWithId = arrays(
    db,
    `SELECT revision, position FROM events WHERE stream = ${NUMBER} AND id = ? AND type = 'OwnerFenced.v1'`,
  );

  function look({ stream, expected, rows }: AppendRequest): Look {
    const actual = Number(first(lastRevision, stream)?.[0] ?? NO_STREAM);
    if (expected === ANY_REVISION) {
      const fence = first(fenceWithId, stream, rows[0] ?? "");
      return fence ? repeat(Number(fence[0]), Number(fence[1])) : { next: actual + 1 };
    }
    if (expected === actual) return { next: actual + 1 };
    return repeatOf(stream, expected, rows) ?? { outcome: "conflict", actual };
  }

  const repeat = (revision: number, position: number): Judged => {
    return { outcome: "appended", revision, position, fresh: false };
  };

  /** The first outcome of an identical append, if there was one: every id stands where it would stand. */
  function repeatOf(stream: string, expected: number, rows: readonly string[]): Judged | undefined {
    const count = rows.length / ROW_FIELDS;
    const found: unknown[] = idsBetween.all(stream, expected + 1, expected + count);
    const stored = found as [string, number][];
    if (stored.length !== count) return undefined;
    if (stored.some(([id], at) => id !== rows[at * ROW_FIELDS])) return undefined;
    return repeat(expected + count, Number(stored.at(-1)?.[1]));
  }

  return look;
}

function preparedWriter(db: DatabaseSync) {
  const begin = db.prepare("BEGIN IMMEDIATE");
  const commit = db.prepare("COMMIT");
  const addStream = db.prepare("INSERT INTO streams (name) VALUES (?)");
  const insert = db.prepare(
    `INSERT INTO events (position, stream, revision, recorded_at, id, type, data, metadata)
    VALUES (?, ${NUMBER}, ?, ?, ?, ?, ?, ?)`,
  );
  const tail = arrays(
    db,
    "SELECT position, recorded_at FROM events ORDER BY position DESC LIMIT 1",
  );
  const look = preparedLook(db);

  /** Inserts an append's rows, dated `at`; the first stands at a revision and a position. */
  function write(request: AppendRequest, revision: number, position: number, at: number): void {
    const { stream, rows } = request;
    if (revision === 0) addStream.run(stream);
    for (let row = 0; row * ROW_FIELDS < rows.length; row += 1) {
      const texts = rows.slice(row * ROW_FIELDS, (row + 1) * ROW_FIELDS);
      insert.run(position + row, stream, revision + row, at, ...texts);
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
