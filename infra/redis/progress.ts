import { answersOf, type RedisConnection } from "./connection.ts";
import type { Progress } from "#services/ports.ts";
import { loadScripts } from "./lua-scripts.ts";

const CONTRACTS = { tell: { keys: ["applied"], args: ["ownerEpoch", "position"] } } as const;

/**
 * How far the ledger has come, kept on Redis beside what it has filled. Lost with it, and told again with the next event.
 * In a cluster it is told on several servers, and whoever asks believes the one that knows most: one that was away may
 * have what it was told before.
 */
export function createRedisProgress(options: {
  readonly redis: RedisConnection;
  /** In front of the key, so that several regions may share a server. */
  readonly prefix: string;
}): Progress {
  const { redis, prefix } = options;
  const scripts = loadScripts(new URL("./lua/", import.meta.url), CONTRACTS);
  const keys = redis.tags.map((tag) => `${prefix}applied${tag}`);
  return {
    async tell(ownerEpoch, position) {
      const args = { ownerEpoch, position: String(position) };
      await Promise.any(keys.map((key) => redis.run(scripts.tell, [key], args)));
    },
    async told() {
      const texts = await answersOf(keys.map((key) => redis.command("GET", key)));
      if (texts.length === 0) throw new Error("no Redis server says how far the ledger has come");
      return texts.map(toldIn).reduce(laterOf);
    },
  };
}

type Told = Awaited<ReturnType<Progress["told"]>>;

function toldIn(text: unknown): Told {
  const [, ownerEpoch, position] = /^(\d+) (\d+)$/u.exec(String(text)) ?? [];
  if (ownerEpoch === undefined || position === undefined) return undefined;
  return { ownerEpoch: Number(ownerEpoch), position: BigInt(position) };
}

/** What the newer owner told; of what one told, what is further on. A place that was away may have missed it. */
function laterOf(one: Told, other: Told): Told {
  if (!one || !other) return one ?? other;
  if (one.ownerEpoch !== other.ownerEpoch) return one.ownerEpoch > other.ownerEpoch ? one : other;
  return one.position > other.position ? one : other;
}
