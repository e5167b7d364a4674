import { freePort, startProgram, type StartedProgram } from "./program.ts";

/** A Redis or Valkey of our own on 127.0.0.1. It keeps nothing on disk unless its arguments say so. */
export interface StartedRedis extends Pick<StartedProgram, "pid" | "folder" | "kill"> {
  readonly url: string;
  readonly port: number;
}

const READY_MS_MAX = 10_000;

/** Starts a server on a free port. Rejects with what it printed where it does not become ready. */
export async function startRedis(options: {
  /** `redis-server` or `valkey-server`. */
  readonly program: string;
  readonly port?: number;
  readonly folder?: string;
  readonly args?: readonly string[];
}): Promise<StartedRedis> {
  const { program, folder, args = [] } = options;
  const port = options.port ?? (await freePort());
  const volatile = ["--save", "", "--appendonly", "no"];
  const { pid, kill, ...started } = await startProgram({
    program,
    folder,
    args: (at) =>
      [["--bind", "127.0.0.1", "--port", String(port), "--dir", at], volatile, args].flat(),
    isReady: (printed) => printed.includes("Ready to accept connections"),
    readyMsMax: READY_MS_MAX,
  });
  return { url: `redis://127.0.0.1:${port}`, port, folder: started.folder, pid, kill };
}
