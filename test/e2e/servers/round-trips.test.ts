import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { admissionScripts } from "#infra/admission/redis-scripts.ts";
import {
  ADMIN_TOKEN,
  killAll,
  startProcess,
  startSimulator,
  type Process,
} from "#test/faults/processes.ts";
import { startStandIn, type StandIn } from "#test/kurrent-stand-in/server.ts";
import { losingProxy, type LosingProxy } from "#test/doubles/losing-proxy.ts";
import { redisForTests, SOURCES, type RedisForTests } from "#test/servers/redis-world.ts";
import { leavesNothingRunning, manage, newFolder, post } from "#test/e2e/relai.ts";

/** How often a gateway asks its servers: counted, so that no slow machine changes it. */

leavesNothingRunning();

const REQUESTS = 24;
const told = z.object({ url: z.string().nullable() });

describe("a gateway on servers", () => {
  if (SOURCES.redis.from === "nowhere") {
    const { reason } = SOURCES.redis;
    test("asks them as seldom as it can", (context) => context.skip(reason));
    return;
  }
  let events: StandIn;
  let redis: RedisForTests;
  /** The gateway's own way to Redis. */
  let proxy: LosingProxy;
  let upstream: Awaited<ReturnType<typeof startSimulator>>;
  const started: Process[] = [];
  beforeAll(async () => {
    events = await startStandIn();
    redis = await redisForTests();
    proxy = await losingProxy(Number(new URL(redis.url).port));
    upstream = await startSimulator(join(newFolder(), "book.jsonl"));
  });
  afterAll(async () => {
    killAll();
    await Promise.all(started.map(({ ended }) => ended));
    await proxy.close();
    await events.close();
    await redis.close();
  });

  async function start(name: "gateway" | "ledger" | "control"): Promise<string> {
    const process = startProcess([name, "--json"], {
      RELAI_EVENTSTORE_URL: events.url(),
      RELAI_EVENTSTORE_INSECURE: "1",
      RELAI_REDIS_URL: name === "gateway" ? `redis://127.0.0.1:${proxy.port}` : redis.url,
      RELAI_DATA_DIR: newFolder(),
      RELAI_ADMIN_TOKEN: ADMIN_TOKEN,
      RELAI_LOG_LEVEL: "warn",
      RELAI_GATEWAY_PORT: "0",
      RELAI_CONTROL_PORT: "0",
      RELAI_INTERNAL_PORT: "0",
      OPENAI_API_KEY: "sk-round-trips-upstream-key",
      OPENAI_BASE_URL: `${upstream.url}/openai/v1`,
    });
    started.push(process);
    return told.parse(JSON.parse(await process.ready)).url ?? "";
  }

  test("asks Redis twice for a request, at its admission and at its end, and an append carries events of many", async () => {
    await start("ledger");
    const control = await start("control");
    const gateway = await start("gateway");
    const manager = { control, adminToken: ADMIN_TOKEN };
    const customer = { gateway, key: await keyWithCredit(manager) };
    const ask = async () => {
      const answer = await post(customer, "[sim input=100 output=10] Hello", { model: "gpt-4o" });
      expect([answer.status, await answer.text()]).toEqual([200, expect.any(String)]);
    };
    const scripts = () => proxy.timesSent("evalsha");
    const cost = async () => {
      const before = scripts();
      await ask();
      return scripts() - before;
    };
    // Whose key it is, and that there is something to spend, is asked for once in a second besides.
    expect(await cost()).toBeGreaterThan(2);
    await expect.poll(cost, { timeout: 30_000 }).toBe(2);

    const { admit, close, figures } = admissionScripts();
    const counts = () => ({
      admissions: proxy.timesSent(admit.sha1),
      ends: proxy.timesSent(close.sha1),
      others: scripts() - proxy.timesSent(figures.sha1) - proxy.timesSent("{keys-"),
      appends: events.appends(),
      events: events.log.all.length,
    });
    const before = counts();
    await Promise.all(Array.from({ length: REQUESTS }, ask));
    const after = counts();
    const count = (name: keyof typeof before) => after[name] - before[name];
    expect([count("admissions"), count("ends")]).toEqual([REQUESTS, REQUESTS]);
    expect(count("others")).toBe(2 * REQUESTS);
    expect(count("events")).toBeGreaterThanOrEqual(2 * REQUESTS);
    expect(count("appends")).toBeLessThan(count("events"));
  });
});

async function keyWithCredit(manager: { control: string; adminToken: string }): Promise<string> {
  const { id } = await manage(manager, "POST", "/v1/orgs", { name: "Acme" });
  await manage(manager, "POST", `/v1/orgs/${String(id)}/credits`, { amount_dollars: "10.00" });
  const { key } = await manage(manager, "POST", `/v1/orgs/${String(id)}/keys`, {});
  return String(key);
}
