import type { DatabaseSync, StatementSync } from "node:sqlite";

/** What every SQLite file of relai is opened and read with. */

/** How long a connection waits for another process's lock before it gives up. */
export const BUSY_MS_MAX = 2_000;

/** Sets up a connection that was just opened, and closes it when that fails. */
export function setUp(db: DatabaseSync, work: () => void): DatabaseSync {
  try {
    work();
  } catch (error) {
    db.close();
    throw error;
  }
  return db;
}

// Primary result codes of sqlite3.h; extended codes carry more above the low byte.
export const SQLITE_ERROR = 1;
export const SQLITE_BUSY = 5;
export const SQLITE_READONLY = 8;
export const SQLITE_CORRUPT = 11;
export const SQLITE_FULL = 13;
export const SQLITE_NOTADB = 26;

/** SQLite's primary result code in an error; undefined for an error of another kind. */
export function codeOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !("errcode" in error)) return undefined;
  return Number(error.errcode) & 0xff;
}

/** Looks at every page of the file. */
export function isDamaged(db: DatabaseSync): boolean {
  return first(arrays(db, "PRAGMA quick_check(1)"))?.[0] !== "ok";
}

/** A statement whose rows come as arrays, which is cheaper than as objects. */
export function arrays(db: DatabaseSync, sql: string): StatementSync {
  const statement = db.prepare(sql);
  statement.setReturnArrays(true);
  return statement;
}

/** The first row of a statement made by {@link arrays}. */
export function first(
  statement: StatementSync,
  ...values: (string | number)[]
): readonly unknown[] | undefined {
  const row: unknown = statement.get(...values);
  return Array.isArray(row) ? row : undefined;
}

/** The first column of the only row that a query gives. */
export function numberOf(db: DatabaseSync, sql: string): number {
  return Number(first(arrays(db, sql))?.[0]);
}
