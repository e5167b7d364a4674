import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { createRedisKeyDirectory } from "#infra/key-directory/redis.ts";
import type { RedisConnection } from "#infra/redis/connection.ts";
import { manualClock } from "#test/manual-clock.ts";
import {
  answersAgain,
  connect,
  freshPrefix,
  redisForTests,
  removeKeys,
  SERVERS,
  SOURCES,
  type RedisForTests,
} from "#test/redis-world.ts";
import { ENTRY, fill, hashOf, keyDirectorySuite } from "./key-directory-suite.ts";

keyDirectorySuite("memory", async () => {
  const directory = createMemoryKeyDirectory();
  await fill(directory, 1);
  const nothing = async () => undefined;
  return { directory, elsewhere: directory, advance: nothing, cleanUp: nothing };
});

describe.for(SERVERS)("on $name", ({ name, kind }) => {
  const source = SOURCES[kind];
  if (source.from === "nowhere") {
    test("the key directory", (context) => context.skip(`not tried: ${source.reason}`));
    return;
  }
  let server: RedisForTests;
  let redis: RedisConnection;
  beforeAll(async () => {
    server = await redisForTests(kind);
    redis = await connect(server.url);
  });
  afterAll(async () => {
    await redis.close();
    await server.close();
  });

  const make = (prefix = freshPrefix()) => {
    const clock = manualClock();
    const of = (through: RedisConnection) =>
      createRedisKeyDirectory({ redis: through, prefix, clock });
    return { clock, prefix, of, cleanUp: () => removeKeys(server.url, prefix) };
  };

  keyDirectorySuite(name, async () => {
    const { clock, of, cleanUp } = make();
    const directory = of(redis);
    await fill(directory, 1);
    return { directory, elsewhere: of(redis), advance: (ms) => clock.advance(ms), cleanUp };
  });

  test("a server that lost its memory knows nobody, and does not say that nobody is there", async (context) => {
    if (typeof server.restart === "string") return context.skip(server.restart);
    const { of } = make();
    const directory = of(redis);
    await directory.put([[hashOf("a"), ENTRY]]);
    await fill(directory, 1);
    await server.restart();
    await answersAgain(redis);
    for (const part of directory.parts) expect(await directory.stateOf(part, 1)).toBe("lost");
    await expect(directory.lookup(hashOf("a"))).rejects.toThrow("not been filled");
    await directory.put([[hashOf("a"), ENTRY]]);
    await fill(directory, 2);
    expect(await directory.lookup(hashOf("a"))).toEqual(ENTRY);
    expect(await directory.lookup(hashOf("b"))).toBeUndefined();
  });

  test("a wrong key is asked for once in a moment, and no more of them are remembered than there is room for", async () => {
    const { clock, of, cleanUp } = make();
    let runs = 0;
    const counted: RedisConnection = {
      ...redis,
      run(...given) {
        runs += 1;
        return redis.run(...given);
      },
    };
    await fill(of(redis), 1);
    const directory = of(counted);
    for (let time = 0; time < 3; time += 1) await directory.lookup(hashOf("wrong"));
    expect(runs).toBe(1);
    await clock.advance(1000);
    await directory.lookup(hashOf("wrong"));
    expect(runs).toBe(2);
    const others = Array.from({ length: 10_000 }, (_, at) => hashOf(`wrong ${at}`));
    for (let at = 0; at < others.length; at += 500)
      await Promise.all(others.slice(at, at + 500).map((hash) => directory.lookup(hash)));
    await directory.lookup(others.at(-1) ?? "");
    expect(runs).toBe(10_002);
    await directory.lookup(hashOf("wrong"));
    expect(runs).toBe(10_003);
    await cleanUp();
  });
});
