import { afterAll, beforeAll, describe, test } from "vitest";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import type { RedisConnection } from "#infra/redis/connection.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import {
  answersAgain,
  connect,
  freshPrefix,
  redisForTests,
  removeKeys,
  SERVERS,
  SOURCES,
  timedAdmission,
  type RedisForTests,
} from "#test/servers/redis-world.ts";
import { admissionHoldsSuite } from "./admission-holds-suite.ts";
import { admissionStoreSuite, type AdmissionStoreUnderTest } from "./admission-store-suite.ts";
import { admissionWantedSuite } from "./admission-wanted-suite.ts";

async function makeMemory(): Promise<AdmissionStoreUnderTest> {
  const clock = manualClock();
  let starts = 0;
  const start = () => createMemoryAdmission({ clock, server: `server-${(starts += 1)}` });
  return {
    store: start(),
    clock,
    clockMoves: true,
    restart: async () => start(),
    cleanUp: async () => undefined,
  };
}

admissionStoreSuite("memory", makeMemory);
admissionHoldsSuite("memory", makeMemory);
admissionWantedSuite("memory", makeMemory);

describe.for(SERVERS)("on $name", ({ name, kind }) => {
  const source = SOURCES[kind];
  if (source.from === "nowhere") {
    test("the admission store", (context) => context.skip(`not tried: ${source.reason}`));
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

  async function makeRedis(): Promise<AdmissionStoreUnderTest> {
    const clock = manualClock();
    const prefix = freshPrefix();
    const { restart } = server;
    return {
      store: timedAdmission(redis, prefix, clock),
      clock,
      clockMoves: true,
      restart:
        typeof restart === "string"
          ? restart
          : async () => {
              await restart();
              await answersAgain(redis);
              return timedAdmission(redis, prefix, clock);
            },
      cleanUp: () => removeKeys(server.url, prefix),
    };
  }

  admissionStoreSuite(name, makeRedis);
  admissionHoldsSuite(name, makeRedis);
  admissionWantedSuite(name, makeRedis);
});
