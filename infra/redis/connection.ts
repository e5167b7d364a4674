import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { Cluster, Command, Redis } from "ioredis";
import type { LuaScript } from "./lua-scripts.ts";
import { assertKeepsAll, primaryAmong, serverFacts } from "./primary.ts";
import { commandIn, withoutArguments } from "./trouble.ts";

/** The server of a cluster that has a key does not answer. What was to be sent there was certainly not. */
export class ServerAway extends Error {
  override readonly name = "ServerAway";
}

/** A Redis server and those that may take its place, or a cluster, that runs scripts. */
export interface RedisConnection {
  /**
   * Put into the names of keys, each in the place of another, they lead to different servers where there are several: what
   * must not be away with any one of them is kept under all. One, and empty, without a cluster.
   */
  readonly tags: readonly string[];
  /**
   * Runs a script on the server that has its first key. Rejects with {@link ServerAway} where it was not sent. Rejects
   * otherwise when there was no answer: the script then ran once or not at all, or will still run. It is never sent again.
   */
  run<Arg extends string>(
    script: LuaScript<Arg>,
    keys: readonly string[],
    args: Readonly<Record<Arg, string | number>>,
  ): Promise<unknown>;
  /** Runs one command on the server that has the key. Rejects as `run` does. */
  command(name: string, key: string, ...args: readonly (string | number)[]): Promise<unknown>;
  /**
   * Whether the server of a cluster that has these keys, all in one slot, answers and would run a script on them now, which
   * it does not while the slot is on its way to another. True without a cluster, where whoever seeks finds that out.
   */
  takes(keys: readonly string[]): Promise<boolean>;
  /**
   * Asks every address, and speaks from then on to the primary that the newest owner's servers, `meant`, lead to
   * ({@link primaryAmong}). Gives its replication id, which changes when it may have lost writes. Rejects, and changes
   * nothing, where there is no such primary or where it may throw keys away.
   *
   * Of a cluster it gives the id of each primary. One that does not answer may come back as it was: while there is one,
   * `meant` is given beside the ids of the others. Rejects where none answers.
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
/** A client that is opened, or closed, and does not say so within this has failed to. */
const OPEN_MS_MAX = 10_000;
/** Who has which slot of a cluster is asked for again at most this often. */
const REFRESH_MS = 500;
/** Their slots are spread evenly: 3168, 7233, 11298 and 15363 of the 16,384. */
const TAGS = ["{f}", "{g}", "{d}", "{e}"];

/** The wait before a connection is tried again: doubling from 50 ms, and short enough to be there soon after the server. */
const reconnectMs = (times: number) => Math.min(500, 50 * 2 ** Math.min(times - 1, 10));

/** What those calls answered that did, in their order. */
export async function answersOf<T>(calls: readonly Promise<T>[]): Promise<T[]> {
  const answers = await Promise.allSettled(calls);
  return answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
}

/**
 * Connects. Rejects where no server answers, and where one may throw keys away when it is full. Until somebody seeks, any
 * primary is spoken to, and a replica where only such answer: the scripts take nothing where they should not.
 *
 * The client's own help is switched off, because a script that takes money must not run twice: nothing is sent again
 * after a connection broke, and nothing waits for a connection to come. What a cluster's server answers with MOVED, ASK
 * or TRYAGAIN did not run, and is sent on. Commands are not gathered into pipelines: the client keeps a second one
 * waiting for the first one's answer, and sends a whole one again when a part of it was moved.
 *
 * Of a cluster one server that answers is enough. Before each command the connection to its server is looked at, and a new
 * one is waited for, so that what cannot be sent is known not to have been.
 */
export async function openRedis(place: RedisPlace): Promise<RedisConnection> {
  const servers = place.isCluster ? await openCluster(place) : await openServers(place);
  let isUnfit = false;
  return {
    tags: servers.tags,
    async run({ text, sha1, args: names }, keys, args) {
      const client = await servers.clientFor(keys[0] ?? "");
      if (client instanceof Redis) gather(client);
      const given = [...keys, ...names.map((name) => args[name])];
      try {
        return await client.evalsha(sha1, keys.length, ...given);
      } catch (error) {
        const told = withoutArguments(error);
        // A server that does not know the script has run nothing. Its text makes it known.
        if (told.message.startsWith("NOSCRIPT"))
          return plainly(client.eval(text, keys.length, ...given));
        // Nor has one that the cluster has left behind.
        if (told.message.startsWith("CLUSTERDOWN")) throw servers.away(told);
        throw told;
      }
    },
    async command(name, key, ...args) {
      const client = await servers.clientFor(key);
      return plainly(client.call(name, key, ...args));
    },
    takes: servers.takes,
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

/**
 * Holds back what is written to a server in this turn of the event loop, to be sent at its end in one write. That is
 * all that is gathered: each command stands for itself, and none waits for another's answer.
 */
function gather({ stream }: Redis): void {
  // The client has none until it connects.
  const socket = stream as Redis["stream"] | undefined;
  if (!socket || socket.writableCorked > 0) return;
  socket.cork();
  setImmediate(() => socket.uncork());
}

/** How to speak to one server, or to all of a cluster, and to which. */
interface Servers extends Pick<RedisConnection, "tags" | "takes" | "seek" | "close"> {
  /** Rejects with {@link ServerAway}. */
  clientFor(key: string): Promise<Redis | Cluster>;
  /** What is said of a server that cannot be used; another may have taken its place. */
  away(cause?: unknown): ServerAway;
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

/** Rejects where a promise takes longer: behind a connection that never comes about the client keeps no time of its own. */
async function within<T>(limitMs: number, promise: Promise<T>): Promise<T> {
  const settled = new AbortController();
  const late = delay(limitMs, undefined, { signal: settled.signal }).then(() => {
    throw new Error(`Redis did not answer within ${limitMs} ms`);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    settled.abort();
  }
}

const quit = (client: Redis | Cluster) =>
  within(OPEN_MS_MAX, client.quit()).catch(() => client.disconnect());

async function askServer(client: Redis, { commandMsMax }: RedisPlace) {
  const info = await within(commandMsMax, client.info("replication", "memory"));
  return { client, ...serverFacts(info) };
}

/** Its client follows the cluster's own word on who has what. */
async function openCluster(place: RedisPlace): Promise<Servers> {
  const { commandMsMax, onTrouble } = place;
  const cluster = new Cluster([...place.urls], {
    redisOptions: optionsOf(place),
    lazyConnect: true,
    enableOfflineQueue: false,
    // It would ask one server by chance, and wait without end where that is away.
    enableReadyCheck: false,
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    clusterRetryStrategy: reconnectMs,
  });
  telling(cluster, place);

  /** The primaries that have slots, by their addresses. */
  let primaries = new Set<string>();
  cluster.on("refresh", () => {
    primaries = new Set();
    cluster.slots.forEach((addresses, slot) => {
      if (addresses[0] !== undefined) primaries.add(addresses[0]);
      // The client gives one list to all slots of a range, and would move them all with one that was moved.
      cluster.slots[slot] = [...addresses];
    });
  });

  let refreshing: Promise<void> | undefined;
  /** Asks who has which slot, which also brings back into the client whoever it has let go; not too often. */
  function refresh(): Promise<void> {
    refreshing ??= new Promise<void>((resolve) => {
      cluster.refreshSlotsCache(() => {
        resolve();
        setTimeout(() => (refreshing = undefined), REFRESH_MS).unref();
      });
    });
    return refreshing;
  }

  const addressOf = ({ options: { host, port } }: Redis) => `${host}:${port}`;
  function primaryOf(key: string): Redis | undefined {
    const [address] = cluster.slots[new Command("exists", [key]).getSlot()] ?? [];
    return cluster.nodes("master").find((node) => addressOf(node) === address);
  }

  const connecting = new WeakMap<Redis, Promise<unknown>>();
  /** Waits for a connection that is new, and no more for one that has not come about in its time. */
  async function isUp(node: Redis): Promise<boolean> {
    if (node.status !== "ready" && !connecting.has(node)) {
      const ready = node.status === "wait" ? node.connect() : once(node, "ready");
      connecting.set(
        node,
        within<unknown>(commandMsMax, ready).catch(() => {}),
      );
    }
    if (node.status !== "ready") await connecting.get(node);
    return node.status === "ready";
  }

  async function clientFor(key: string): Promise<Cluster> {
    let primary = primaryOf(key);
    if (!primary) {
      await within(commandMsMax, refresh()).catch(() => {});
      primary = primaryOf(key);
    }
    if (primary && (await isUp(primary))) return cluster;
    throw away();
  }

  function away(cause?: unknown): ServerAway {
    void refresh();
    return new ServerAway("the server of the cluster that has this does not answer", { cause });
  }

  let silent = new Set<string>();
  /** What those say that answer; of one that does not it is said once that it is away. */
  async function askAll() {
    const asking = cluster.nodes("master").map(async (node) => {
      if (await isUp(node)) return askServer(node, place);
      throw away();
    });
    const found = (await answersOf(asking)).filter(
      ({ client, isPrimary }) => isPrimary && primaries.has(addressOf(client)),
    );
    const missing = primaries.difference(new Set(found.map(({ client }) => addressOf(client))));
    for (const address of missing.difference(silent))
      onTrouble?.(`the cluster's primary at ${address} does not answer`);
    silent = missing;
    if (missing.size > 0) void refresh();
    if (found.length === 0) throw new Error("no primary of the Redis cluster answers");
    return { found, isWhole: missing.size === 0 };
  }

  try {
    await within(OPEN_MS_MAX, cluster.connect());
    for (const server of (await askAll()).found) assertKeepsAll(server);
  } catch (error) {
    cluster.disconnect();
    throw error;
  }
  return {
    tags: TAGS,
    clientFor,
    away,
    all: () => cluster.nodes("master"),
    async takes(keys) {
      try {
        await (await clientFor(keys[0] ?? "")).exists(...keys);
        return true;
      } catch {
        return false;
      }
    },
    async seek(meant) {
      const { found, isWhole } = await askAll();
      const ids = new Set(found.map(({ id }) => id));
      // Whoever meant others knows another cluster than this client does.
      if (!ids.isSubsetOf(new Set(meant))) void refresh();
      return [...(isWhole ? ids : ids.union(new Set(meant)))].sort();
    },
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
  const askAll = () => answersOf(clients.map((client) => askServer(client, place)));

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
    tags: [""],
    clientFor: () => Promise.resolve(present),
    away: (cause) => new ServerAway("the server does not answer", { cause }),
    all: () => [present],
    takes: () => Promise.resolve(true),
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
