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

/** A hash that nobody knew is not asked for again within this. */
const UNKNOWN_MS = 1000;
/** So many such hashes are remembered; of more the oldest is forgotten, and asked for again. */
const UNKNOWN_MAX = 10_000;

/**
 * The key directory on Redis or a cluster: a gateway reads what the ledger process writes, one round trip for a look-up.
 * Each shard keeps on which life of its server it was filled. Where that is over, or another server has taken its place,
 * the look-up of a key that is not there rejects: it may be one that was lost.
 * What nobody knows is remembered in the gateway's process for a moment, so that a caller with a wrong key costs the
 * server little. A key that was just issued is therefore found at once: its hash was never asked for before.
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
  /** Hash → until when nobody knows it, oldest first. */
  const unknown = new Map<string, number>();

  const partOf = (tokenHash: string) => tokenHash.slice(0, 2);
  const shardOf = (tokenHash: string) => `${prefix}{keys-${partOf(tokenHash)}}`;

  function rememberUnknown(tokenHash: string): void {
    unknown.delete(tokenHash);
    unknown.set(tokenHash, clock.elapsed() + UNKNOWN_MS);
    if (unknown.size <= UNKNOWN_MAX) return;
    for (const oldest of unknown.keys()) {
      unknown.delete(oldest);
      return;
    }
  }

  async function find(tokenHash: string): Promise<string[]> {
    return (await redis.run(scripts.lookup, [shardOf(tokenHash)], { tokenHash })) as string[];
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
      if ((unknown.get(tokenHash) ?? 0) > clock.elapsed()) return undefined;
      const [outcome, entry = ""] = await find(tokenHash);
      if (outcome === "known") return JSON.parse(entry) as KeyEntry;
      if (outcome === "unfilled") throw new Error("the key directory has not been filled yet");
      rememberUnknown(tokenHash);
      return undefined;
    },
    async put(keys) {
      const puts = [...Map.groupBy(keys, ([tokenHash]) => shardOf(tokenHash))].map(
        ([shard, of]) => {
          const entries = of.flatMap(([tokenHash, entry]) => [tokenHash, JSON.stringify(entry)]);
          return redis.run(scripts.put, [shard], { entries: JSON.stringify(entries) });
        },
      );
      await Promise.all(puts);
      for (const [tokenHash] of keys) unknown.delete(tokenHash);
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
