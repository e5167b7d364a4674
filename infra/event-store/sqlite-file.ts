import { DatabaseSync } from "node:sqlite";
import { arrays, BUSY_MS_MAX, first, numberOf, setUp } from "#infra/sqlite.ts";

/** The file of the embedded event store: its tables, its settings, and how it is opened. */

export type Pragma =
  | "journal_mode"
  | "synchronous"
  | "query_only"
  | "max_page_count"
  | "page_count";

// "relai" in a file's header, so that `file` and a wrong path are told apart from any other database.
const APPLICATION_ID = 0x72656c61;
const SCHEMA_VERSION = 1;

// A table of its own, so that files which were made before stores had an identity get theirs when they are opened.
const IDENTITY = `
CREATE TABLE store (identity TEXT NOT NULL) STRICT;
INSERT INTO store VALUES (lower(hex(randomblob(16))));`;

// The partial index makes a repeated fence cheap to find; no other event is in it. Ids have no index: a repeat is
// found by its revision.
const SCHEMA = `
CREATE TABLE streams (stream INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE events (
  position INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL REFERENCES streams,
  revision INTEGER NOT NULL,
  id TEXT NOT NULL,
  type TEXT NOT NULL,
  recorded_at INTEGER NOT NULL,
  data TEXT NOT NULL,
  metadata TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_by_stream ON events (stream, revision);
CREATE INDEX fences ON events (stream, id) WHERE type = 'OwnerFenced.v1';
${IDENTITY}
PRAGMA application_id = ${APPLICATION_ID};
PRAGMA user_version = ${SCHEMA_VERSION};`;

/**
 * Opens the file for writing, made if it is not there; `:memory:` keeps everything in memory.
 * @throws when the file is no event store, or was written by a newer relai.
 */
export function openSqliteFile(path: string): DatabaseSync {
  const db = new DatabaseSync(path, {
    timeout: BUSY_MS_MAX,
    enableForeignKeyConstraints: false,
    defensive: true,
  });
  return setUp(db, () => {
    // Pages of 8 KiB read a third faster than the usual 4 and cost a single commit next to nothing.
    db.exec(
      "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON",
    );
    db.exec("PRAGMA cache_size = -8192; PRAGMA journal_size_limit = 67108864");
    if (
      numberOf(db, "PRAGMA user_version") === 0 &&
      numberOf(db, "SELECT count(*) FROM sqlite_schema") === 0
    ) {
      db.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT`);
    }
    checkVersion(db, path);
    if (numberOf(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'store'") === 0)
      renewIdentity(db);
  });
}

/** Gives the store another identity: what was folded from this file so far is none of it any more. */
export function renewIdentity(db: DatabaseSync): void {
  db.exec(`BEGIN IMMEDIATE; DROP TABLE IF EXISTS store; ${IDENTITY} COMMIT`);
}

/** Opens an existing file for reading only; any thread or process may, at any time. */
export function openSqliteReadOnly(path: string): DatabaseSync {
  const db = new DatabaseSync(path, { readOnly: true, timeout: BUSY_MS_MAX, defensive: true });
  return setUp(db, () => checkVersion(db, path));
}

/** Throws when the file is no event store, or one of another version. */
export function checkVersion(db: DatabaseSync, path: string): void {
  const version = numberOf(db, "PRAGMA user_version");
  if (numberOf(db, "PRAGMA application_id") !== APPLICATION_ID)
    throw new Error(`${path} is not an event store of relai`);
  if (version !== SCHEMA_VERSION)
    throw new Error(`${path} was written by another version of relai (schema ${version})`);
}

/** Reads a setting of a connection, after changing it if a value is given. */
export function pragmaOf(db: DatabaseSync, name: Pragma, value?: number): string | number {
  if (value !== undefined) db.exec(`PRAGMA ${name} = ${Math.trunc(value)}`);
  const answer = first(arrays(db, `PRAGMA ${name}`))?.[0];
  return typeof answer === "string" ? answer : Number(answer);
}
