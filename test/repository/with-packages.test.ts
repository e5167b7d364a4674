import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";

/** What `npm start` and `npm test` do before anything else, with an npm of our own that needs no network. */

const root = fileURLToPath(new URL("../../", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "relai-packages-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const LOCK = {
  "": { name: "relai" },
  "node_modules/one": { version: "1.0.0", integrity: "sha512-one" },
  "node_modules/one/node_modules/two": { version: "2.0.0", integrity: "sha512-two" },
  "node_modules/tested": { version: "3.0.0", integrity: "sha512-three", dev: true },
  "node_modules/elsewhere": { version: "4.0.0", integrity: "sha512-four", optional: true },
};

/** An `npm ci` that notes how it was called, and then does what FAKE says, or else what npm does. */
const npm = join(scratch, "npm-cli.js");
writeFileSync(
  npm,
  `const { appendFileSync, mkdirSync, readFileSync, writeFileSync } = require("node:fs");
  appendFileSync("npm-ran", process.argv.slice(2).join(" ") + "\\n");
  console.log("added 3 packages");
  function install() {
    const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8"));
    const here = Object.entries(packages).filter(([path, { optional }]) => path !== "" && !optional);
    for (const [path, { version }] of here) {
      mkdirSync(path, { recursive: true });
      writeFileSync(path + "/package.json", JSON.stringify({ version }));
    }
    writeFileSync("node_modules/.package-lock.json", JSON.stringify({ packages: Object.fromEntries(here) }));
  }
  if (process.env.FAKE === "fails") process.exit(9);
  if (process.env.FAKE === undefined) install();
  else {
    process.on("SIGTERM", () => {
      if (process.env.FAKE === "ends well") install();
      process.exit(process.env.FAKE === "ends well" ? 0 : 143);
    });
    setTimeout(() => process.exit(8), 10_000);
    console.log("waiting");
  }`,
);

const main = `const words: string[] = process.argv.slice(2);
  console.log("runs", ...words);
  process.exit(7);`;

const lockFile = (folder: string) => join(folder, "package-lock.json");
/** What npm itself notes of what it has installed. */
const installedFile = (folder: string) => join(folder, "node_modules/.package-lock.json");
const write = (path: string, entries: object) =>
  writeFileSync(path, JSON.stringify({ packages: entries }));

/** A fresh clone: the programs, a lock file, and a command line that says what it was started with. */
function clone(name: string): string {
  const folder = join(scratch, name);
  mkdirSync(join(folder, "services/cli"), { recursive: true });
  cpSync(join(root, "bin"), join(folder, "bin"), { recursive: true });
  cpSync(join(root, "package.json"), join(folder, "package.json"));
  writeFileSync(join(folder, "services/cli/main.ts"), main);
  write(lockFile(folder), LOCK);
  return folder;
}

const calls = (folder: string) => {
  const path = join(folder, "npm-ran");
  return existsSync(path) ? readFileSync(path, "utf8").trim().split("\n") : [];
};

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs what the scripts run, as npm would: with `words` what `npm start` runs, without any what `npm test` begins with. */
function run(
  folder: string,
  words: readonly string[],
  options: {
    fake?: string;
    env?: Record<string, string>;
    onWaiting?: (pid: number) => void;
  } = {},
): Promise<Ended> {
  const child = spawn(process.execPath, ["bin/with-packages.mjs", ...words], {
    cwd: folder,
    env: {
      PATH: process.env["PATH"],
      npm_execpath: npm,
      npm_node_execpath: process.execPath,
      ...(options.fake !== undefined && { FAKE: options.fake }),
      ...options.env,
    },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 15_000,
    killSignal: "SIGKILL",
  });
  let [out, err] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (text.includes("waiting")) options.onWaiting?.(child.pid ?? 0);
    err += text;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, out, err }));
  });
}

const quietly = { code: 7, out: "runs start --json\n", err: "" };
const start = ["start", "--json"] as const;

test("a fresh clone is told that npm ci runs first, and then runs with its arguments and its exit code", async () => {
  const folder = clone("fresh");
  expect(await run(folder, start)).toEqual({
    code: 7,
    // What npm says goes to stderr: what relai prints is for scripts.
    out: "runs start --json\n",
    err: "relai: the packages are not installed yet, so npm ci runs first\nadded 3 packages\n",
  });
  expect(calls(folder)).toEqual(["ci --loglevel=error"]);
});

test("a second start installs nothing, also when the lock file is only newer by its time", async () => {
  const folder = clone("second");
  await run(folder, start);
  expect(await run(folder, start)).toEqual(quietly);
  const later = new Date(Date.now() + 3_600_000);
  utimesSync(lockFile(folder), later, later);
  expect(await run(folder, start)).toEqual(quietly);
  expect(calls(folder)).toHaveLength(1);
});

test("the packages of this repository, as npm itself noted them, are those of its lock file", async () => {
  expect(await run(root, [], { fake: "fails" })).toEqual({ code: 0, out: "", err: "" });
});

describe("npm ci runs again, and the reason is said, where", () => {
  const one = LOCK["node_modules/one"];
  test.for<[string, (folder: string) => void, string]>([
    [
      "the lock file names another version",
      (folder) =>
        write(lockFile(folder), { ...LOCK, "node_modules/one": { ...one, version: "1.0.1" } }),
      "one 1.0.0 is not what package-lock.json names",
    ],
    [
      "the lock file names other contents of a version",
      (folder) =>
        write(lockFile(folder), { ...LOCK, "node_modules/one": { ...one, integrity: "sha512-x" } }),
      "one 1.0.0 is not what package-lock.json names",
    ],
    [
      "the lock file names one more",
      (folder) => write(lockFile(folder), { ...LOCK, "node_modules/@a/b": { ...one } }),
      "@a/b is not installed",
    ],
    [
      "the lock file names one less",
      (folder) => {
        const { "node_modules/one/node_modules/two": _, ...rest } = LOCK;
        write(lockFile(folder), rest);
      },
      "one/node_modules/two is installed and not in package-lock.json",
    ],
    [
      "packages were removed by hand",
      (folder) => rmSync(join(folder, "node_modules/one"), { recursive: true }),
      "one is not installed",
    ],
    [
      "npm noted what it did not install (npm install --package-lock-only)",
      (folder) => {
        const newer = { ...LOCK, "node_modules/one": { ...one, version: "1.0.1" } };
        write(lockFile(folder), newer);
        const { "": _, "node_modules/elsewhere": __, ...noted } = newer;
        write(installedFile(folder), noted);
      },
      "one 1.0.0 is not what package-lock.json names",
    ],
    [
      "npm's own note is cut short",
      (folder) => writeFileSync(installedFile(folder), "{"),
      "the packages are not installed yet",
    ],
  ])("%s", async ([name, change, reason]) => {
    const folder = clone(name);
    await run(folder, start);
    change(folder);
    const { err, ...ended } = await run(folder, start);
    expect(err).toBe(`relai: ${reason}, so npm ci runs first\nadded 3 packages\n`);
    expect(ended).toEqual({ code: 7, out: quietly.out });
    expect(calls(folder)).toHaveLength(2);
    expect(await run(folder, start)).toEqual(quietly);
  });
});

test("an installation without what only tests need does for a start, and not for the tests", async () => {
  const folder = clone("production");
  await run(folder, start);
  const { "node_modules/one": one, "node_modules/one/node_modules/two": two } = LOCK;
  write(installedFile(folder), {
    "node_modules/one": one,
    "node_modules/one/node_modules/two": two,
  });
  expect(await run(folder, start)).toEqual(quietly);
  // npm leaves such packages out where NODE_ENV says production, so it is told to take them.
  expect(await run(folder, [])).toMatchObject({ code: 0, out: "" });
  expect(calls(folder)).toEqual(["ci --loglevel=error", "ci --loglevel=error --include=dev"]);
});

test("an npm ci that fails ends with one sentence and its exit code, and nothing is started", async () => {
  for (const words of [start, []]) {
    const ended = await run(clone(`fails-${words.length}`), words, { fake: "fails" });
    expect(ended).toMatchObject({ code: 9, out: "" });
    expect(ended.err).toMatch(/\nrelai: npm ci failed with exit code 9, so .*\n$/);
  }
});

test.for(["ends", "ends well"])(
  "SIGTERM ends an npm ci that %s, and relai is not started",
  async (fake) => {
    const folder = clone(fake);
    const onWaiting = (pid: number) => process.kill(pid, "SIGTERM");
    const ended = await run(folder, start, { fake, onWaiting });
    expect(ended).toMatchObject({ code: 143, out: "" });
    // What was started holds the pipes of this test, so it has ended too.
    expect(calls(folder)).toHaveLength(1);
  },
);

test("where another program than npm runs the script, the npm of the path installs", async () => {
  const folder = clone("path");
  const programs = join(scratch, "programs");
  mkdirSync(programs);
  writeFileSync(join(programs, "npm"), `#!/bin/sh\nexec "${process.execPath}" "${npm}" "$@"\n`, {
    mode: 0o755,
  });
  const env = {
    npm_execpath: join(programs, "yarn.js"),
    PATH: `${programs}:${process.env["PATH"]}`,
  };
  expect(await run(folder, start, { env })).toMatchObject({ code: 7, out: quietly.out });
  expect(calls(folder)).toHaveLength(1);
});
