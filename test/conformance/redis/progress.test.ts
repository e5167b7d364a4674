import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createRedisProgress } from "#infra/redis/progress.ts";
import type { RedisConnection } from "#infra/redis/connection.ts";
import {
  connect,
  freshPrefix,
  redisForTests,
  removeKeys,
  SOURCES,
  type RedisForTests,
} from "#test/servers/redis-world.ts";

describe("how far the ledger has come, on Redis", () => {
  const source = SOURCES.redis;
  if (source.from === "nowhere") {
    const { reason } = source;
    test("is told", (context) => context.skip(reason));
    return;
  }
  let server: RedisForTests;
  let redis: RedisConnection;
  beforeAll(async () => {
    server = await redisForTests();
    redis = await connect(server.url);
  });
  afterAll(async () => {
    await redis.close();
    await server.close();
  });

  type Word = readonly [ownerEpoch: number, position: bigint];
  const cases: readonly [says: string, words: readonly Word[], told: Word | undefined][] = [
    ["is not known before anybody has told", [], undefined],
    [
      "goes forward",
      [
        [1, 9n],
        [1, 10n],
      ],
      [1, 10n],
    ],
    [
      "never goes back under one owner, by the number and not by its text",
      [
        [1, 10n],
        [1, 9n],
      ],
      [1, 10n],
    ],
    [
      "is exact beyond what a double is",
      [
        [1, 9007199254740994n],
        [1, 9007199254740993n],
      ],
      [1, 9007199254740994n],
    ],
    [
      "is the newest owner's word, wherever it stands",
      [
        [9, 500n],
        [10, 400n],
      ],
      [10, 400n],
    ],
    [
      "is not that of an older owner, which was stopped and has just woken up",
      [
        [9, 500n],
        [10, 600n],
        [9, 700n],
      ],
      [10, 600n],
    ],
  ];
  test.each(cases)("%s", async (_says, words, told) => {
    const prefix = freshPrefix();
    const progress = createRedisProgress({ redis, prefix });
    for (const word of words) await progress.tell(...word);
    const [ownerEpoch, position] = told ?? [];
    expect(await progress.told()).toEqual(told && { ownerEpoch, position });
    await removeKeys(server.url, prefix);
  });
});
