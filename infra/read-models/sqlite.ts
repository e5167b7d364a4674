import { existsSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import {
  arrays,
  BUSY_MS_MAX,
  codeOf,
  first,
  isDamaged,
  numberOf,
  setUp,
  SQLITE_CORRUPT,
  SQLITE_ERROR,
  SQLITE_NOTADB,
} from "#infra/sqlite.ts";
import type { PackedRows, Slice } from "#projections/rows.ts";
import type { ReadModel, ReadModels } from "#services/ports.ts";

// "rlrm" in a file's header: a read model of relai.
const APPLICATION_ID = 0x726c726d;
/** The layout of the tables here; a projection's own version says what its rows mean. */
const LAYOUT = 1;
/** Files up to this size are checked in full when they are opened, which takes a fraction of a second. */
const CHECKED_BYTES_MAX = 64 * 1024 * 1024;
/** Rows that are read at once, so that no text comes near to the longest that there can be. */
const PIECE_ROWS_MAX = 5_000;
/** Comes behind every key. */
const LAST = "\u{10FFFF}";
/** Where the keys begin that come behind a key and all that belongs to it: "0" follows "/". */
const behind = (key: string) => `${key}0`;

const SCHEMA = `
CREATE TABLE rows (tbl TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (tbl, key)) STRICT, WITHOUT ROWID;
CREATE TABLE model (
  version INTEGER NOT NULL,
  store TEXT NOT NULL,
  position INTEGER NOT NULL,
  event_id TEXT NOT NULL,
  recorded_at INTEGER NOT NULL
) STRICT;
PRAGMA application_id = ${APPLICATION_ID};
PRAGMA user_version = ${LAYOUT};`;

/**
 * Read models as SQLite files, one a projection: `<folder>/<name>.sqlite`, while it is rebuilt `<name>.aside.sqlite`
 * beside it. A commit is atomic but may be lost in a power cut (synchronous NORMAL): the next start folds those events
 * again. A file that is damaged, or no read model, or of another version is dropped and starts empty, which
 * `onDropped` is told.
 */
export function openSqliteReadModels(options: {
  folder: string;
  onDropped: (name: string, reason: string) => void;
  /** Told of each file that is opened. Tests that fill the disk keep hold of it here. */
  onOpen?: (db: DatabaseSync) => void;
}): ReadModels {
  const { folder, onDropped } = options;
  const open = new Map<string, DatabaseSync>();
  mkdirSync(folder, { recursive: true, mode: 0o700 });

  const pathOf = (name: string) => join(folder, `${name}.sqlite`);
  const asideOf = (name: string) => `${name}.aside`;

  function close(name: string): void {
    open.get(name)?.close();
    open.delete(name);
  }

  function keep(name: string, db: DatabaseSync): ReadModel {
    open.set(name, db);
    options.onOpen?.(db);
    return modelOf(db);
  }

  /** An empty one in the place of whatever is there. */
  function anew(name: string, version: number): ReadModel {
    close(name);
    drop(pathOf(name));
    return keep(name, create(pathOf(name), version));
  }

  return {
    async open(name, version) {
      close(name);
      if (existsSync(pathOf(name))) {
        const found = openWhole(pathOf(name), version);
        if (typeof found !== "string") return keep(name, found);
        onDropped(name, found);
      }
      return anew(name, version);
    },
    openAside: async (name, version) => anew(asideOf(name), version),
    async swapIn(name) {
      if (!open.has(asideOf(name))) throw new Error(`no read model ${name} was made aside`);
      // To close is to bring the write-ahead log into the file; a crash between the steps leaves nothing, or the new one.
      close(asideOf(name));
      close(name);
      drop(pathOf(name));
      renameSync(pathOf(asideOf(name)), pathOf(name));
      return keep(name, connect(pathOf(name)));
    },
    async close() {
      for (const db of open.values()) db.close();
      open.clear();
    },
  };
}

function connect(path: string): DatabaseSync {
  const db = new DatabaseSync(path, { timeout: BUSY_MS_MAX, defensive: true });
  const settings =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 67108864";
  return setUp(db, () => db.exec(settings));
}

function create(path: string, version: number): DatabaseSync {
  const db = connect(path);
  const model = `INSERT INTO model VALUES (${version}, '', 0, '', 0)`;
  return setUp(db, () => db.exec(`BEGIN; ${SCHEMA} ${model}; COMMIT`));
}

/** Opens an existing file, or says why it is of no use. Throws where the file may be good but cannot be had now. */
function openWhole(path: string, version: number): DatabaseSync | string {
  let db: DatabaseSync | undefined;
  try {
    db = connect(path);
    const reason = uselessBecause(db, path, version);
    if (reason === undefined) return db;
    db.close();
    return reason;
  } catch (error) {
    if (db?.isOpen) db.close();
    if (DAMAGE.includes(codeOf(error))) return "the file is damaged";
    throw error;
  }
}

function uselessBecause(db: DatabaseSync, path: string, version: number): string | undefined {
  if (numberOf(db, "PRAGMA application_id") !== APPLICATION_ID) return "the file is no read model";
  if (statSync(path).size <= CHECKED_BYTES_MAX && isDamaged(db)) return "the file is damaged";
  if (numberOf(db, "PRAGMA user_version") !== LAYOUT)
    return "another version of relai wrote the file";
  const written = first(arrays(db, "SELECT version FROM model"))?.[0];
  return written === version
    ? undefined
    : `version ${String(written)} wrote the file, this is version ${version}`;
}

// A table that is missing is SQLITE_ERROR.
const DAMAGE: readonly unknown[] = [SQLITE_ERROR, SQLITE_CORRUPT, SQLITE_NOTADB];

/** Removes a file with what SQLite keeps beside it. */
function drop(path: string): void {
  for (const suffix of ["", "-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true });
}

function modelOf(db: DatabaseSync): ReadModel {
  const put = db.prepare("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)");
  const remove = db.prepare("DELETE FROM rows WHERE tbl = ? AND key = ?");
  const move = db.prepare(
    "UPDATE model SET store = ?, position = ?, event_id = ?, recorded_at = ?",
  );
  const place = db.prepare("SELECT store, position, event_id, recorded_at FROM model");
  place.setReadBigInts(true);
  const names = db.prepare("SELECT DISTINCT tbl FROM rows ORDER BY tbl");
  // SQLite makes the text: to make an object of each row first takes several times as long.
  const piece = db.prepare(`
    SELECT '[' || group_concat(json_quote(key) || ',' || value) || ']' AS json,
      max(key) AS last
    FROM (
      SELECT key, value FROM rows WHERE tbl = ? AND key >= ? AND key > ? AND key < ?
      ORDER BY key LIMIT ${PIECE_ROWS_MAX})`);
  const keysBehind = db.prepare(`
    SELECT max(key) AS last
    FROM (SELECT key FROM rows WHERE tbl = ? AND key >= ? ORDER BY key LIMIT ?)`);

  /** The keys of a slice: from the first, included, to the last, excluded. Undefined where there are none. */
  function keysOf(slice: Slice | undefined): readonly [from: string, below: string] | undefined {
    if (!slice) return ["", LAST];
    if ("of" in slice) return [slice.of, behind(slice.of)];
    const from = slice.after === "" ? "" : behind(slice.after);
    const last = keysBehind.get(slice.in, from, slice.max)?.["last"];
    return typeof last === "string" ? [from, behind(last)] : undefined;
  }

  // Nothing is awaited in here, so no commit comes in between.
  function rows(tables: readonly string[] | undefined, slice: Slice | undefined): PackedRows {
    const keys = keysOf(slice);
    const packed: PackedRows[number][] = [];
    if (!keys) return packed;
    const [from, below] = keys;
    for (const table of tables?.toSorted() ?? names.all().map(({ tbl }) => String(tbl))) {
      let found = piece.get(table, from, "", below);
      for (; found?.["last"]; found = piece.get(table, from, found["last"], below))
        packed.push({ table, json: String(found["json"]) });
    }
    return packed;
  }

  return {
    async checkpoint() {
      const { store, position, event_id, recorded_at } = place.get() ?? {};
      if (typeof position !== "bigint" || position === 0n) return "start";
      const event = { id: String(event_id), recordedAt: Number(recorded_at) };
      return { store: String(store), position, event };
    },
    rows: async (tables, slice) => rows(tables, slice),
    rowsAt: (tables, key) => rows(tables, { of: key }),
    async commit(writes, checkpoint) {
      db.exec("BEGIN IMMEDIATE");
      try {
        for (const { table, key, value } of writes) {
          if (value === null) remove.run(table, key);
          else put.run(table, key, JSON.stringify(value));
        }
        const { store, position, event } = checkpoint;
        move.run(store, position, event.id, event.recordedAt);
        db.exec("COMMIT");
      } catch (error) {
        // A full disk may have ended the transaction already.
        if (db.isTransaction) db.exec("ROLLBACK");
        throw error;
      }
    },
  };
}
