import { loadScripts } from "#infra/redis/lua-scripts.ts";
import type { RedisConnection } from "#infra/redis/connection.ts";
import type { Clock, KeyDirectory, KeyEntry } from "#services/ports.ts";

const CONTRACTS = {
  lookup: { keys: ["shard"], args: ["tokenHash"] },
  put: { keys: ["shard"], args: ["entries"] },
  mark: { keys: ["shard"], args: ["ownerEpoch", "isFilled"] },
} as const;

/** Two hexadecimal digits of a hash: so many shards, which a cluster spreads over its servers. */
const SHARDS = 256;

/** What was said of a hash is taken to be so for this long: that nobody knows it, or whose key it is. */
const REMEMBERED_MS = 1000;
/** So many hashes are remembered of either kind; of more the oldest is forgotten, and asked for again. */
const REMEMBERED_MAX = 10_000;

/**
 * The key directory on Redis or a cluster: a gateway reads what the ledger process writes, one round trip for a look-up.
 * Each shard keeps on which life of its server it was filled. Where that is over, or another server has taken its place,
 * the look-up of a key that is not there rejects: it may be one that was lost.
 * What was said of a hash is remembered in the gateway's process for a moment, so that neither a key in use nor a wrong
 * one costs the server a look-up for each request. A key that was just issued is found at once all the same: its hash was
 * never asked for before. One that was just revoked opens no hold, whatever is remembered of it: admission decides that.
 */
export function createRedisKeyDirectory(options: {
  /** The admission store's connection: who finds the owner's server for the one has found it for the other. */
  redis: RedisConnection;
  /** In front of every key, so that several regions may share a server. */
  prefix: string;
  clock: Pick<Clock, "elapsed">;
}): KeyDirectory {
  const { redis, prefix, clock } = options;
  const scripts = loadScripts(new URL("./lua/", import.meta.url), CONTRACTS);
  const known = createMemory<KeyEntry>(clock);
  const unknown = createMemory<true>(clock);

  /** Look-ups that are under way: who asks for the same hash meanwhile shares the answer. */
  const asking = new Map<string, Promise<KeyEntry | undefined>>();

  const partOf = (tokenHash: string) => tokenHash.slice(0, 2);
  const shardOf = (tokenHash: string) => `${prefix}{keys-${partOf(tokenHash)}}`;

  async function find(tokenHash: string): Promise<string[]> {
    return (await redis.run(scripts.lookup, [shardOf(tokenHash)], { tokenHash })) as string[];
  }

  async function ask(tokenHash: string): Promise<KeyEntry | undefined> {
    const askedMs = clock.elapsed();
    const [outcome, text = ""] = await find(tokenHash);
    if (outcome === "known") {
      const entry = JSON.parse(text) as KeyEntry;
      known.set(tokenHash, entry, askedMs);
      return entry;
    }
    if (outcome === "unfilled") throw new Error("the key directory has not been filled yet");
    unknown.set(tokenHash, true, askedMs);
    return undefined;
  }

  async function mark(part: string, ownerEpoch: number, isFilled: "yes" | "no") {
    const [outcome] = (await redis.run(scripts.mark, [shardOf(part)], {
      ownerEpoch,
      isFilled,
    })) as string[];
    return outcome === "marked";
  }

  return {
    parts: Array.from({ length: SHARDS }, (_, shard) => shard.toString(16).padStart(2, "0")),
    partOf,
    async lookup(tokenHash) {
      const remembered = known.get(tokenHash);
      if (remembered || unknown.get(tokenHash)) return remembered;
      const answer =
        asking.get(tokenHash) ?? ask(tokenHash).finally(() => asking.delete(tokenHash));
      asking.set(tokenHash, answer);
      return answer;
    },
    async put(keys) {
      const puts = [...Map.groupBy(keys, ([tokenHash]) => shardOf(tokenHash))].map(
        ([shard, of]) => {
          const entries = of.flatMap(([tokenHash, entry]) => [tokenHash, JSON.stringify(entry)]);
          return redis.run(scripts.put, [shard], { entries: JSON.stringify(entries) });
        },
      );
      await Promise.all(puts);
      for (const [tokenHash] of keys) {
        known.delete(tokenHash);
        unknown.delete(tokenHash);
      }
    },
    markFilling: async (part, ownerEpoch) => void (await mark(part, ownerEpoch, "no")),
    markFilled: (part, ownerEpoch) => mark(part, ownerEpoch, "yes"),
    async stateOf(part, ownerEpoch) {
      // No hash is so short.
      const [outcome, text] = await find(part);
      const epoch = Number(text);
      if (epoch < ownerEpoch) return "lost";
      return epoch > ownerEpoch || outcome === "unknown" ? "kept" : "moved";
    },
  };
}

/** What was said of hashes lately. */
function createMemory<Said>(clock: Pick<Clock, "elapsed">) {
  /** Oldest first. */
  const remembered = new Map<string, { readonly said: Said; readonly untilMs: number }>();
  return {
    get(tokenHash: string): Said | undefined {
      const found = remembered.get(tokenHash);
      return found && found.untilMs > clock.elapsed() ? found.said : undefined;
    },
    set(tokenHash: string, said: Said, askedMs: number): void {
      remembered.delete(tokenHash);
      remembered.set(tokenHash, { said, untilMs: askedMs + REMEMBERED_MS });
      if (remembered.size <= REMEMBERED_MAX) return;
      for (const oldest of remembered.keys()) {
        remembered.delete(oldest);
        return;
      }
    },
    delete: (tokenHash: string) => remembered.delete(tokenHash),
  };
}
