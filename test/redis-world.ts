import { Redis } from "ioredis";
import type { AdmissionStore } from "#services/ports.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { findRedis, startRedis, type StartedRedis } from "#infra/backing/redis.ts";
import { openRedis, type RedisConnection } from "#infra/redis/connection.ts";
import type { ManualClock } from "#test/manual-clock.ts";

/** Where this machine has a Redis for tests. */
export const REDIS_SOURCE = findRedis(process.env);

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

export async function redisForTests(): Promise<RedisForTests> {
  if (REDIS_SOURCE.from === "nowhere") throw new Error(REDIS_SOURCE.reason);
  if (REDIS_SOURCE.from === "url") {
    const restart = "the server of RELAI_TEST_REDIS_URL is not ours to restart";
    return { url: REDIS_SOURCE.url, restart, close: async () => undefined };
  }
  const { program } = REDIS_SOURCE;
  let server: StartedRedis = await startRedis({ program });
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
  for (const dueMs = Date.now() + 20_000; Date.now() < dueMs;) {
    if ((await replicationOf(raw, "master_link_status")) === "up") return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`no replica of the server at ${port} within 20 s`);
}

/** Keys of our own, which no other test has. */
export function freshPrefix(): string {
  worlds += 1;
  return `relai-test-${process.pid}-${process.hrtime.bigint()}-${worlds}:`;
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
