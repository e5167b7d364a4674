import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { auditAll } from "#domain/invariants.ts";
import { makeKeyText } from "#domain/key-text.ts";
import type { Server } from "#infra/backing/find.ts";
import { eventStoreForRegion, openStore } from "#test/worlds/event-store-world.ts";
import { eventsIn } from "#test/faults/books.ts";
import {
  ADMIN_TOKEN,
  killAll,
  startProcess,
  startSimulator,
  type Process,
} from "#test/faults/processes.ts";
import { startStandIn } from "#test/kurrent-stand-in/server.ts";
import { redisForTests, SOURCES, type RedisForTests } from "#test/servers/redis-world.ts";
import {
  balanceOf,
  leavesNothingRunning,
  manage,
  newFolder,
  newOrganization,
  openai,
  startRelai,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

const ask = (content: string) => ({
  model: "sim-flat",
  messages: [{ role: "user" as const, content }],
});

describe("relai start on an event store server and Redis", () => {
  if (SOURCES.redis.from === "nowhere") {
    const { reason } = SOURCES.redis;
    test("serves", (context) => context.skip(reason));
    return;
  }
  let events: Server;
  let redis: RedisForTests;
  beforeAll(async () => {
    events = await eventStoreForRegion();
    redis = await redisForTests();
  });
  afterAll(async () => {
    await events.stop();
    await redis.close();
  });
  const settings = () => ({
    RELAI_EVENTSTORE_URL: events.url,
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
    // Nobody issued it: that is known of a directory that is marked as filled, and of no other.
    const key = makeKeyText("us", (count) => crypto.getRandomValues(new Uint8Array(count)));
    const stranger = openai({ gateway: first.gateway, key });
    await expect(stranger.models.list()).rejects.toMatchObject({ status: 401 });
    const before = await balanceOf(first);
    expect(before).toMatchObject({ credits_micro: 10_000_000 - chargedMicro, held_micro: 0 });
    first.signal("SIGKILL");
    await first.exited;

    const second = await startRelai({ dataDir, settings: settings() });
    expect({ ...(await balanceOf(second)), as_of: before.as_of }).toEqual(before);
    await openai(second).chat.completions.create(ask("again"));
    expect(await second.stop()).toBe(0);
  });

  test("on events that were put back from the server's own backup, beside the Redis of what went on from there", async () => {
    const [dataDir, files] = [newFolder(), join(newFolder(), "events.jsonl")];
    const backup = `${files}.backup`;
    let server = await startStandIn({ path: files });
    const port = Number(/:(\d+)\?/.exec(server.url())?.[1]);
    const start = () =>
      startRelai({ dataDir, settings: { ...settings(), RELAI_EVENTSTORE_URL: server.url() } });
    const first = await start();
    const { key, organization } = await newOrganization(first, { creditMicro: 1_000_000 });
    const customer = (relai: { gateway: string }) => ({ gateway: relai.gateway, key });
    await openai(customer(first)).chat.completions.create(ask("before the backup"));
    const before = await balanceOf(customer(first));
    expect(await first.stop()).toBe(0);
    copyFileSync(files, backup);
    // It claims under the epoch under which the restored one will.
    const lost = await start();
    const path = `/v1/orgs/${organization}`;
    await manage(lost, "POST", `${path}/credits`, { amount_dollars: "1000" });
    const issued = await manage(lost, "POST", `${path}/keys`, {});
    const late = (relai: { gateway: string }) =>
      openai({ gateway: relai.gateway, key: String(issued["key"]) });
    await late(lost).chat.completions.create(ask("lost"));
    expect(await lost.stop()).toBe(0);
    await server.close();
    copyFileSync(backup, files);
    server = await startStandIn({ path: files, port });

    const restored = await start();
    expect({ ...(await balanceOf(customer(restored))), as_of: before.as_of }).toEqual(before);
    await expect(late(restored).models.list()).rejects.toMatchObject({ status: 401 });
    const { response } = await openai(customer(restored))
      .chat.completions.create(ask("after the restore"))
      .withResponse();
    const chargedMicro = Number(response.headers.get("x-relai-cost-micro"));
    expect(await balanceOf(customer(restored))).toMatchObject({
      credits_micro: before.credits_micro - chargedMicro,
      held_micro: 0,
    });
    expect(restored.stderr()).toContain('"alarm":"event_store_put_back"');
    expect(await restored.stop()).toBe(0);
    const store = await openStore(server.url());
    expect(auditAll(await eventsIn(store))).toEqual([]);
    await store.close();
    await server.close();
  });

  test("beside another on the same servers: the later one's ledger serves, and when it ends the earlier one's again", async () => {
    const first = await startRelai({ settings: settings() });
    const second = await startRelai({ settings: settings() });
    const { organization } = await newOrganization(second, { creditMicro: 1_000_000 });
    const credits = `/v1/orgs/${organization}/credits`;
    await manage(first, "POST", credits, { amount_micro: 1_000_000 });
    expect(await second.stop()).toBe(0);
    await manage(first, "POST", credits, { amount_micro: 1_000_000 });
    const balance = await manage(first, "GET", `/v1/orgs/${organization}/balance`);
    expect(balance).toMatchObject({ credits_micro: 3_000_000, held_micro: 0 });
    expect(await first.stop()).toBe(0);
  });
});

const TOLD = z.strictObject({
  ready: z.literal(true),
  process: z.enum(["gateway", "ledger", "control"]),
  region: z.literal("us"),
  url: z.url().nullable(),
  internal: z.url(),
});

describe("gateways, ledgers and the control API as processes of their own", () => {
  if (SOURCES.redis.from === "nowhere") {
    const { reason } = SOURCES.redis;
    test("serve", (context) => context.skip(reason));
    return;
  }
  let events: Server;
  let redis: RedisForTests;
  let upstream: Awaited<ReturnType<typeof startSimulator>>;
  const started: Process[] = [];
  beforeAll(async () => {
    events = await eventStoreForRegion();
    redis = await redisForTests();
    upstream = await startSimulator(join(newFolder(), "book.jsonl"));
  });
  afterAll(async () => {
    killAll();
    await Promise.all(started.map(({ ended }) => ended));
    await events.stop();
    await redis.close();
  });

  async function start(name: "gateway" | "ledger" | "control") {
    const process = startProcess([name, "--json"], {
      RELAI_EVENTSTORE_URL: events.url,
      RELAI_EVENTSTORE_INSECURE: "1",
      RELAI_REDIS_URL: redis.url,
      RELAI_DATA_DIR: newFolder(),
      RELAI_ADMIN_TOKEN: ADMIN_TOKEN,
      RELAI_LOG_LEVEL: "warn",
      RELAI_GATEWAY_PORT: "0",
      RELAI_CONTROL_PORT: "0",
      RELAI_INTERNAL_PORT: "0",
      OPENAI_API_KEY: "sk-servers-upstream-key",
      OPENAI_BASE_URL: `${upstream.url}/openai/v1`,
    });
    started.push(process);
    const told = TOLD.parse(JSON.parse(await process.ready));
    return { ...process, url: told.url ?? "", internal: told.internal };
  }

  test("serve together, a ledger takes over from another, and a gateway that is killed takes nothing with it", async () => {
    const [ledger, standing] = [await start("ledger"), await start("ledger")];
    const [one, other] = [await start("gateway"), await start("gateway")];
    const control = await start("control");
    const managed = { control: control.url, adminToken: ADMIN_TOKEN, gateway: one.url, key: "" };
    const { id } = await manage(managed, "POST", "/v1/orgs", { name: "Acme" });
    const org = `/v1/orgs/${String(id)}`;
    await manage(managed, "POST", `${org}/credits`, { amount_dollars: "1.00" });
    const { key } = await manage(managed, "POST", `${org}/keys`, {});
    const customers = [one, other].map(({ url }) => ({ gateway: url, key: String(key) }));
    let creditsMicro = 1_000_000;
    for (const customer of customers) {
      const { response } = await openai(customer)
        .chat.completions.create({ ...ask("[sim input=1000 output=100]"), model: "gpt-4o" })
        .withResponse();
      creditsMicro -= Number(response.headers.get("x-relai-cost-micro"));
    }
    // What one gateway took the other sees at once, and the control API too.
    for (const customer of customers)
      expect(await balanceOf(customer)).toMatchObject({
        credits_micro: creditsMicro,
        held_micro: 0,
      });
    expect(await manage(managed, "GET", `${org}/balance`)).toMatchObject({
      credits_micro: creditsMicro,
    });

    ledger.kill("SIGTERM");
    expect(await ledger.ended).toBe(0);
    await manage(managed, "POST", `${org}/credits`, { amount_dollars: "1.00" });
    creditsMicro += 1_000_000;
    one.kill("SIGKILL");
    await one.ended;
    const [, left = customers[0]] = customers;
    if (!left) throw new Error("there is a second gateway");
    expect(await balanceOf(left)).toMatchObject({ credits_micro: creditsMicro, held_micro: 0 });
    await openai(left).chat.completions.create({ ...ask("again"), model: "gpt-4o" });
    for (const { kill, ended, stderr } of [other, control, standing]) {
      kill("SIGTERM");
      expect([await ended, stderr()]).toEqual([0, expect.any(String)]);
    }
  });

  test.for([
    ["gateway", { RELAI_REDIS_URL: "" }, "set RELAI_EVENTSTORE_URL and RELAI_REDIS_URL"],
    ["ledger", { RELAI_REDIS_URL: "" }, "or run all in one with relai start"],
    ["control", {}, "relai control needs RELAI_ADMIN_TOKEN"],
  ] as const)("relai %s says what it misses", async ([name, missing, sentence]) => {
    const env = { RELAI_EVENTSTORE_URL: "", ...missing };
    const isControl = name === "control";
    const servers = { RELAI_EVENTSTORE_URL: events.url, RELAI_REDIS_URL: redis.url };
    const process = startProcess([name], {
      RELAI_DATA_DIR: newFolder(),
      ...(isControl ? servers : env),
    });
    started.push(process);
    expect(await process.ended).toBe(2);
    expect(process.stderr()).toContain(sentence);
  });
});
