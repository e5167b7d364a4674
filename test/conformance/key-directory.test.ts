import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { createRedisKeyDirectory } from "#infra/key-directory/redis.ts";
import type { RedisConnection } from "#infra/redis/connection.ts";
import type { KeyDirectory } from "#services/ports.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import {
  answersAgain,
  connect,
  freshPrefix,
  redisForTests,
  removeKeys,
  SERVERS,
  SOURCES,
  type RedisForTests,
} from "#test/servers/redis-world.ts";
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

  /** A directory that counts its round trips. */
  function counting(of: (through: RedisConnection) => KeyDirectory) {
    let runs = 0;
    const directory = of({
      ...redis,
      run(...given) {
        runs += 1;
        return redis.run(...given);
      },
    });
    return { directory, runs: () => runs };
  }

  test("a key is asked for once in a moment, known or not", async () => {
    const { clock, of, cleanUp } = make();
    const ledgers = of(redis);
    await fill(ledgers, 1);
    await ledgers.put([[hashOf("right"), ENTRY]]);
    const { directory, runs } = counting(of);
    const ask = () => Promise.all(["right", "wrong"].map((name) => directory.lookup(hashOf(name))));
    const atOnce = await Promise.all([ask(), ask()]);
    expect([...atOnce, await ask()]).toEqual(Array.from({ length: 3 }, () => [ENTRY, undefined]));
    expect(runs()).toBe(2);
    await clock.advance(1000);
    expect(await ask()).toEqual([ENTRY, undefined]);
    expect(runs()).toBe(4);
    await cleanUp();
  });

  test("no more wrong keys are remembered than there is room for, and they push out no right one", async () => {
    const { of, cleanUp } = make();
    const ledgers = of(redis);
    await fill(ledgers, 1);
    await ledgers.put([[hashOf("right"), ENTRY]]);
    const { directory, runs } = counting(of);
    await directory.lookup(hashOf("right"));
    const others = Array.from({ length: 10_001 }, (_, at) => hashOf(`wrong ${at}`));
    for (let at = 0; at < others.length; at += 500)
      await Promise.all(others.slice(at, at + 500).map((hash) => directory.lookup(hash)));
    expect(runs()).toBe(10_002);
    await directory.lookup(others.at(-1) ?? "");
    await directory.lookup(hashOf("right"));
    expect(runs()).toBe(10_002);
    await directory.lookup(others[0] ?? "");
    expect(runs()).toBe(10_003);
    await cleanUp();
  });
});
