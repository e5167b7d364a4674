import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { z } from "zod";
import { type Child, startNode, startServer, within } from "./processes.ts";

/** What is measured: each target is a gateway in front of the same upstream. */
export interface Target {
  readonly name: string;
  readonly title: string;
  /** Durable commits that a request waits for; their cost is the disk's, not the gateway's. */
  readonly commits: number;
  start(where: Where): Promise<Running>;
}

export interface Where {
  readonly upstreamUrl: string;
  readonly core: number | undefined;
  /** An empty folder of this start's own. */
  readonly folder: string;
}

export interface Running {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly child: Child;
}

const START_MS_MAX = 20_000;
const PORTKEY_VERSION = "1.15.2";
// With the version that Portkey's own range takes today every stream answers 500.
const HONO_VERSION = "1.14.0";

function server(name: string, title: string): Target {
  const start = async ({ upstreamUrl, core, folder }: Where): Promise<Running> => {
    const { child, ready } = await startServer(`${name}.ts`, [upstreamUrl], { core, folder });
    return { url: ready.url, headers: { authorization: `Bearer ${ready.key ?? "bench"}` }, child };
  };
  return { name, title, commits: 0, start };
}

const readyLine = z.object({
  ready: z.literal(true),
  regions: z.record(z.string(), z.object({ gateway: z.string(), control: z.string() })),
});

/** Starts the product as a user does; `nodeArgs` go to Node itself. */
export async function startRelai(where: Where, nodeArgs: readonly string[] = []): Promise<Running> {
  const adminToken = "bench-admin-token-0123456789abcdef";
  const child = startNode({
    name: "relai",
    args: [...nodeArgs, join(import.meta.dirname, "../../bin/relai.mjs"), "start", "--json"],
    core: where.core,
    folder: where.folder,
    stdout: "pipe",
    env: {
      RELAI_DATA_DIR: join(where.folder, "data"),
      RELAI_REGIONS: "us",
      RELAI_GATEWAY_PORT: "0",
      RELAI_INTERNAL_PORT: "0",
      RELAI_CONTROL_PORT: "0",
      RELAI_DEMO: "0",
      RELAI_ADMIN_TOKEN: adminToken,
      OPENAI_API_KEY: "sk-bench-upstream",
      OPENAI_BASE_URL: `${where.upstreamUrl}/v1`,
    },
  });
  try {
    const us = await relaiReady(child);
    const key = await issueKey(us.control, adminToken);
    return { url: us.gateway, headers: { authorization: `Bearer ${key}` }, child };
  } catch (error) {
    await child.stop();
    throw error;
  }
}

async function relaiReady(child: Child): Promise<{ gateway: string; control: string }> {
  const { stdout } = child.process;
  if (stdout === null) throw new Error("relai was started without a pipe");
  const announced = new Promise<string>((resolve) => {
    // Whatever else it prints is read too, or it would wait for a full pipe.
    createInterface({ input: stdout }).on("line", (text) => {
      if (text.includes('"ready":true')) resolve(text);
    });
  });
  const line = await within(START_MS_MAX, Promise.race([announced, child.died]));
  if (line === undefined) throw new Error(`relai was not ready within ${START_MS_MAX} ms`);
  const us = readyLine.parse(JSON.parse(line)).regions["us"];
  if (us === undefined) throw new Error("relai runs no region us");
  return us;
}

/** An organization with money and a key with a rate limit that is counted but never reached. */
async function issueKey(control: string, adminToken: string): Promise<string> {
  const post = async (path: string, body: object): Promise<unknown> => {
    const response = await fetch(control + path, {
      method: "POST",
      headers: { authorization: `Bearer ${adminToken}`, "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
    const text = await response.text();
    if (!response.ok)
      throw new Error(`POST ${path} answered ${response.status}: ${text.slice(0, 300)}`);
    return JSON.parse(text);
  };
  const { id } = z.object({ id: z.string() }).parse(await post("/v1/orgs", { name: "bench" }));
  await post(`/v1/orgs/${id}/credits`, { amount_dollars: "1000000.00" });
  const issued = await post(`/v1/orgs/${id}/keys`, { name: "bench", rpm: 1_000_000 });
  return z.object({ key: z.string() }).parse(issued).key;
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

async function startPortkey({ upstreamUrl, core, folder }: Where): Promise<Running> {
  if (!portkeyIsInstalled()) installPortkey();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const args = [portkeyProgram(), `--port=${port}`, "--headless"];
  const child = startNode({ name: "portkey", args, core, folder, env: { NODE_ENV: "production" } });
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
  return { url, headers, child };
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
    start: (where) => startRelai(where),
  },
  {
    name: "portkey",
    title: `Portkey ${PORTKEY_VERSION} (no keys, no books)`,
    commits: 0,
    start: startPortkey,
  },
];
