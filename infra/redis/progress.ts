import type { Progress } from "#services/ports.ts";
import type { RedisConnection } from "./connection.ts";
import { loadScripts } from "./lua-scripts.ts";

const CONTRACTS = { tell: { keys: ["applied"], args: ["ownerEpoch", "position"] } } as const;

/** How far the ledger has come, kept on Redis beside what it has filled. Lost with it, and told again with the next event. */
export function createRedisProgress(options: {
  readonly redis: RedisConnection;
  /** In front of the key, so that several regions may share a server. */
  readonly prefix: string;
}): Progress {
  const { redis, prefix } = options;
  const scripts = loadScripts(new URL("./lua/", import.meta.url), CONTRACTS);
  const key = `${prefix}applied`;
  return {
    async tell(ownerEpoch, position) {
      await redis.run(scripts.tell, [key], { ownerEpoch, position: String(position) });
    },
    async told() {
      const text = String(await redis.command("GET", key));
      const [, ownerEpoch, position] = /^(\d+) (\d+)$/u.exec(text) ?? [];
      if (ownerEpoch === undefined || position === undefined) return undefined;
      return { ownerEpoch: Number(ownerEpoch), position: BigInt(position) };
    },
  };
}
