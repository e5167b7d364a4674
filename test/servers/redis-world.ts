import { Redis } from "ioredis";
import type { AdmissionStore } from "#services/ports.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { findProgram, startServer } from "#infra/backing/find.ts";
import { startRedis } from "#infra/backing/redis.ts";
import { openRedis, type RedisConnection } from "#infra/redis/connection.ts";
import { findForTests } from "#test/servers/found-servers.ts";
import type { ManualClock } from "#test/doubles/manual-clock.ts";

/** What the adapters are proved on, by the name that people give it. */
export const SERVERS = [
  { name: "Redis", kind: "redis" },
  { name: "Valkey", kind: "valkey" },
] as const;

/** Where this machine has servers for tests. */
export const SOURCES = {
  redis: await findForTests("redis", process.env),
  valkey: await findForTests("valkey", process.env),
};

/** By which tests start servers that they hurt, wherever the others' come from. */
export const REDIS_PROGRAM = findProgram("redis", process.env);
export const NO_PROGRAM =
  "it starts servers of its own, and no redis-server or valkey-server is on the PATH";

/** Time as a test sets it: a key beside an organization's own says it. Only a test's server has such keys. */
const TIME_OF_THE_TEST = `
local function nowMs() return tonumber(redis.call('GET', KEYS[1] .. ':now')) end
`;

let worlds = 0;

/** A server for a file of tests: one of our own, or the one that somebody named, in which only our own keys are touched. */
export interface RedisForTests {
  readonly url: string;
  /** Loses its memory and comes back with a new identity; a string says why it does not. */
  readonly restart: (() => Promise<void>) | string;
  close(): Promise<void>;
}

export async function redisForTests(kind: "redis" | "valkey" = "redis"): Promise<RedisForTests> {
  const source = SOURCES[kind];
  if (source.from === "nowhere") throw new Error(source.reason);
  if (source.from !== "program") {
    const { url, stop } = await startServer(kind, source);
    const restart = `only a server that was started by a program is restarted, not by ${source.from}`;
    return { url, restart, close: stop };
  }
  const { program } = source;
  let server = await startRedis({ program });
  return {
    url: server.url,
    async restart() {
      await server.kill();
      server = await startRedis({ program, port: server.port });
    },
    close: () => server.kill(),
  };
}

/** Connects, also to a server that is just coming back. */
export async function connect(
  url: string,
  { commandMsMax = 5000, isCluster = false, urls = [url] } = {},
): Promise<RedisConnection> {
  return openRedis({ urls, isCluster, commandMsMax });
}

/** What a server says of its replication: `role`, `master_replid`, … */
export async function replicationOf(raw: Redis, name: string): Promise<string> {
  return new RegExp(`^${name}:(\\S+)`, "m").exec(await raw.info("replication"))?.[1] ?? "";
}

/** Makes a server a replica of the one at a port of this machine, and waits until it has what that one has. */
export async function replicates(raw: Redis, port: number): Promise<void> {
  await raw.replicaof("127.0.0.1", port);
  for (const dueMs = Date.now() + 60_000; Date.now() < dueMs;) {
    if ((await replicationOf(raw, "master_link_status")) === "up") return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`no replica of the server at ${port} within 60 s`);
}

/** Keys of our own, which no other test has. */
export function freshPrefix(): string {
  worlds += 1;
  return `relai-test-${process.pid}-${process.hrtime.bigint()}-${worlds}:`;
}

/** Everything that a server has: of each key its name, and the bytes that are in it. */
export async function keyspaceOf(url: string): Promise<Map<string, Buffer>> {
  const redis = new Redis(url, { protocol: 2 });
  const found = new Map<string, Buffer>();
  const readers: Record<string, (key: string) => Promise<unknown>> = {
    string: (key) => redis.getBuffer(key),
    hash: (key) => redis.callBuffer("HGETALL", key),
    zset: (key) => redis.callBuffer("ZRANGE", key, 0, -1),
    list: (key) => redis.lrangeBuffer(key, 0, -1),
    set: (key) => redis.smembersBuffer(key),
  };
  try {
    for await (const keys of redis.scanStream({ count: 1000 }))
      for (const key of keys as string[]) {
        const type = await redis.type(key);
        const read = readers[type];
        if (!read) throw new Error(`nobody reads a Redis ${type}`);
        const parts = [Buffer.from(key), await read(key)].flat(2) as Buffer[];
        found.set(key, Buffer.concat(parts));
      }
  } finally {
    redis.disconnect();
  }
  return found;
}

/** Removes the keys of one test. */
export async function removeKeys(url: string, prefix: string): Promise<void> {
  const redis = new Redis(url, { protocol: 2 });
  try {
    for await (const keys of redis.scanStream({ match: `${prefix}*`, count: 1000 }))
      await Promise.all((keys as string[]).map((key) => redis.unlink(key)));
  } finally {
    redis.disconnect();
  }
}

/** The admission store on a Redis whose time is the given clock's. */
export function timedAdmission(
  redis: RedisConnection,
  prefix: string,
  clock: Pick<ManualClock, "now">,
  onFault?: (orgId: string, sentence: string) => void,
): AdmissionStore {
  const store = createRedisAdmission({
    redis,
    prefix,
    timeLua: TIME_OF_THE_TEST,
    ...(onFault && { onFault }),
  });
  const orgIds = new Set<string>();
  const sayTime = () =>
    Promise.all(
      [...orgIds].map((orgId) =>
        redis.command("SET", `${prefix}{${orgId}}:state:now`, clock.now()),
      ),
    );
  return new Proxy(store, {
    get(of, name) {
      const verb = Reflect.get(of, name) as ((ask: unknown) => Promise<unknown>) | undefined;
      return (
        verb &&
        (async (ask: { orgId?: string; state?: { orgId: string } } | undefined) => {
          const orgId = ask?.orgId ?? ask?.state?.orgId;
          if (orgId !== undefined) orgIds.add(orgId);
          await sayTime();
          return verb(ask);
        })
      );
    },
  });
}

/** Waits until a connection is there again; nothing but this one command is tried. */
export async function answersAgain(redis: RedisConnection): Promise<void> {
  for (;;) {
    const ids = await redis.seek([]).catch(() => undefined);
    if (ids) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
