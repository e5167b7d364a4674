import { Cluster, Redis } from "ioredis";
import type { LuaScript } from "./lua-scripts.ts";

/** A Redis server, or a cluster of them, that runs scripts. */
export interface RedisConnection {
  /**
   * Runs a script on the server that has its first key. Rejects when there was no answer: the script then ran once or
   * not at all, or will still run. It is never sent again.
   */
  run<Arg extends string>(
    script: LuaScript<Arg>,
    keys: readonly string[],
    args: Readonly<Record<Arg, string | number>>,
  ): Promise<unknown>;
  /** Runs one command on the server that has the key. */
  command(name: string, key: string, ...args: readonly (string | number)[]): Promise<unknown>;
  /** The replication id of every primary: each changes when its server may have lost writes. */
  replicationIds(): Promise<string[]>;
  close(): Promise<void>;
}

export interface RedisPlace {
  /** `redis://` or `rediss://`. Of a cluster any of its servers; else exactly one. */
  readonly urls: readonly string[];
  readonly isCluster?: boolean;
  /** A command that is not answered within this is rejected. A connection that is silent for twice as long is made anew. */
  readonly commandMsMax: number;
  /** Told of what goes wrong with connections; commands that it concerns are rejected besides. */
  readonly onTrouble?: (sentence: string) => void;
}

/** The wait before a connection is tried again: doubling from 50 ms, at most 2 s. */
const reconnectMs = (times: number) => Math.min(2000, 50 * 2 ** Math.min(times - 1, 10));

/**
 * Connects. Rejects where no server answers, and where one may throw keys away when it is full: what it threw away would
 * look as if it had never been.
 *
 * The client's own help is switched off, because a script that takes money must not run twice: nothing is sent again
 * after a connection broke, and nothing waits for a connection to come. What a cluster's server answers with MOVED, ASK
 * or TRYAGAIN did not run, and is sent on. One thing cannot be switched off: in a cluster a command waits for the first
 * connection to its server, within its time. Commands are not gathered into pipelines: the client keeps a second one
 * waiting for the first one's answer, and sends a whole one again when a part of it was moved.
 */
export async function openRedis(place: RedisPlace): Promise<RedisConnection> {
  const { commandMsMax, onTrouble = () => {} } = place;
  const each = {
    protocol: 2,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    commandTimeout: commandMsMax,
    socketTimeout: 2 * commandMsMax,
    connectTimeout: 5000,
    disableClientInfo: true,
  } as const;
  const client = place.isCluster
    ? new Cluster([...place.urls], {
        redisOptions: each,
        lazyConnect: true,
        enableOfflineQueue: false,
        retryDelayOnFailover: 0,
        retryDelayOnClusterDown: 0,
        clusterRetryStrategy: reconnectMs,
      })
    : new Redis(onlyOne(place.urls), {
        ...each,
        lazyConnect: true,
        enableOfflineQueue: false,
        retryStrategy: reconnectMs,
      });
  client.on("error", (error: Error) => onTrouble(error.message));
  const primaries = () => (client instanceof Cluster ? client.nodes("master") : [client]);
  try {
    await client.connect();
    for (const server of primaries()) await assertKeepsAll(server);
  } catch (error) {
    client.disconnect();
    throw error;
  }

  return {
    async run({ text, sha1, args: names }, keys, args) {
      const given = [...keys, ...names.map((name) => args[name])];
      try {
        return await client.evalsha(sha1, keys.length, ...given);
      } catch (error) {
        // A server that does not know the script has run nothing. Its text makes it known.
        if (!(error instanceof Error) || !error.message.startsWith("NOSCRIPT")) throw error;
        return client.eval(text, keys.length, ...given);
      }
    },
    command: (name, key, ...args) => client.call(name, key, ...args),
    replicationIds: () => Promise.all(primaries().map(replicationId)),
    async close() {
      await client.quit().catch(() => client.disconnect());
    },
  };
}

function onlyOne(urls: readonly string[]): string {
  const [url, ...others] = urls;
  if (url === undefined || others.length > 0)
    throw new RangeError("a Redis that is no cluster has exactly one URL");
  return url;
}

async function replicationId(server: Redis): Promise<string> {
  const id = /^master_replid:([0-9a-f]+)/m.exec(await server.info("replication"))?.[1];
  if (id === undefined) throw new Error("the Redis server does not say its replication id");
  return id;
}

async function assertKeepsAll(server: Redis): Promise<void> {
  const policy = /^maxmemory_policy:(\S+)/m.exec(await server.info("memory"))?.[1];
  if (policy !== "noeviction")
    throw new Error(
      `the Redis server's maxmemory-policy is ${policy ?? "not said"}; it must be noeviction`,
    );
}
