import { spawn } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
} from "node:fs";
import { rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "relai-boot-"));
afterAll(() => rmSync(scratch, { recursive: true }));

type Ended = { readonly code: number | null; readonly stdout: string; readonly stderr: string };

/** Runs plain Node, without vitest's compiler, until it ends or 15 s have passed (then `code` is null). */
async function runNode(
  args: readonly string[],
  onOutput?: (text: string, pid: number) => void,
): Promise<Ended> {
  const child = spawn(process.execPath, args, {
    cwd: scratch,
    env: { PATH: process.env["PATH"], RELAI_DATA_DIR: join(scratch, "data") },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 15_000,
    killSignal: "SIGKILL",
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    if (child.pid !== undefined) onOutput?.(stdout, child.pid);
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

/**
 * Loads a file and all that it imports, as Node itself reads them, without running any of it: modules are linked
 * before the first is evaluated, and the first to be evaluated ends the process. So syntax that Node does not
 * erase, a missing file and a missing export all show, and a worker's entry needs no parent.
 */
async function link(path: string): Promise<Ended> {
  const entry = `import "data:text/javascript,process.exit(0)"; import ${JSON.stringify(pathToFileURL(path).href)};`;
  return runNode(["--input-type=module", "--eval", entry]);
}

const programs = ["services", "infra", "test"]
  .flatMap((folder) =>
    existsSync(join(root, folder))
      ? readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((path) =>
          join(folder, path),
        )
      : [],
  )
  .filter((path) => /(^|[/-])(main|worker)\.ts$/.test(path));

describe("every program starts under plain Node", () => {
  test("some are found", () => expect(programs).toContain("services/cli/main.ts"));

  test.for(programs)("%s can be loaded", async (path) => {
    expect(await link(join(root, path))).toEqual({ code: 0, stdout: "", stderr: "" });
  });

  test("bin/relai.mjs prints its help", async () => {
    const ended = await runNode([join(root, "bin/relai.mjs"), "--help"]);
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    expect(ended.stdout).toContain("start");
  });

  test.for([
    ["enum", "enum Colour { Red }", "enum is not supported"],
    ["missing export", 'import { gone } from "./there.ts"; gone();', "does not provide an export"],
    ["missing file", 'import "./nowhere.ts";', "Cannot find module"],
  ] as const)("a program with a fault is seen: %s", async ([name, text, message]) => {
    writeFileSync(join(scratch, "there.ts"), "export const here = 1;\n");
    const path = join(scratch, `${name.replace(" ", "-")}.ts`);
    writeFileSync(path, text);
    const ended = await link(path);
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain(message);
  });
});

test("relai start takes its settings from --config, and no option that it does not know", async () => {
  const bin = join(root, "bin/relai.mjs");
  const file = join(scratch, "settings.json");
  writeFileSync(file, JSON.stringify({ RELAI_DRAIN_MS: "soon" }));
  const ended = await runNode([bin, "start", "--config", file]);
  expect(ended).toMatchObject({ code: 2, stdout: "" });
  expect(ended.stderr).toContain(`RELAI_DRAIN_MS in ${file} is "soon"`);
  expect(await runNode([bin, "start", "--confg", file])).toMatchObject({ code: 2, stdout: "" });
});

describe("npm start", () => {
  /** Says whether somebody listens at an address. */
  const isListening = (url: string) => fetch(`${url}/healthz`).then(Boolean, () => false);

  /** Says whether a group of processes has no process any more. */
  function isGone(group: number): boolean {
    try {
      return !process.kill(-group, 0);
    } catch {
      return true;
    }
  }

  test("hands SIGTERM on: what runs is drained, npm ends as relai does, and nothing is left", async ({
    skip,
    onTestFinished,
  }) => {
    const dataDir = join(scratch, "npm");
    const freePorts = ["GATEWAY", "CONTROL", "INTERNAL", "SIMULATOR"].map(
      (name) => [`RELAI_${name}_PORT`, "0"] as const,
    );
    const npm = spawn("npm", ["start", "--", "--json"], {
      cwd: root,
      env: {
        PATH: process.env["PATH"],
        HOME: process.env["HOME"],
        RELAI_DATA_DIR: dataDir,
        ...Object.fromEntries(freePorts),
      },
      stdio: ["ignore", "pipe", "ignore"],
      // A group of its own, so that whatever a failing test leaves behind can be ended.
      detached: true,
    });
    onTestFinished(() => {
      if (npm.pid !== undefined && !isGone(npm.pid)) process.kill(-npm.pid, "SIGKILL");
    });
    const missing = new Promise((resolve) => npm.once("error", resolve));
    const ended = new Promise((resolve) =>
      npm.once("exit", (code, signal) => resolve(code ?? signal)),
    );
    const ready = new Promise<string>((resolve) => {
      let text = "";
      npm.stdout.setEncoding("utf8").on("data", (piece: string) => {
        text += piece;
        const line = /^\{"ready":true.*$/m.exec(text)?.[0];
        if (line !== undefined) resolve(line);
      });
    });
    const first = await Promise.race([ready, missing, ended]);
    if (first instanceof Error) skip("npm is not installed");
    const { regions } = JSON.parse(String(first)) as { regions: { us: Record<string, string> } };
    const urls = Object.values(regions.us);
    expect(await Promise.all(urls.map(isListening))).toEqual([true, true, true]);
    npm.kill("SIGTERM");
    expect(await ended).toBe(0);
    expect(await Promise.all(urls.map(isListening))).toEqual([false, false, false]);
    // The end of a drain, not of a kill: the file by which the process was found is gone.
    expect(existsSync(join(dataDir, "control.json"))).toBe(false);
    expect(isGone(npm.pid ?? 0)).toBe(true);
  });
});

describe("bin/relai.mjs on an old Node", () => {
  // Says to the launcher alone that this Node is an old one; the Node that it starts does not see it.
  const old =
    "data:text/javascript,Object.defineProperty(process.versions,'node',{value:'20.20.2'})";

  /** A copy of the launcher with a command line of one's own, and this Node as the packaged one if asked for. */
  function installation(name: string, options: { main: string; packaged: boolean }): string {
    const folder = join(scratch, name);
    mkdirSync(join(folder, "services/cli"), { recursive: true });
    cpSync(join(root, "bin"), join(folder, "bin"), { recursive: true });
    cpSync(join(root, "package.json"), join(folder, "package.json"));
    writeFileSync(join(folder, "services/cli/main.ts"), options.main);
    const platform = `-${process.platform}-${process.arch}`;
    const { optionalDependencies } = JSON.parse(
      readFileSync(join(root, "package.json"), "utf8"),
    ) as {
      optionalDependencies: Record<string, string>;
    };
    const node =
      Object.keys(optionalDependencies).find((one) => one.endsWith(platform)) ?? `node${platform}`;
    if (options.packaged) {
      mkdirSync(join(folder, "node_modules", node, "bin"), { recursive: true });
      symlinkSync(process.execPath, join(folder, "node_modules", node, "bin/node"));
    }
    const launcher = join(folder, "bin/relai.mjs");
    chmodSync(launcher, 0o755);
    return launcher;
  }

  test("hands arguments, output and exit code through", async () => {
    const main = `const a: string[] = process.argv.slice(2); console.log(process.versions.node, ...a); process.exit(7);`;
    const launcher = installation("through", { main, packaged: true });
    expect(await runNode(["--import", old, launcher, "start", "--json"])).toEqual({
      code: 7,
      stdout: `${process.versions.node} start --json\n`,
      stderr: "",
    });
  });

  test.for(["SIGTERM", "SIGINT", "SIGHUP"] as const)("forwards %s", async (signal) => {
    const main = `process.on("${signal}", () => { console.log("drained"); process.exit(0); });
      setTimeout(() => process.exit(9), 10_000); console.log("ready");`;
    const launcher = installation(`forwards-${signal}`, { main, packaged: true });
    const sent = new Set<string>();
    const ended = await runNode(["--import", old, launcher], (output, pid) => {
      if (!output.includes("ready") || sent.has(signal)) return;
      sent.add(signal);
      process.kill(pid, signal);
    });
    expect(ended).toEqual({ code: 0, stdout: "ready\ndrained\n", stderr: "" });
  });

  test("ends as a shell reports it when the program is killed", async () => {
    const launcher = installation("killed", {
      main: `process.kill(process.pid, "SIGKILL");`,
      packaged: true,
    });
    expect((await runNode(["--import", old, launcher])).code).toBe(137);
  });

  test("says in one sentence what is missing, and exits 2", async () => {
    const launcher = installation("missing", { main: "", packaged: false });
    const ended = await runNode(["--import", old, launcher]);
    expect(ended).toMatchObject({ code: 2, stdout: "" });
    expect(ended.stderr).toMatch(/^relai: needs Node 24 or newer.*npm ci.*\n$/);
  });
});
