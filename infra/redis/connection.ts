import { Cluster, Redis } from "ioredis";
import type { LuaScript } from "./lua-scripts.ts";
import { assertKeepsAll, primaryAmong, serverFacts } from "./primary.ts";
import { commandIn, withoutArguments } from "./trouble.ts";

/** A Redis server and those that may take its place, or a cluster, that runs scripts. */
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
  /**
   * Asks every address, and speaks from then on to the primary that the newest owner's servers, `meant`, lead to
   * ({@link primaryAmong}). Gives its replication id, which changes when it may have lost writes; of a cluster that of
   * each primary. Rejects, and changes nothing, where there is no such primary or where it may throw keys away.
   */
  seek(meant: readonly string[]): Promise<string[]>;
  /** Removes every key that begins with `prefix`, but those that begin with `kept`. Neither has a character of a pattern. */
  removeAllBut(kept: string, prefix: string): Promise<void>;
  close(): Promise<void>;
}

export interface RedisPlace {
  /** `redis://` or `rediss://`. Of a cluster any of its servers; else one primary and whoever may take its place. */
  readonly urls: readonly string[];
  readonly isCluster?: boolean;
  /** A command that is not answered within this is rejected. A connection that is silent for twice as long is made anew. */
  readonly commandMsMax: number;
  /** Told of what goes wrong with connections; commands that it concerns are rejected besides. */
  readonly onTrouble?: (sentence: string) => void;
  /** Told when nobody who seeks finds a server to speak to, or one that may throw keys away: once, until it is found again. */
  readonly onUnfit?: (sentence: string) => void;
}

const SCANNED_AT_ONCE = 1_000;

/** The wait before a connection is tried again: doubling from 50 ms, and short enough to be there soon after the server. */
const reconnectMs = (times: number) => Math.min(500, 50 * 2 ** Math.min(times - 1, 10));

/**
 * Connects. Rejects where no server answers, and where one may throw keys away when it is full. Until somebody seeks, any
 * primary is spoken to, and a replica where only such answer: the scripts take nothing where they should not.
 *
 * The client's own help is switched off, because a script that takes money must not run twice: nothing is sent again
 * after a connection broke, and nothing waits for a connection to come. What a cluster's server answers with MOVED, ASK
 * or TRYAGAIN did not run, and is sent on. One thing cannot be switched off: in a cluster a command waits for the first
 * connection to its server, within its time. Commands are not gathered into pipelines: the client keeps a second one
 * waiting for the first one's answer, and sends a whole one again when a part of it was moved.
 */
export async function openRedis(place: RedisPlace): Promise<RedisConnection> {
  const servers = place.isCluster ? await openCluster(place) : await openServers(place);
  let isUnfit = false;
  return {
    async run({ text, sha1, args: names }, keys, args) {
      const client = servers.client();
      const given = [...keys, ...names.map((name) => args[name])];
      try {
        return await client.evalsha(sha1, keys.length, ...given);
      } catch (error) {
        const told = withoutArguments(error);
        // A server that does not know the script has run nothing. Its text makes it known.
        if (!told.message.startsWith("NOSCRIPT")) throw told;
        return plainly(client.eval(text, keys.length, ...given));
      }
    },
    command: (name, key, ...args) => plainly(servers.client().call(name, key, ...args)),
    async seek(meant) {
      try {
        const ids = await plainly(servers.seek(meant));
        isUnfit = false;
        return ids;
      } catch (error) {
        if (!isUnfit && error instanceof Error) place.onUnfit?.(error.message);
        isUnfit = true;
        throw error;
      }
    },
    async removeAllBut(kept, prefix) {
      for (const server of servers.all())
        for await (const found of server.scanStream({
          match: `${prefix}*`,
          count: SCANNED_AT_ONCE,
        })) {
          const keys = (found as string[]).filter((key) => !key.startsWith(kept));
          // One by one: on a server of a cluster each may be in another slot.
          await Promise.all(keys.map((key) => server.unlink(key)));
        }
    },
    close: servers.close,
  };
}

/** How to speak to one server, or to all of a cluster, and to which. */
interface Servers extends Pick<RedisConnection, "seek" | "close"> {
  client(): Redis | Cluster;
  /** Each that has keys of its own. */
  all(): Redis[];
}

const optionsOf = ({ commandMsMax }: RedisPlace) =>
  ({
    protocol: 2,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    commandTimeout: commandMsMax,
    socketTimeout: 2 * commandMsMax,
    connectTimeout: 5000,
    disableClientInfo: true,
  }) as const;

/** The same, with an error that may stand in a log. */
const plainly = <T>(answer: Promise<T>): Promise<T> =>
  answer.catch((error: unknown) => {
    throw withoutArguments(error);
  });

/** What a client says when something is wrong with its connection goes to whoever wants to know. */
function telling<Client extends Redis | Cluster>(
  client: Client,
  { onTrouble }: RedisPlace,
): Client {
  client.on("error", (error: Error) => {
    onTrouble?.(withoutArguments(error).message);
    // Where the database of the URL cannot be had the client would go on in the first one, among others' keys.
    if (commandIn(error) === "select") client.disconnect(true);
  });
  return client;
}

const quit = (client: Redis | Cluster) => client.quit().catch(() => client.disconnect());

async function askServer(client: Redis) {
  return { client, ...serverFacts(await client.info("replication", "memory")) };
}

async function openCluster(place: RedisPlace): Promise<Servers> {
  const cluster = new Cluster([...place.urls], {
    redisOptions: optionsOf(place),
    lazyConnect: true,
    enableOfflineQueue: false,
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    clusterRetryStrategy: reconnectMs,
  });
  telling(cluster, place);
  // Its client follows the cluster's own word on who is primary.
  const askAll = () => Promise.all(cluster.nodes("master").map(askServer));
  try {
    await cluster.connect();
    for (const server of await askAll()) assertKeepsAll(server);
  } catch (error) {
    cluster.disconnect();
    throw error;
  }
  return {
    client: () => cluster,
    all: () => cluster.nodes("master"),
    seek: async () => (await askAll()).map(({ id }) => id).sort(),
    async close() {
      await quit(cluster);
    },
  };
}

/** A connection to each address is kept, so that to ask them all costs little and to speak to another costs nothing. */
async function openServers(place: RedisPlace): Promise<Servers> {
  const clients = place.urls.map((url) =>
    telling(
      new Redis(url, {
        ...optionsOf(place),
        lazyConnect: true,
        enableOfflineQueue: false,
        retryStrategy: reconnectMs,
      }),
      place,
    ),
  );

  /** What those say that answer. */
  async function askAll() {
    const answers = await Promise.allSettled(clients.map(askServer));
    return answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
  }

  async function begin(): Promise<Redis> {
    const connecting = await Promise.allSettled(clients.map((client) => client.connect()));
    const found = await askAll();
    for (const server of found) assertKeepsAll(server);
    const some = found.find(({ isPrimary }) => isPrimary) ?? found[0];
    if (some) return some.client;
    const failed = connecting.find((one) => one.status === "rejected");
    throw new Error("no Redis server answers", { cause: failed?.reason });
  }

  let present: Redis;
  try {
    present = await begin();
  } catch (error) {
    for (const client of clients) client.disconnect();
    throw error;
  }
  return {
    client: () => present,
    all: () => [present],
    async seek(meant) {
      const found = await askAll();
      const primary = primaryAmong(found, meant);
      if (!primary) {
        const primaries = found.filter(({ isPrimary }) => isPrimary).length;
        const counts = `${found.length} of ${clients.length} answer, ${primaries} of them as a primary`;
        throw new Error(`none of the Redis servers is the one to speak to: ${counts}`);
      }
      assertKeepsAll(primary);
      // What the one before has been sent it still answers.
      present = primary.client;
      return [primary.id];
    },
    async close() {
      await Promise.all(clients.map(quit));
    },
  };
}
