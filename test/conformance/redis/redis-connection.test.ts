import { Redis } from "ioredis";
import { afterEach, describe, expect, test } from "vitest";
import { startRedis } from "#infra/backing/redis.ts";
import { openRedis } from "#infra/redis/connection.ts";
import { NO_PROGRAM, REDIS_PROGRAM } from "#test/servers/redis-world.ts";

/** What a connection to Redis says, and to whom it speaks, on servers of our own. */

describe("a connection to Redis", () => {
  if (REDIS_PROGRAM === undefined) {
    test("says what is wrong", (context) => context.skip(NO_PROGRAM));
    return;
  }
  const program = REDIS_PROGRAM;
  const undo: (() => Promise<unknown> | void)[] = [];
  afterEach(async () => {
    for (const each of undo.splice(0).reverse()) await each();
  });

  async function start(args: string[], port?: number) {
    const server = await startRedis({ program, args, ...(port === undefined ? {} : { port }) });
    undo.push(() => server.kill());
    return server;
  }

  async function connect(url: string) {
    const troubles: string[] = [];
    const onTrouble = (sentence: string) => void troubles.push(sentence);
    const unfit: string[] = [];
    const onUnfit = (sentence: string) => void unfit.push(sentence);
    const redis = await openRedis({ urls: [url], commandMsMax: 2000, onTrouble, onUnfit });
    undo.push(() => redis.close());
    return { redis, troubles, unfit };
  }

  test("speaks to the database of its URL, and does not open where the server has none of that number", async () => {
    const server = await start(["--databases", "4"]);
    await expect(connect(`${server.url}/4`)).rejects.toThrow("no Redis server answers");
    const { redis } = await connect(`${server.url}/3`);
    await redis.command("SET", "where", "here");
    const raw = new Redis(server.url, { protocol: 2, db: 3 });
    undo.push(() => raw.disconnect());
    expect(await raw.get("where")).toBe("here");
  });

  test("never goes on in another database, also where its own is gone after a restart", async () => {
    const server = await start(["--databases", "4"]);
    const { redis, troubles } = await connect(`${server.url}/3`);
    await server.kill();
    await start(["--databases", "2"], server.port);
    await expect
      .poll(() => troubles, { timeout: 10_000 })
      .toContain("ERR DB index is out of range");
    for (let tries = 0; tries < 20; tries += 1)
      await expect(redis.command("SET", "where", "elsewhere")).rejects.toThrow();
    const raw = new Redis(server.url, { protocol: 2 });
    undo.push(() => raw.disconnect());
    expect(await raw.get("where")).toBe(null);
  });

  test("says no argument of a command that its server does not know, also of its own", async () => {
    const server = await start(["--rename-command", "AUTH", "LOGIN"]);
    const troubles: string[] = [];
    const urls = [server.url.replace("//", "//:canary@")];
    const onTrouble = (sentence: string) => void troubles.push(sentence);
    await expect(openRedis({ urls, commandMsMax: 2000, onTrouble })).rejects.toThrow();
    expect(troubles[0]).toBe("ERR unknown command 'auth'");
    const { redis } = await connect(server.url);
    const said: unknown = await redis
      .command("NOSUCH", "key", "canary")
      .catch((error: unknown) => error);
    expect(said).toMatchObject({ name: "ReplyError", message: "ERR unknown command 'NOSUCH'" });
    expect(JSON.stringify([troubles, said, Object.entries(said ?? {})])).not.toContain("canary");
  });

  test("says once that its server begins to throw keys away, and once more when it does so again", async () => {
    const server = await start([]);
    const { redis, unfit } = await connect(server.url);
    const ids = await redis.seek([]);
    const raw = new Redis(server.url, { protocol: 2 });
    undo.push(() => raw.disconnect());
    for (const times of [1, 2]) {
      await raw.config("SET", "maxmemory-policy", "allkeys-lru");
      for (let each = 0; each < 3; each += 1)
        await expect(redis.seek(ids)).rejects.toThrow("maxmemory-policy is allkeys-lru");
      expect(unfit).toHaveLength(times);
      await raw.config("SET", "maxmemory-policy", "noeviction");
      expect(await redis.seek(ids)).toEqual(ids);
    }
    expect(unfit.at(-1)).toMatch(/maxmemory-policy is allkeys-lru; it must be noeviction/);
  });
});
