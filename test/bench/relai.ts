import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { z } from "zod";
import { findProgram } from "#infra/backing/find.ts";
import { startRedis } from "#infra/backing/redis.ts";
import type { ProcessName } from "#services/start/processes.ts";
import {
  alone,
  type Appended,
  type Child,
  LeftOut,
  nextMessage,
  type Running,
  startNode,
  startServer,
  type Where,
  within,
} from "./processes.ts";

/** Starts the product as a user does: all in one process, or as processes of their own on servers. */

const BIN = join(import.meta.dirname, "../../bin/relai.mjs");
const START_MS_MAX = 20_000;
const ANSWER_MS_MAX = 10_000;
const GATEWAYS = 2;
const ADMIN_TOKEN = "bench-admin-token-0123456789abcdef";

interface Start {
  readonly name: string;
  readonly command: string;
  readonly where: Where;
  readonly core: number | undefined;
  readonly env: Readonly<Record<string, string>>;
  readonly nodeArgs?: readonly string[];
}

/** Starts a process of relai and waits for the line with which it says that it is ready. */
async function startProcess<Line>(start: Start, line: z.ZodType<Line>) {
  const { name, command, where, core, env, nodeArgs = [] } = start;
  const { upstreamUrl, folder } = where;
  const child = startNode({
    name,
    args: [...nodeArgs, BIN, command, "--json"],
    core,
    folder,
    stdout: "pipe",
    env: {
      RELAI_DATA_DIR: join(folder, name),
      RELAI_REGIONS: "us",
      RELAI_GATEWAY_PORT: "0",
      RELAI_INTERNAL_PORT: "0",
      RELAI_CONTROL_PORT: "0",
      RELAI_DEMO: "0",
      RELAI_ADMIN_TOKEN: ADMIN_TOKEN,
      OPENAI_API_KEY: "sk-bench-upstream",
      OPENAI_BASE_URL: `${upstreamUrl}/v1`,
      ...env,
    },
  });
  try {
    return { child, said: line.parse(JSON.parse(await readyLine(child, name))) };
  } catch (error) {
    await child.stop();
    throw error;
  }
}

async function readyLine(child: Child, name: string): Promise<string> {
  const { stdout } = child.process;
  if (stdout === null) throw new Error(`${name} was started without a pipe`);
  const announced = new Promise<string>((resolve) => {
    // Whatever else it prints is read too, or it would wait for a full pipe.
    createInterface({ input: stdout }).on("line", (text) => {
      if (text.includes('"ready":true')) resolve(text);
    });
  });
  const line = await within(START_MS_MAX, Promise.race([announced, child.died]));
  if (line === undefined) throw new Error(`${name} was not ready within ${START_MS_MAX} ms`);
  return line;
}

const addresses = z.object({ gateway: z.string(), control: z.string() });
const embeddedReady = z.object({ ready: z.literal(true), regions: z.object({ us: addresses }) });

/** Everything in one process; `nodeArgs` go to Node itself. */
export async function startEmbedded(
  where: Where,
  nodeArgs: readonly string[] = [],
): Promise<Running> {
  const core = where.cores?.gateway;
  const start = { name: "relai", command: "start", where, core, env: {}, nodeArgs };
  const { child, said } = await startProcess(start, embeddedReady);
  const { gateway, control } = said.regions.us;
  try {
    return alone(gateway, await headersOfKey(control), child);
  } catch (error) {
    await child.stop();
    throw error;
  }
}

const processReady = z.object({ ready: z.literal(true), url: z.string().nullable() });

/**
 * Two gateways on the gateway's core; beside them, on the other, a ledger, a control API, a Redis server of its own and the
 * event store's stand-in, which keeps its events in memory. `nodeArgs` go to the Node of the gateways.
 */
export async function startOnServers(
  where: Where,
  nodeArgs: readonly string[] = [],
): Promise<Running> {
  // One that somebody names may have other users, who would be measured too.
  const program = findProgram("redis", process.env);
  if (program === undefined) throw new LeftOut("there is no redis-server on the PATH");
  const { cores, folder } = where;
  const stops: (() => Promise<boolean>)[] = [];
  /** The last started first: nothing loses a server that it still works with. */
  async function stop(): Promise<boolean> {
    let isClean = true;
    for (const end of stops.splice(0).toReversed()) isClean = (await end()) && isClean;
    return isClean;
  }
  try {
    const redis = await startRedis({ program });
    stops.push(() => redis.kill().then(() => true));
    if (cores) execFileSync("taskset", ["-a", "-c", "-p", String(cores.load), String(redis.pid)]);
    const eventStore = await startServer("event-store.ts", [], { core: cores?.load, folder });
    stops.push(eventStore.child.stop);
    const env = {
      RELAI_EVENTSTORE_URL: eventStore.ready.url,
      RELAI_EVENTSTORE_INSECURE: "1",
      RELAI_REDIS_URL: redis.url,
    };
    const start = async (name: string, command: ProcessName, core: number | undefined) => {
      const args = command === "gateway" ? nodeArgs : [];
      const begun = { name, command, where, core, env, nodeArgs: args };
      const { child, said } = await startProcess(begun, processReady);
      stops.push(child.stop);
      return { child, url: said.url ?? "" };
    };
    const ledger = await start("ledger", "ledger", cores?.load);
    const control = await start("control", "control", cores?.load);
    const headers = await headersOfKey(control.url);
    const gateways: { readonly child: Child; readonly url: string }[] = [];
    while (gateways.length < GATEWAYS)
      gateways.push(await start(`gateway-${gateways.length + 1}`, "gateway", cores?.gateway));
    const died = Promise.race(
      [eventStore, ledger, control, ...gateways].map(({ child }) => child.died),
    );
    died.catch(() => {});
    return {
      urls: gateways.map(({ url }) => url),
      headers,
      gateways: gateways.map(({ child }) => child),
      beside: [
        { name: "ledger", pid: ledger.child.pid },
        { name: "control API", pid: control.child.pid },
        { name: "Redis", pid: redis.pid },
        { name: "event store (stand-in)", pid: eventStore.child.pid },
      ],
      appended() {
        const told = nextMessage<Appended>(eventStore.child, ANSWER_MS_MAX);
        eventStore.child.process.send({});
        return told;
      },
      died,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** An organization with money and a key with a rate limit that is counted but never reached: the headers of its calls. */
async function headersOfKey(control: string): Promise<Readonly<Record<string, string>>> {
  const post = async (path: string, body: object): Promise<unknown> => {
    const response = await fetch(control + path, {
      method: "POST",
      headers: { authorization: `Bearer ${ADMIN_TOKEN}`, "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    });
    const text = await response.text();
    if (!response.ok)
      throw new Error(`POST ${path} answered ${response.status}: ${text.slice(0, 300)}`);
    return JSON.parse(text);
  };
  const { id } = z.object({ id: z.string() }).parse(await post("/v1/orgs", { name: "bench" }));
  await post(`/v1/orgs/${id}/credits`, { amount_dollars: "1000000.00" });
  const issued = await post(`/v1/orgs/${id}/keys`, { name: "bench", rpm: 1_000_000 });
  const { key } = z.object({ key: z.string() }).parse(issued);
  return { authorization: `Bearer ${key}` };
}
