import type { RedisConnection } from "./connection.ts";
import type { Progress } from "#services/ports.ts";

/** How far the ledger has come, kept on Redis beside what it has filled. Lost with it, and told again with the next event. */
export function createRedisProgress(options: {
  readonly redis: RedisConnection;
  /** In front of the key, so that several regions may share a server. */
  readonly prefix: string;
}): Progress {
  const { redis, prefix } = options;
  const key = `${prefix}applied`;
  return {
    async tell(position) {
      await redis.command("SET", key, String(position));
    },
    async told() {
      const text = await redis.command("GET", key);
      return typeof text === "string" && /^\d+$/.test(text) ? BigInt(text) : "start";
    },
  };
}
