import {
  closeSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";

/** A file that holds a secret cannot be used as it is. The message says why and what to do. */
export class SecretFileError extends Error {
  override readonly name = "SecretFileError";
}

/**
 * Puts a text into a file that only its owner can read (mode 0600). After it returns, the file has its new content
 * also if the machine loses power; before that, readers see the old content or none, never a part.
 */
export function writeSecretFile(path: string, text: string): void {
  const aside = `${path}.new`;
  // One that a kill left behind may have another mode; it is made anew, so that no moment exists in which others can read.
  rmSync(aside, { force: true });
  writeFileSync(aside, text, { flag: "wx", mode: 0o600, flush: true });
  renameSync(aside, path);
  syncPath(dirname(path));
}

/**
 * Reads such a file; undefined when there is none. Throws `SecretFileError` when others than its owner may read or
 * write it, for then what it holds is no longer a secret.
 */
export function readSecretFile(path: string): string | undefined {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const mode = fstatSync(file).mode & 0o777;
    if ((mode & 0o077) !== 0) {
      throw new SecretFileError(
        `${path} holds a secret but has mode ${mode.toString(8)}, which lets others use it: ` +
          `replace the secret if they may have read it, then run chmod 600 '${path}'.`,
      );
    }
    return readFileSync(file, "utf8");
  } finally {
    closeSync(file);
  }
}

/** Syncs a file, or a folder: a new name in it outlives a power loss only when it was synced too. */
export function syncPath(path: string): void {
  const opened = openSync(path, "r");
  try {
    fsyncSync(opened);
  } finally {
    closeSync(opened);
  }
}
