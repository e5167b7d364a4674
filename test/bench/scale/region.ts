import { once } from "node:events";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import { z } from "zod";
import { findProgram } from "#infra/backing/find.ts";
import { startRedis, type StartedRedis } from "#infra/backing/redis.ts";
import type { Announcement } from "#test/bench/child.ts";
import { nextMessage, startNode, startScript, type Child } from "#test/bench/processes.ts";
import { REGION } from "#test/bench/replay-events.ts";
import { openStore } from "#test/worlds/event-store-world.ts";
import { orgIdOf, type Scale } from "./history.ts";

/** A region of real processes on a store that has a long history, and what can be seen of it in Redis. */

const BIN = fileURLToPath(new URL("../../../bin/relai.mjs", import.meta.url));
const HISTORY_MS_MAX = 600_000;
/** Organizations are filled in the order of their ids: where all of these are in, all are. */
const LAST_ORGS = 20;
const LOOK_EVERY_MS = 5;

const readyLine = z.object({ url: z.string().nullish(), internal: z.string().nullish() });

export type Region = Awaited<ReturnType<typeof startRegion>>;

/** When an owner had come how far, in milliseconds of `performance.now()`. */
export interface Filling {
  readonly ownedMs: number;
  readonly keysMs: number;
  readonly allMs: number;
}

/** How far a read model's file has come; -1 where there is none yet. */
function positionIn(path: string): bigint {
  if (!existsSync(path)) return -1n;
  const db = new DatabaseSync(path, { readOnly: true, timeout: 5000 });
  try {
    const read = db.prepare("SELECT position FROM model");
    read.setReadBigInts(true);
    return read.get()?.["position"] as bigint;
  } catch {
    // It is just being made.
    return -1n;
  } finally {
    db.close();
  }
}

/** Starts the servers and the upstream; the processes are started one by one. */
export async function startRegion(folder: string, scale: Scale) {
  const program = findProgram("redis", process.env);
  if (program === undefined) throw new Error("no redis-server on the PATH");
  const where = { core: undefined, folder };
  mkdirSync(join(folder, "scale"), { recursive: true });
  const standIn = startScript(
    "scale/stand-in.ts",
    [String(scale.orgs), String(scale.events)],
    where,
  );
  const told = await nextMessage<Announcement>(standIn, HISTORY_MS_MAX);
  if (!("ready" in told)) throw new Error(told.failed);
  const { url: eventsUrl } = told.ready;
  let server: StartedRedis = await startRedis({ program });
  const { url: redisUrl, port } = server;
  const redis = new Redis(redisUrl, { protocol: 2, retryStrategy: () => 20 });
  redis.on("error", () => {});
  const store = await openStore(eventsUrl);
  const prefix = `relai:${REGION}:${await store.identity()}:`;
  await store.close();
  const book = ["--book", join(folder, "book.jsonl")];
  const upstream = await startRelai("simulator", ["simulator", "--port", "0", ...book], {});

  async function startRelai(name: string, args: string[], env: Record<string, string>) {
    const command = [BIN, ...args, "--json"];
    const child = startNode({ name, args: command, env, ...where, stdout: "pipe" });
    if (!child.process.stdout) throw new Error("its output is read");
    const lines = createInterface({ input: child.process.stdout });
    const said = once(lines, "line").then(([line]: unknown[]) => String(line));
    return { child, ...readyLine.parse(JSON.parse(await Promise.race([said, child.died]))) };
  }

  /** The owner epoch that the key directory has, the last shard's word on whether it is filled, and the last organizations'. */
  async function look() {
    const last = Array.from({ length: LAST_ORGS }, (_, at) => orgIdOf(scale.orgs - 1 - at));
    const [first, shard, ...epochs] = await Promise.all([
      redis.hget(`${prefix}{keys-00}`, "epoch"),
      redis.hmget(`${prefix}{keys-ff}`, "epoch", "filled"),
      ...last.map((orgId) => redis.hget(`${prefix}{${orgId}}:state`, "epoch")),
    ]);
    return {
      owner: Number(first),
      keys: shard[1] === "yes" ? Number(shard[0]) : 0,
      all: Math.min(...epochs.map(Number)),
    };
  }

  /** How far the ledger says that it has carried the events in, behind its owner epoch. */
  const carriedTo = async () => (await redis.get(`${prefix}applied`))?.split(" ").at(-1);

  return {
    redis,
    prefix,
    redisPid: () => server.pid,
    look,
    /** Waits until a newer owner than this has filled everything. */
    async filled(than: number): Promise<Filling> {
      let ownedMs = 0;
      let keysMs = 0;
      for (;;) {
        const found = await look().catch(() => ({ owner: 0, keys: 0, all: 0 }));
        const nowMs = performance.now();
        if (found.owner > than) ownedMs ||= nowMs;
        if (found.keys > than) keysMs ||= nowMs;
        if (found.keys > than && found.all > than) return { ownedMs, keysMs, allMs: nowMs };
        await pause(LOOK_EVERY_MS);
      }
    },
    /** Starts `relai ledger` or `relai gateway`; a name is a data folder. */
    async start(kind: "ledger" | "gateway", name: string): Promise<{ child: Child; url: string }> {
      const env = {
        RELAI_EVENTSTORE_URL: eventsUrl,
        RELAI_EVENTSTORE_INSECURE: "1",
        RELAI_REDIS_URL: redisUrl,
        RELAI_DATA_DIR: join(folder, name),
        RELAI_LOG_LEVEL: "warn",
        RELAI_GATEWAY_PORT: "0",
        RELAI_INTERNAL_PORT: "0",
        OPENAI_API_KEY: "sk-scale-upstream-key",
        OPENAI_BASE_URL: `${upstream.url}/openai/v1`,
      };
      const { child, url } = await startRelai(name, [kind], env);
      return { child, url: url ?? "" };
    },
    async restartEmpty(): Promise<void> {
      await server.kill();
      server = await startRedis({ program, port });
    },
    carriedTo,
    /** Waits until a ledger has folded what another one has carried. */
    async folded(name: string): Promise<void> {
      const path = join(folder, name, "ledger", "us", "read-models", "accounts.sqlite");
      const goal = BigInt((await carriedTo()) ?? 0);
      for (let position = -1n; position < goal; await pause(100)) position = positionIn(path);
    },
    standInPid: standIn.pid,
    async close(): Promise<void> {
      redis.disconnect();
      await upstream.child.stop();
      await standIn.stop();
      await server.kill();
    },
  };
}
