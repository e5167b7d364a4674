import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readSecretFile, SecretFileError, writeSecretFile } from "./files.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "relai-files-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

test("a secret file is written, replaced and read, and only its owner can use it", () => {
  const path = join(folder, "token");
  expect(readSecretFile(path)).toBeUndefined();
  writeSecretFile(path, "first");
  writeSecretFile(path, "second ü");
  expect(readSecretFile(path)).toBe("second ü");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(existsSync(`${path}.new`)).toBe(false);
});

test("what a killed write left behind neither stands in the way nor lends its mode", () => {
  const path = join(folder, "token");
  writeFileSync(`${path}.new`, "half", { mode: 0o644 });
  writeSecretFile(path, "whole");
  expect(readSecretFile(path)).toBe("whole");
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test("a file that others may read or write is refused, with the remedy and without its content", () => {
  const path = join(folder, "token");
  writeSecretFile(path, "canary-secret");
  for (const mode of [0o640, 0o604, 0o620, 0o644]) {
    chmodSync(path, mode);
    let caught: unknown;
    try {
      readSecretFile(path);
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(SecretFileError);
    expect(String(caught)).toContain(`chmod 600 '${path}'`);
    expect(String(caught)).not.toContain("canary-secret");
  }
});
