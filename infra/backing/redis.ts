import { spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";

/** Where a Redis for tests comes from. */
export type RedisSource =
  | { readonly from: "url"; readonly url: string }
  | { readonly from: "program"; readonly program: string }
  | { readonly from: "nowhere"; readonly reason: string };

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * A server that somebody names in RELAI_TEST_REDIS_URL, else the program `redis-server` to start one of our own, else
 * nowhere. Throws where REQUIRE_SERVERS asks for Redis and there is none, so that no machine skips what it should prove.
 */
export function findRedis(env: Environment): RedisSource {
  const url = env["RELAI_TEST_REDIS_URL"];
  if (url !== undefined && url !== "") return { from: "url", url };
  for (const folder of (env["PATH"] ?? "").split(delimiter)) {
    const program = join(folder, "redis-server");
    if (folder !== "" && isProgram(program)) return { from: "program", program };
  }
  const reason = "no RELAI_TEST_REDIS_URL and no redis-server on the PATH";
  const required = (env["REQUIRE_SERVERS"] ?? "").split(",").map((name) => name.trim());
  if (required.includes("redis")) throw new Error(`REQUIRE_SERVERS asks for redis: ${reason}`);
  return { from: "nowhere", reason };
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A server of our own on 127.0.0.1. It keeps nothing on disk unless its arguments say so. */
export interface StartedRedis {
  readonly url: string;
  readonly port: number;
  /** Where it may write; a temporary folder that goes with the server unless it was given. */
  readonly folder: string;
  readonly pid: number;
  /** Stops it at once, as a crash would; resolves when it is gone. */
  kill(): Promise<void>;
}

const START_MS_MAX = 10_000;

/** Starts a server on a free port. Rejects with what it printed where it does not become ready. */
export async function startRedis(options: {
  readonly program: string;
  readonly port?: number;
  readonly folder?: string;
  readonly args?: readonly string[];
}): Promise<StartedRedis> {
  const port = options.port ?? (await freePort());
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), "relai-redis-"));
  const fixed = ["--bind", "127.0.0.1", "--port", String(port), "--dir", folder];
  const volatile = ["--save", "", "--appendonly", "no"];
  const child = spawn(options.program, [...fixed, ...volatile, ...(options.args ?? [])], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"] },
  });
  const endWithUs = () => void child.kill("SIGKILL");
  process.once("exit", endWithUs);
  const gone = once(child, "exit").then(() => {
    process.off("exit", endWithUs);
    if (options.folder === undefined) rmSync(folder, { recursive: true, force: true });
  });
  const kill = async () => {
    child.kill("SIGKILL");
    await gone;
  };

  const printed: string[] = [];
  const ready = new Promise<true>((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      printed.push(line);
      if (line.includes("Ready to accept connections")) resolve(true);
    });
    createInterface({ input: child.stderr }).on("line", (line) => void printed.push(line));
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), START_MS_MAX);
  });
  const isReady = await Promise.race([ready, late, gone.then(() => false)]);
  clearTimeout(timer);
  if (!isReady || child.pid === undefined) {
    await kill();
    throw new Error(`redis-server did not start:\n${printed.join("\n")}`);
  }
  return { url: `redis://127.0.0.1:${port}`, port, folder, pid: child.pid, kill };
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
