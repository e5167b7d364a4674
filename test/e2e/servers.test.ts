import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startStandIn, type StandIn } from "#test/kurrent-stand-in/server.ts";
import { REDIS_SOURCE, redisForTests, type RedisForTests } from "#test/redis-world.ts";
import { balanceOf, leavesNothingRunning, newFolder, openai, startRelai } from "./relai.ts";

leavesNothingRunning();

const ask = (content: string) => ({
  model: "sim-flat",
  messages: [{ role: "user" as const, content }],
});

describe("relai start on an event store server and Redis", () => {
  if (REDIS_SOURCE.from === "nowhere") {
    const { reason } = REDIS_SOURCE;
    test("serves", (context) => context.skip(reason));
    return;
  }
  let events: StandIn;
  let redis: RedisForTests;
  beforeAll(async () => {
    events = await startStandIn();
    redis = await redisForTests();
  });
  afterAll(async () => {
    await events.close();
    await redis.close();
  });
  const settings = () => ({
    RELAI_EVENTSTORE_URL: events.url(),
    RELAI_EVENTSTORE_INSECURE: "1",
    RELAI_REDIS_URL: redis.url,
    RELAI_DEMO: "1",
  });

  test("serves the first request as embedded parts do, and after kill -9 the books are as they were", async () => {
    const dataDir = newFolder();
    const first = await startRelai({ dataDir, settings: settings() });
    const { data, response } = await openai(first)
      .chat.completions.create(ask("[sim input=100 output=50] Hello"))
      .withResponse();
    expect(data.choices[0]?.message.content).toBeTruthy();
    const chargedMicro = Number(response.headers.get("x-relai-cost-micro"));
    expect(chargedMicro).toBeGreaterThan(0);
    const before = await balanceOf(first);
    expect(before).toMatchObject({ credits_micro: 10_000_000 - chargedMicro, held_micro: 0 });
    first.signal("SIGKILL");
    await first.exited;

    const second = await startRelai({ dataDir, settings: settings() });
    expect({ ...(await balanceOf(second)), as_of: before.as_of }).toEqual(before);
    await openai(second).chat.completions.create(ask("again"));
    expect(await second.stop()).toBe(0);
  });
});
