import { cpSync, rmSync } from "node:fs";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { startRedis, type StartedRedis } from "#infra/backing/redis.ts";
import { NO_PROGRAM, REDIS_PROGRAM } from "#test/servers/redis-world.ts";
import { eventsIn } from "#test/e2e/money/books.ts";
import {
  balanceOf,
  command,
  leavesNothingRunning,
  newFolder,
  openai,
  post,
  startRelai,
  type RelaiProcess,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

const CREDIT_MICRO = 10_000_000;
const ask = (content: string) => ({
  model: "sim-flat",
  messages: [{ role: "user" as const, content }],
});

/** One request by OpenAI's client; gives what it cost. The client tries again while the ledger finds a Redis that forgot. */
async function spend(relai: RelaiProcess, content: string): Promise<number> {
  const { response } = await openai(relai, { maxRetries: 10 })
    .chat.completions.create(ask(content))
    .withResponse();
  return Number(response.headers.get("x-relai-cost-micro"));
}

const moneyOf = async (relai: RelaiProcess) => {
  const { credits_micro: credits, held_micro: held } = await balanceOf(relai);
  return { credits, held };
};

/** What the events say that was charged. */
async function chargedIn(relai: RelaiProcess): Promise<number> {
  let sum = 0;
  for (const { type, data } of await eventsIn(relai))
    if (type === "UsageRecorded.v1" && "chargedMicro" in data) sum += data.chargedMicro;
  return sum;
}

describe("relai with its events in the data folder and admission on Redis", () => {
  if (REDIS_PROGRAM === undefined) {
    test("keeps its books", (context) => context.skip(NO_PROGRAM));
    return;
  }
  const program = REDIS_PROGRAM;
  let redis: StartedRedis;
  let raw: Redis;
  beforeAll(async () => {
    redis = await startRedis({ program });
    raw = new Redis(redis.url, { protocol: 2 });
    raw.on("error", () => {});
  });
  beforeEach(() => raw.flushall());
  afterAll(async () => {
    raw.disconnect();
    await redis.kill();
  });

  const start = (dataDir: string): Promise<RelaiProcess> =>
    startRelai({ dataDir, settings: { RELAI_REDIS_URL: redis.url, RELAI_DEMO: "1" } });
  const kill = async (relai: RelaiProcess): Promise<void> => {
    relai.signal("SIGKILL");
    await relai.exited;
  };
  /** The same server, empty and under another name of its own. */
  const replace = async (): Promise<void> => {
    const { port } = redis;
    await redis.kill();
    redis = await startRedis({ program, port });
  };
  const flush = async (): Promise<void> => void (await raw.flushall());

  test.for([
    ["as it was", async () => {}],
    ["flushed", flush],
    ["another, which is empty", replace],
  ] as const)(
    "is killed with a hold open and started on a Redis that is %s: the hold is free, what was charged is charged",
    async ([, lose]) => {
      const dataDir = newFolder();
      const first = await start(dataDir);
      const charged = await spend(first, "[sim input=1000 output=500]");
      expect(charged).toBe(1500);
      const running = await post(first, "[sim chunks=100 delay=1000]", { stream: true });
      expect(running.status).toBe(200);
      expect((await moneyOf(first)).held).toBeGreaterThan(0);
      await kill(first);
      await running.text().catch(() => {});
      await lose();

      const second = await start(dataDir);
      expect(await moneyOf(second)).toEqual({ credits: CREDIT_MICRO - charged, held: 0 });
      expect(await spend(second, "[sim input=10 output=5]")).toBe(15);
      expect(await moneyOf(second)).toEqual({ credits: CREDIT_MICRO - charged - 15, held: 0 });
      expect(await chargedIn(second)).toBe(charged + 15);
      expect((await eventsIn(second)).map(({ type }) => type)).toContain("RequestExpired.v1");
      expect(await second.stop()).toBe(0);
    },
  );

  test.for([
    ["flushed", flush],
    ["replaced by an empty one", replace],
  ] as const)(
    "serves again when its Redis is %s, with the money that the events say",
    async ([, lose]) => {
      const relai = await start(newFolder());
      let charged = await spend(relai, "[sim input=1000 output=500]");
      await lose();
      charged += await spend(relai, "[sim input=10 output=5]");
      expect(await moneyOf(relai)).toEqual({ credits: CREDIT_MICRO - charged, held: 0 });
      expect(await chargedIn(relai)).toBe(charged);
      expect(await relai.stop()).toBe(0);
    },
  );

  test("beside another data folder on the same Redis: the two know nothing of each other, whatever their organizations are called", async () => {
    const [one, other] = [await start(newFolder()), await start(newFolder())];
    expect(one.organization).toBe(other.organization);
    await command(one, "credit", "add", "5.00", "--org", one.organization);
    const charged = await spend(one, "[sim input=1000 output=500]");
    expect(await moneyOf(one)).toEqual({ credits: CREDIT_MICRO + 5_000_000 - charged, held: 0 });
    expect(await moneyOf(other)).toEqual({ credits: CREDIT_MICRO, held: 0 });
    const stranger = openai({ gateway: other.gateway, key: one.key });
    await expect(stranger.models.list()).rejects.toMatchObject({ status: 401 });
    expect([await one.stop(), await other.stop()]).toEqual([0, 0]);
  });

  test("with an older copy of the data folder in its place: Redis is not asked what it knew of the days that are gone", async () => {
    const dataDir = newFolder();
    const copy = newFolder();
    expect(await (await start(dataDir)).stop()).toBe(0);
    cpSync(dataDir, copy, { recursive: true });
    const gone = await start(dataDir);
    await command(gone, "credit", "add", "5.00", "--org", gone.organization);
    await spend(gone, "[sim input=1000 output=500]");
    await kill(gone);
    rmSync(dataDir, { recursive: true });
    cpSync(copy, dataDir, { recursive: true });

    const relai = await start(dataDir);
    expect(await moneyOf(relai)).toEqual({ credits: CREDIT_MICRO, held: 0 });
    expect(await spend(relai, "[sim input=10 output=5]")).toBe(15);
    expect(await moneyOf(relai)).toEqual({ credits: CREDIT_MICRO - 15, held: 0 });
    expect(await relai.stop()).toBe(0);
  });

  test("takes from Redis what its earlier starts left there, and nothing else", async () => {
    const dataDir = newFolder();
    const startsOn = async () => {
      const names = (await raw.keys("relai:*")).map((key) => key.split(":", 4).join(":"));
      return [...new Set(names)];
    };
    const killed = await start(dataDir);
    await kill(killed);
    const [left] = await startsOn();
    const beside = await start(newFolder());
    const relai = await start(dataDir);
    await vi.waitFor(async () => expect(await startsOn()).not.toContain(left), { timeout: 20_000 });
    expect(await startsOn()).toHaveLength(2);
    for (const one of [beside, relai]) expect(await spend(one, "[sim input=10 output=5]")).toBe(15);
    expect([await beside.stop(), await relai.stop()]).toEqual([0, 0]);
  });
});
