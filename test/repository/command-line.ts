import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";

export const BIN = fileURLToPath(new URL("../../bin/relai.mjs", import.meta.url));

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** The command line as processes of their own, in a data folder by whose file they find a running server. */
export function commandLine(scratch: string) {
  function relai(
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<Ended> {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [BIN, ...args], {
        cwd: scratch,
        env: { PATH: process.env["PATH"], RELAI_DATA_DIR: scratch, ...env },
        stdio: ["ignore", "pipe", "pipe"],
        timeout: 15_000,
      });
      let out = "";
      let err = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
      child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text));
      child.on("error", reject);
      child.on("close", (code) => resolve({ code, out, err }));
    });
  }

  /** Runs a command that must do its work quietly, and reads the JSON that it prints. */
  async function json<T = Record<string, unknown>>(...args: readonly string[]): Promise<T> {
    const ended = await relai([...args, "--json"]);
    expect(ended).toMatchObject({ code: 0, err: "" });
    return JSON.parse(ended.out) as T;
  }

  return { relai, json };
}
