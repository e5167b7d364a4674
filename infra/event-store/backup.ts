import { closeSync, existsSync, linkSync, openSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { backup, DatabaseSync } from "node:sqlite";
import { syncPath } from "#infra/files.ts";
import {
  BUSY_MS_MAX,
  codeOf,
  isDamaged,
  numberOf,
  setUp,
  SQLITE_BUSY,
  SQLITE_CORRUPT,
  SQLITE_NOTADB,
} from "#infra/sqlite.ts";
import { checkVersion, openSqliteReadOnly, renewIdentity } from "./sqlite-file.ts";

/** Backup and restore of the embedded event store. What cannot be done is thrown as an error of one sentence. */

/** What a copy of a store holds. */
export interface StoreCopy {
  readonly events: number;
  /** The newest event's position; 0 for a store without events. */
  readonly position: number;
  readonly bytes: number;
}

/** How much is copied before the next look at what else there is to do. */
const PAGES_AT_ONCE = 1_000;

/**
 * Writes a whole copy of the store in the file `from`, also beside the process that runs on it, into the file `to`,
 * which must not exist yet; see {@link intoNewFile}.
 */
export async function backUpEventStore(from: string, to: string): Promise<StoreCopy> {
  refuseNone(from);
  return intoNewFile(to, (part) => copyStore(from, part));
}

/**
 * Makes a backup in the file `to`, which must not exist yet, by `write`, which makes it beside. When it returns, `to`
 * (mode 0600) is on the disk, was read once in full and stands alone; a backup that fails leaves no file, and one that
 * is killed an empty one with the part beside it.
 */
export async function intoNewFile(
  to: string,
  write: (part: string) => Promise<StoreCopy>,
): Promise<StoreCopy> {
  if (existsSync(to)) throw new Error(`${to} exists already: a backup is a new file`);
  // To make the file is to be the only one who writes it.
  closeSync(openSync(to, "wx", 0o600));
  const part = `${to}.partial`;
  try {
    const copy = await write(part);
    renameSync(part, to);
    syncPath(dirname(to));
    return copy;
  } catch (error) {
    rmSync(part, { force: true });
    rmSync(to, { force: true });
    throw error;
  }
}

/**
 * Puts the backup `from` in the place of the store `to`, of which the caller has the folder's lock, in one step: a kill
 * at any moment leaves the one or the other. It gets an identity of its own, because its history parts from what
 * anybody has folded from the old one. The old store is kept beside it under the name that ends in `asideSuffix`.
 */
export async function restoreEventStore(
  from: string,
  to: string,
  asideSuffix: string,
): Promise<StoreCopy & { readonly aside: string | undefined }> {
  refuseNone(from);
  const part = `${to}.restoring`;
  const aside = existsSync(to) ? `${to}${asideSuffix}` : undefined;
  try {
    const copy = await copyStore(from, part, renewIdentity);
    if (aside !== undefined) putAside(to, aside);
    for (const suffix of ["-wal", "-shm"]) rmSync(`${to}${suffix}`, { force: true });
    renameSync(part, to);
    syncPath(dirname(to));
    return { ...copy, aside };
  } catch (error) {
    rmSync(part, { force: true });
    throw error;
  }
}

function refuseNone(path: string): void {
  if (!existsSync(path)) throw new Error(`there is no file ${path}`);
}

function copyStore(
  from: string,
  to: string,
  change: (db: DatabaseSync) => void = () => undefined,
): Promise<StoreCopy> {
  const copy = async () => {
    using source = openSqliteReadOnly(from);
    // One snapshot from the first page to the last: without it the copy begins anew with every commit of the writer.
    source.exec("BEGIN; SELECT count(*) FROM sqlite_schema");
    await backup(source, to, { rate: PAGES_AT_ONCE });
  };
  return makeCopy(from, to, copy, change);
}

/**
 * Makes a copy of the store that is called `name`: a file of one piece that `fill` writes and that may be changed then.
 * All of it is read, and it is on the disk when this returns.
 */
export async function makeCopy(
  name: string,
  to: string,
  fill: () => Promise<void>,
  change: (db: DatabaseSync) => void = () => undefined,
): Promise<StoreCopy> {
  for (const suffix of ["", "-journal", "-wal", "-shm"]) rmSync(`${to}${suffix}`, { force: true });
  closeSync(openSync(to, "wx", 0o600));
  try {
    await fill();
    using db = new DatabaseSync(to, { defensive: true });
    // Out of the write-ahead log's mode: such a file needs no other beside it and can be read from anywhere.
    db.exec("PRAGMA journal_mode = DELETE");
    change(db);
    const whole = wholeOf(db, name);
    syncPath(to);
    return { ...whole, bytes: statSync(to).size };
  } catch (error) {
    throw new Error(sentenceOf(error, name), { cause: error });
  }
}

/** Opens a backup for reading, which the caller closes. All of it is read once; throws a sentence unless it is whole. */
export function openBackup(path: string): { readonly db: DatabaseSync; readonly copy: StoreCopy } {
  refuseNone(path);
  try {
    const db = openSqliteReadOnly(path);
    let copy: StoreCopy = { events: 0, position: 0, bytes: statSync(path).size };
    setUp(db, () => {
      copy = { ...copy, ...wholeOf(db, path) };
    });
    return { db, copy };
  } catch (error) {
    throw new Error(sentenceOf(error, path), { cause: error });
  }
}

/** Reads everything; throws unless every page is whole and no position is missing. */
function wholeOf(db: DatabaseSync, name: string): { events: number; position: number } {
  checkVersion(db, name);
  const damaged = isDamaged(db);
  const events = numberOf(db, "SELECT count(*) FROM events");
  const position = numberOf(db, "SELECT ifnull(max(position), 0) FROM events");
  if (damaged || events !== position) throw new Error(`${name} is damaged`);
  return { events, position };
}

/**
 * Gives the store a second name. Its log is carried into it, since a log beside another file of the same name would be
 * taken for that file's own; that of a store which is too damaged for that is kept beside the second name, as it was.
 */
function putAside(path: string, aside: string): void {
  linkSync(path, aside);
  try {
    if (existsSync(`${path}-wal`)) linkSync(`${path}-wal`, `${aside}-wal`);
    if (carryLogIn(path)) rmSync(`${aside}-wal`, { force: true });
  } catch (error) {
    for (const suffix of ["", "-wal"]) rmSync(`${aside}${suffix}`, { force: true });
    throw error;
  }
}

/** False for a store that is damaged. Throws while another process has it open. */
function carryLogIn(path: string): boolean {
  try {
    using db = new DatabaseSync(path, { timeout: BUSY_MS_MAX, defensive: true });
    db.exec("PRAGMA journal_mode = DELETE");
    return true;
  } catch (error) {
    const code = codeOf(error);
    if (code === SQLITE_CORRUPT || code === SQLITE_NOTADB) return false;
    if (code !== SQLITE_BUSY) throw error;
    throw new Error(`another process reads ${path}: end it and try again`, { cause: error });
  }
}

function sentenceOf(error: unknown, name: string): string {
  const code = codeOf(error);
  if (code === SQLITE_NOTADB) return `${name} is not an event store of relai`;
  if (code === SQLITE_CORRUPT) return `${name} is damaged`;
  return error instanceof Error ? error.message : String(error);
}
