import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

/** A server of our own, run from a program on this machine. */
export interface StartedProgram {
  readonly pid: number;
  /** Where it may write; a temporary folder that goes with the server unless it was given. */
  readonly folder: string;
  /** Ends it at once, as a crash would; resolves when it is gone. */
  kill(): Promise<void>;
  /** Asks it to end, and ends it where it has not within `limitMs`. */
  end(limitMs: number): Promise<void>;
}

const LOOK_EVERY_MS = 20;
/** So much of what a server prints is kept, to say why it did not start. */
const PRINTED_MAX = 20_000;

/**
 * What ends a server whose starter was killed: it waits for the end of its input, which comes with the end of whoever holds
 * the other side, however that ends. A server that nobody knows any more would run for ever.
 */
const AFTER_US = 'read -r _; kill -s KILL -- "-$0"; if [ -n "$1" ]; then rm -rf -- "$1"; fi';

/**
 * Starts a server, and resolves when it is ready. It has a process group of its own, so that Ctrl-C reaches who started it
 * and not the server, and a script that started it in turn ends with it. Rejects with what it printed when it ends first,
 * or is not ready in time; then it is gone.
 */
export async function startProgram(options: {
  readonly program: string;
  readonly args: (folder: string) => readonly string[];
  readonly env?: (folder: string) => Readonly<Record<string, string>>;
  /** A folder that stays; without it a temporary one is made. */
  readonly folder?: string | undefined;
  /** Asked again and again, told all that was printed. */
  readonly isReady: (printed: string) => boolean | Promise<boolean>;
  readonly readyMsMax: number;
}): Promise<StartedProgram> {
  const { program, args, isReady, readyMsMax } = options;
  const name = basename(program);
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), `relai-${name}-`));
  const child = spawn(program, args(folder), {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"], ...options.env?.(folder) },
    detached: true,
  });
  let isGone = false;
  let printed = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => {
      printed = (printed + text).slice(-PRINTED_MAX);
    });
  const signal = (name: "SIGTERM" | "SIGKILL") => {
    if (child.pid === undefined || isGone) return;
    try {
      process.kill(-child.pid, name);
    } catch {
      // It ended by itself, which is about to be told.
    }
  };
  const endWithUs = () => signal("SIGKILL");
  process.once("exit", endWithUs);
  const stopWatch = watch(child.pid, options.folder === undefined ? folder : "");
  const gone = once(child, "close")
    .catch((error: unknown) => void (printed += String(error)))
    .then(() => {
      isGone = true;
      stopWatch();
      process.off("exit", endWithUs);
      if (options.folder === undefined) rmSync(folder, { recursive: true, force: true });
    });
  const kill = async () => {
    signal("SIGKILL");
    await gone;
  };

  const dueMs = performance.now() + readyMsMax;
  while (!(await isReady(printed))) {
    const isLate = performance.now() >= dueMs;
    if (isLate) await kill();
    if (isGone) {
      const why = isLate ? `was not ready within ${readyMsMax} ms` : "did not start";
      throw new Error(`${name} ${why}:\n${printed}`);
    }
    await Promise.race([pause(LOOK_EVERY_MS), gone]);
  }
  return {
    pid: child.pid ?? 0,
    folder,
    kill,
    async end(limitMs) {
      signal("SIGTERM");
      const timer = setTimeout(endWithUs, limitMs);
      await gone;
      clearTimeout(timer);
    },
  };
}

/** Gives what calls the watch off. */
function watch(pid: number | undefined, temporaryFolder: string): () => void {
  if (pid === undefined) return () => {};
  const watcher = spawn("/bin/sh", ["-c", AFTER_US, String(pid), temporaryFolder], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  watcher.unref();
  return () => {
    watcher.kill("SIGKILL");
    watcher.stdin.destroy();
  };
}

/** A port of 127.0.0.1 that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no free port was given");
  return address.port;
}
