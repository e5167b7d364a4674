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
      const [, position] = /^\d+ (\d+)$/u.exec(String(await redis.command("GET", key))) ?? [];
      return position === undefined ? "start" : BigInt(position);
    },
  };
}
