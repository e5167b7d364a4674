import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Redis } from "ioredis";
import { freePort } from "#infra/backing/program.ts";
import { startRedis, type StartedRedis } from "#infra/backing/redis.ts";

/** A Redis Cluster of three primaries on 127.0.0.1, the first of which may have a replica that takes its place. */
export interface RedisCluster {
  readonly urls: readonly string[];
  /** The primaries in the order of their slots, then the replica. */
  readonly servers: readonly StartedRedis[];
  /** Which of the servers began with the slot of a key. */
  homeOf(key: string): number;
  /**
   * Moves the slot of a key with everything in it to another primary, as an operator's tool does; `between` is called when
   * it has begun and after each key.
   */
  move(key: string, to: number, between?: () => Promise<unknown>): Promise<void>;
  /** All servers lose their memory and come back with new identities. */
  restart(): Promise<void>;
  /** One that was killed comes back, with the same slots and without its memory. */
  start(at: number): Promise<void>;
  close(): Promise<void>;
}

const SLOTS = 16_384;
const PRIMARIES = 3;
const TIMEOUT_MS = 1500;

const keySlot = (key: string) => new Command("exists", [key]).getSlot();

/** Made with the commands that redis-cli would send, so that the program `redis-server` is all that is needed. */
export async function startCluster(
  program: string,
  { replica = false } = {},
): Promise<RedisCluster> {
  const root = mkdtempSync(join(tmpdir(), "relai-cluster-"));
  const nodes = Array.from({ length: PRIMARIES + Number(replica) }, (_, at) => ({
    folder: mkdtempSync(join(root, `node-${at}-`)),
    args: [
      ["--cluster-enabled", "yes", "--cluster-node-timeout", String(TIMEOUT_MS)],
      ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"],
    ].flat(),
  }));
  const servers: StartedRedis[] = [];
  for (const node of nodes) {
    // The port between the servers is the other one and 10,000, where nobody says another.
    node.args.push("--cluster-port", String(await freePort()));
    servers.push(await startRedis({ program, ...node }));
  }
  await withEach(servers, joinAll);
  await withEach(servers, agreed);

  async function start(at: number): Promise<void> {
    const [node, before] = [nodes[at], servers[at]];
    if (node && before) servers[at] = await startRedis({ program, ...node, port: before.port });
  }
  return {
    urls: servers.map(({ url }) => url),
    servers,
    homeOf: (key) => Math.floor((keySlot(key) * PRIMARIES) / SLOTS),
    move: (key, to, between) => withEach(servers, moving(keySlot(key), to, between)),
    async restart() {
      await Promise.all(servers.map((server) => server.kill()));
      for (const at of servers.keys()) await start(at);
      await withEach(servers, agreed);
    },
    async start(at) {
      await start(at);
      await withEach(servers, agreed);
    },
    async close() {
      await Promise.all(servers.map((server) => server.kill()));
      rmSync(root, { recursive: true, force: true });
    },
  };
}

async function withEach(
  servers: readonly StartedRedis[],
  work: (each: readonly Redis[], servers: readonly StartedRedis[]) => Promise<void>,
): Promise<void> {
  const each = servers.map(({ url }) => new Redis(url, { protocol: 2 }));
  try {
    await work(each, servers);
  } finally {
    for (const one of each) one.disconnect();
  }
}

async function joinAll(each: readonly Redis[], servers: readonly StartedRedis[]): Promise<void> {
  const [first, ...others] = each;
  if (!first) return;
  for (const [at, one] of each.slice(0, PRIMARIES).entries()) {
    const from = Math.ceil((SLOTS * at) / PRIMARIES);
    const to = Math.ceil((SLOTS * (at + 1)) / PRIMARIES) - 1;
    await one.call("CLUSTER", "ADDSLOTSRANGE", from, to);
    await one.call("CLUSTER", "SET-CONFIG-EPOCH", at + 1);
  }
  const { port } = servers[0] ?? { port: 0 };
  const [, busPort = ""] = await first.config("GET", "cluster-port");
  for (const one of others) await one.call("CLUSTER", "MEET", "127.0.0.1", port, busPort);
  const replica = each[PRIMARIES];
  if (!replica) return;
  const id = (await first.call("CLUSTER", "MYID")) as string;
  // The replica must have heard of its primary first.
  while (!((await replica.call("CLUSTER", "NODES")) as string).includes(id)) await wait();
  while ((await replica.call("CLUSTER", "REPLICATE", id).catch(() => "")) !== "OK") await wait();
}

/** The steps of redis-cli's reshard. */
function moving(slot: number, to: number, between: () => Promise<unknown> = async () => {}) {
  return async (each: readonly Redis[], servers: readonly StartedRedis[]): Promise<void> => {
    const nodes = (one: Redis | undefined) => one?.call("CLUSTER", "NODES") as Promise<string>;
    const idOf = async (one: Redis | undefined) => (await one?.call("CLUSTER", "MYID")) as string;
    const target = each[to];
    const targetId = await idOf(target);
    const ids = await Promise.all(each.map(idOf));
    const owner = /^(\S+) /m.exec(ownerLine(await nodes(target), slot))?.[1] ?? "";
    const source = each[ids.indexOf(owner)];
    await target?.call("CLUSTER", "SETSLOT", slot, "IMPORTING", owner);
    await source?.call("CLUSTER", "SETSLOT", slot, "MIGRATING", targetId);
    await between();
    const keys = (await source?.call("CLUSTER", "GETKEYSINSLOT", slot, 1000)) as string[];
    for (const key of keys) {
      await source?.call("MIGRATE", "127.0.0.1", servers[to]?.port ?? 0, key, 0, 5000);
      await between();
    }
    for (const one of [target, source, ...each])
      await one?.call("CLUSTER", "SETSLOT", slot, "NODE", targetId).catch(ofReplica);
  };
}

function ofReplica(error: Error): void {
  if (!error.message.includes("SETSLOT only with masters")) throw error;
}

/** The line of CLUSTER NODES of the server that has a slot. */
function ownerLine(text: string, slot: number): string {
  const has = (range: string) => {
    const [from = NaN, to = from] = range.split("-").map(Number);
    return from <= slot && slot <= to;
  };
  return text.split("\n").find((line) => line.split(" ").slice(8).some(has)) ?? "";
}

/** Waits until every server knows all others and says that the cluster is well. */
async function agreed(each: readonly Redis[]): Promise<void> {
  for (const one of each) {
    for (;;) {
      const info = (await one.call("CLUSTER", "INFO")) as string;
      const isWell =
        info.includes("cluster_state:ok") && info.includes(`cluster_known_nodes:${each.length}`);
      if (isWell && info.includes(`cluster_slots_ok:${SLOTS}`) && (await isLinked(one))) break;
      await wait();
    }
  }
}

/** A replica that has what its primary has; true of a primary. */
async function isLinked(one: Redis): Promise<boolean> {
  const info = await one.info("replication");
  return info.includes("role:master") || info.includes("master_link_status:up");
}

const wait = () => new Promise((resolve) => setTimeout(resolve, 20));
