import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import {
  alone,
  type Child,
  type Running,
  startNode,
  startServer,
  type Where,
} from "./processes.ts";
import { startEmbedded, startOnServers } from "./relai.ts";

/** What is measured: each target is a gateway in front of the same upstream. */
export interface Target {
  readonly name: string;
  readonly title: string;
  /** Durable commits that a request waits for; their cost is the disk's, not the gateway's. */
  readonly commits: number;
  /** Rejects with a LeftOut where this machine misses what it takes. */
  start(where: Where): Promise<Running>;
  /** The same under V8's profiler: these arguments go to the Node of each process that is measured. */
  profiled?(where: Where, nodeArgs: readonly string[]): Promise<Running>;
}

const START_MS_MAX = 20_000;
const PORTKEY_VERSION = "1.15.2";
// With the version that Portkey's own range takes today every stream answers 500.
const HONO_VERSION = "1.14.0";

function server(name: string, title: string): Target {
  const start = async ({ upstreamUrl, cores, folder }: Where): Promise<Running> => {
    const place = { core: cores?.gateway, folder };
    const { child, ready } = await startServer(`${name}.ts`, [upstreamUrl], place);
    return alone(ready.url, { authorization: `Bearer ${ready.key ?? "bench"}` }, child);
  };
  return { name, title, commits: 0, start };
}

/** Where Portkey is installed: outside the repository, once for all runs. */
function portkeyFolder(): string {
  return join(tmpdir(), `relai-bench-portkey-${PORTKEY_VERSION}-${HONO_VERSION}`);
}

function portkeyProgram(): string {
  return join(portkeyFolder(), "node_modules/@portkey-ai/gateway/build/start-server.js");
}

export function portkeyIsInstalled(): boolean {
  return existsSync(join(portkeyFolder(), "installed"));
}

function installPortkey(): void {
  const folder = portkeyFolder();
  mkdirSync(folder, { recursive: true });
  const manifest = {
    private: true,
    dependencies: { "@portkey-ai/gateway": PORTKEY_VERSION },
    overrides: { "@hono/node-server": HONO_VERSION },
  };
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  const flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
  execFileSync("npm", ["install", "--prefix", folder, ...flags], {
    stdio: "inherit",
    timeout: 180_000,
  });
  const hono = readFileSync(join(folder, "node_modules/@hono/node-server/package.json"), "utf8");
  if (!hono.includes(`"version": "${HONO_VERSION}"`))
    throw new Error("npm did not hold @hono/node-server");
  writeFileSync(join(folder, "installed"), "");
}

/** A port that was free a moment ago: Portkey cannot choose one by itself. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

/** Waits until something answers at a URL. */
async function answers(url: string, child: Child): Promise<void> {
  const untilMs = performance.now() + START_MS_MAX;
  while (performance.now() < untilMs && child.process.exitCode === null) {
    try {
      await fetch(url);
      return;
    } catch {
      await setTimeout(50);
    }
  }
  throw new Error(`nothing answers at ${url}`);
}

async function startPortkey({ upstreamUrl, cores, folder }: Where): Promise<Running> {
  if (!portkeyIsInstalled()) installPortkey();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const args = [portkeyProgram(), `--port=${port}`, "--headless"];
  const env = { NODE_ENV: "production" };
  const child = startNode({ name: "portkey", args, core: cores?.gateway, folder, env });
  const headers = {
    authorization: "Bearer bench",
    "x-portkey-provider": "openai",
    "x-portkey-custom-host": `${upstreamUrl}/v1`,
  };
  try {
    await Promise.race([child.died, answers(url, child)]);
  } catch (error) {
    await child.stop();
    throw error;
  }
  return alone(url, headers, child);
}

/** A folder of its own below `parent`. */
export function freshFolder(parent: string, name: string): string {
  return mkdtempSync(join(parent, `${name}-`));
}

/** In the order in which a round measures them: the one that the others are compared with comes first. */
export const TARGETS: readonly Target[] = [
  server("bare", "bare pass-through (node:http, undici)"),
  server("relay-only", "relai, relay only (no books)"),
  {
    name: "relai",
    title: "relai, everything on, embedded",
    commits: 2,
    start: startEmbedded,
    profiled: startEmbedded,
  },
  {
    name: "servers",
    title: "relai, everything on, two gateways on Redis and an event store",
    commits: 0,
    start: startOnServers,
    profiled: startOnServers,
  },
  {
    name: "portkey",
    title: `Portkey ${PORTKEY_VERSION} (no keys, no books)`,
    commits: 0,
    start: startPortkey,
  },
];
