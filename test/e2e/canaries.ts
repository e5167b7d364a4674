import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";

/** Strings that nobody else would write, put where secrets are, and the search for them in whatever relai leaves. */

/** A text of 20 letters and digits. With less than that a finding could be chance, with more a cut one could hide. */
export function canary(): string {
  return `k${randomBytes(10).toString("hex").slice(1)}`;
}

const escaped = (text: string, write: (unit: string) => string) =>
  Array.from(Buffer.from(text), (byte) => write(byte.toString(16).padStart(2, "0"))).join("");

/** What base64 makes of a text that begins at this place of a group of three, without the characters that its neighbours share. */
function base64At(text: string, offset: 0 | 1 | 2): string {
  const encoded = Buffer.from(`${"\0".repeat(offset)}${text}`).toString("base64");
  return encoded.slice(
    Math.ceil((offset * 8) / 6),
    Math.floor(((offset + Buffer.byteLength(text)) * 8) / 6),
  );
}

/** Every way in which a text is looked for, by its name. Letters and digits stand for themselves in JSON and in URLs. */
export function formsOf(text: string): Record<string, Buffer> {
  const hex = Buffer.from(text).toString("hex");
  const swapped = Buffer.from(text, "utf16le").swap16();
  return {
    plain: Buffer.from(text),
    "UTF-16, low byte first": Buffer.from(text, "utf16le"),
    "UTF-16, high byte first": swapped,
    "JSON escapes": Buffer.from(escaped(text, (unit) => `\\u00${unit}`)),
    "JSON escapes in capitals": Buffer.from(escaped(text, (unit) => `\\u00${unit.toUpperCase()}`)),
    "percent escapes": Buffer.from(escaped(text, (unit) => `%${unit}`)),
    "percent escapes in capitals": Buffer.from(escaped(text, (unit) => `%${unit.toUpperCase()}`)),
    hexadecimal: Buffer.from(hex),
    "hexadecimal in capitals": Buffer.from(hex.toUpperCase()),
    "base64 at 0": Buffer.from(base64At(text, 0)),
    "base64 at 1": Buffer.from(base64At(text, 1)),
    "base64 at 2": Buffer.from(base64At(text, 2)),
  };
}

/** Where to look: bytes by the name of their place. */
export type Places = ReadonlyMap<string, Buffer>;

/** Every finding as `<canary> in <place> (<form>)`, in the order of the alphabet. */
export function search(places: Places, canaries: Readonly<Record<string, string>>): string[] {
  const findings: string[] = [];
  for (const [name, text] of Object.entries(canaries)) {
    for (const [form, bytes] of Object.entries(formsOf(text))) {
      for (const [place, content] of places)
        if (content.includes(bytes)) findings.push(`${name} in ${place} (${form})`);
    }
  }
  return findings.sort();
}

/** Every file of a folder, by its path in it. */
export function filesIn(folder: string): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(relative(folder, path), readFileSync(path));
  }
  return files;
}

/** The permission bits of a file, as `600`. */
export function modeOf(path: string): string {
  return (statSync(path).mode & 0o777).toString(8);
}

/** A process of which every byte that it says is kept. */
export interface Heard {
  readonly pid: number;
  readonly stdout: () => Buffer;
  readonly stderr: () => Buffer;
  /** Settles when it has ended and all that it said has come. */
  readonly closed: Promise<void>;
  /** The first line of its standard output; rejects when it ends without one. */
  readonly firstLine: Promise<string>;
  kill(signal: NodeJS.Signals): void;
}

/** Starts this Node with arguments and nothing but these settings. */
export function listenTo(
  args: readonly string[],
  settings: Readonly<Record<string, string>>,
): Heard {
  const child = spawn(process.execPath, args, {
    env: { PATH: process.env["PATH"] ?? "", ...settings },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  child.stderr.on("data", (piece: Buffer) => stderr.push(piece));
  const firstLine = new Promise<string>((resolve, reject) => {
    child.stdout.on("data", (piece: Buffer) => {
      stdout.push(piece);
      const text = Buffer.concat(stdout).toString();
      if (text.includes("\n")) resolve(text.slice(0, text.indexOf("\n")));
    });
    void closed.then(() =>
      reject(new Error(`it ended without a line: ${Buffer.concat(stderr).toString()}`)),
    );
  });
  firstLine.catch(() => {});
  return {
    pid: child.pid ?? 0,
    stdout: () => Buffer.concat(stdout),
    stderr: () => Buffer.concat(stderr),
    closed,
    firstLine,
    kill: (signal) => void child.kill(signal),
  };
}
