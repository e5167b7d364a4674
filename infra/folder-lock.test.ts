import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FolderLocked, lockFolder } from "./folder-lock.ts";

let folder: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "relai-lock-")), "data");
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  rmSync(join(folder, ".."), { recursive: true });
});

/** A process that locks the folder, says what came of it, and stays. */
async function holder(): Promise<{ child: ChildProcess; said: string }> {
  const script = `
    import { lockFolder } from ${JSON.stringify(import.meta.resolve("./folder-lock.ts"))};
    try {
      lockFolder(${JSON.stringify(folder)});
      globalThis.gc();
      process.stdout.write("locked");
    } catch (error) {
      process.stdout.write(error.name);
    }
    setInterval(() => {}, 1000);
  `;
  const child = spawn(process.execPath, ["--expose-gc", "--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  const said = await new Promise<string>((resolve) => {
    child.stdout.once("data", (bytes: Buffer) => resolve(bytes.toString()));
  });
  return { child, said };
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  await gone;
}

test("a folder is made with mode 0700, held, refused to a second taker in the same process, and given back", () => {
  const lock = lockFolder(folder);
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  expect(() => lockFolder(folder)).toThrow(FolderLocked);
  // The failed try must not have loosened the first lock.
  expect(() => lockFolder(folder)).toThrow(FolderLocked);
  lock.release();
  lock.release();
  lockFolder(folder).release();
});

test("another process holds it until kill -9, also while it is stopped", async () => {
  const { child, said } = await holder();
  expect(said).toBe("locked");
  expect(() => lockFolder(folder)).toThrow(FolderLocked);
  child.kill("SIGSTOP");
  expect(() => lockFolder(folder)).toThrow(
    `The data folder ${folder} is in use by another relai process.`,
  );
  child.kill("SIGCONT");
  await end(child, "SIGKILL");
  const lock = lockFolder(folder);
  expect((await holder()).said).toBe("FolderLocked");
  lock.release();
  expect((await holder()).said).toBe("locked");
});

test("of several processes that start at once exactly one gets it", async () => {
  const said = (await Promise.all([holder(), holder(), holder(), holder()])).map(
    (each) => each.said,
  );
  expect(said.sort()).toEqual(["FolderLocked", "FolderLocked", "FolderLocked", "locked"]);
});

test("a fault that is no lock is not taken for one", () => {
  expect(() => lockFolder(join(folder, "\0"))).toThrow(/null bytes/u);
});
