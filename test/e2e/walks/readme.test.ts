import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { eventsIn } from "#test/e2e/money/books.ts";
import {
  BIN,
  balanceOf,
  environment,
  leavesNothingRunning,
  newFolder,
  startRelai,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

const root = fileURLToPath(new URL("../../../", import.meta.url));

/** The blocks of one language in the README's ten minutes, up to the section that kills relai. */
function walk(language: string): string[] {
  const text = readFileSync(join(root, "README.md"), "utf8");
  const minutes = text.slice(text.indexOf("\n## Ten minutes"), text.indexOf("\n### Kill it"));
  const blocks = minutes.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms"));
  return [...blocks].map(([, block]) => block ?? "");
}

/** Runs a script in a folder; gives what it printed. */
async function shell(
  folder: string,
  script: string,
): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn("bash", ["-c", script], {
    cwd: folder,
    env: { ...environment({}), BIN, NODE: process.execPath },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (piece: Buffer) => (out += piece.toString()));
  child.stderr.on("data", (piece: Buffer) => (err += piece.toString()));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { code, out, err };
}

test("the README's ten minutes work as they are written", async ({ skip }) => {
  const folder = newFolder();
  if ((await shell(folder, "curl --version")).code !== 0) skip("curl is not installed");
  const dataDir = join(folder, ".relai");
  mkdirSync(dataDir);
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  const [hello = ""] = walk("js");
  writeFileSync(join(folder, "hello.mjs"), hello);
  // Python's client is not part of this repository; `npx relai` is what package.json's bin names.
  const blocks = walk("sh").filter((block) => !block.startsWith("python3"));
  expect(blocks.length).toBeGreaterThan(4);
  const npx = 'npx() { shift; "$NODE" "$BIN" "$@"; }';

  const relai = await startRelai({ dataDir });
  const { code, out, err } = await shell(folder, ["set -e", npx, ...blocks].join("\n"));
  expect([code, err.split("\n").filter((line) => /^relai: |rror:/.test(line))]).toEqual([0, []]);
  // One 200 of `curl -i`, then what each `ask` ends with, the last one with the revoked key.
  expect(out).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  const statuses = [...out.matchAll(/^(\d{3})$/gm)].map(([status]) => Number(status));
  expect(statuses).toEqual([200, 402, 402, 200, 200, 429, 401]);
  const codes = [...out.matchAll(/"code":"(\w+)"/g)].map(([, name]) => name);
  expect(codes).toEqual([
    "key_budget_exceeded",
    "insufficient_balance",
    "rate_limit_exceeded",
    "key_revoked",
  ]);
  expect(out).toMatch(/Hello! This is .* arrived\. 22\nHello! This is .* arrived\.\n/);
  expect(out).toContain('"credits_micro":9999980,');
  const added = [...out.matchAll(/^Added 0\.05 USD to \S+ \((lot_\w+)\)$/gm)].map(([, lot]) => lot);
  expect(added).toHaveLength(2);
  expect(new Set(added).size).toBe(1);
  expect(out).toMatch(/^Revoked key relai_sk_us_live_/m);
  // One by curl, two by the client, each twenty micro as the text says; the embeddings' 0.4 micro round to nothing.
  expect((await balanceOf(relai)).credits_micro).toBe(10_000_000 - 3 * 20);
  const charged = (await eventsIn(relai)).filter(({ type }) => type === "UsageRecorded.v1");
  expect(charged).toHaveLength(7);
  expect(await relai.stop()).toBe(0);
});
