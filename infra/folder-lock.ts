import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { FolderLock } from "#services/ports.ts";
import { codeOf, SQLITE_BUSY } from "./sqlite.ts";

/** Two starts at the same moment can meet in the middle of locking; within this time one of the two gets through. */
const CONTENTION_MS = 250;

/** Another process (or another part of this one) works on the data folder. */
export class FolderLocked extends Error {
  override readonly name = "FolderLocked";
  constructor(path: string) {
    super(`The data folder ${path} is in use by another relai process.`);
  }
}

/** Keeps the databases alive: a lock whose holder was garbage-collected would be open without a word. */
const held = new Set<DatabaseSync>();

/**
 * Takes a data folder for this process, making the folder (mode 0700) if there is none. Throws `FolderLocked` when
 * somebody has it.
 *
 * The lock is an exclusive transaction, held open, on a database of its own. The kernel takes it back when the process
 * ends, however it ends, and not before: a stopped process keeps it. A file with a process id in it promises neither.
 */
export function lockFolder(path: string): FolderLock {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const database = new DatabaseSync(join(path, "lock.sqlite"), { timeout: CONTENTION_MS });
  try {
    database.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    throw codeOf(error) === SQLITE_BUSY ? new FolderLocked(path) : error;
  }
  held.add(database);
  return {
    release() {
      if (held.delete(database)) database.close();
    },
  };
}
