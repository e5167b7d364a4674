import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { freePort } from "#infra/backing/program.ts";
import { startRedis, type StartedRedis } from "#infra/backing/redis.ts";
import { openRedis, type RedisConnection } from "#infra/redis/connection.ts";
import type { AdmissionStore } from "#services/ports.ts";
import { FUNDED, ORG } from "#test/worlds/accounts-world.ts";
import { losingProxy } from "#test/doubles/losing-proxy.ts";
import { answersAgain, NO_PROGRAM, REDIS_PROGRAM } from "#test/servers/redis-world.ts";
import {
  ask,
  everyVerb,
  fenced,
  fund,
  heldAndSpent,
  moneyOf,
  OTHER,
  own,
  under,
} from "./admission-store-suite.ts";

/** What a real Redis does at its worst. Each of these is provoked, on servers of our own. */

const PREFIX = "relai:";
const state = toSnapshot(emptyAccounts(ORG));

/** Every verb of money is fenced for one reason, and so are the figures. */
async function expectFenced(store: AdmissionStore, reason: string): Promise<void> {
  for (const say of Object.values(everyVerb(store, own)))
    expect(await say()).toEqual(fenced(reason));
  expect(await moneyOf(store)).toEqual(fenced(reason));
}

describe("admission on a Redis that", () => {
  if (REDIS_PROGRAM === undefined) {
    test("fails", (context) => context.skip(NO_PROGRAM));
    return;
  }
  const program = REDIS_PROGRAM;
  const undo: (() => Promise<unknown> | void)[] = [];
  afterEach(async () => {
    for (const each of undo.splice(0).reverse()) await each();
  });

  async function start(options: { port?: number; folder?: string; args?: string[] } = {}) {
    const { args = [], ...rest } = options;
    const soon = ["--repl-diskless-sync-delay", "0"];
    const server = await startRedis({ program, ...rest, args: [...soon, ...args] });
    undo.push(() => server.kill());
    return server;
  }

  async function connectTo(port: number, commandMsMax = 2000) {
    const redis = await openRedis({ urls: [`redis://127.0.0.1:${port}`], commandMsMax });
    undo.push(() => redis.close());
    return { redis, store: createRedisAdmission({ redis, prefix: PREFIX }) };
  }

  function rawTo({ url }: StartedRedis): Redis {
    const raw = new Redis(url, { protocol: 2, retryStrategy: () => 50 });
    raw.on("error", () => {});
    undo.push(() => raw.disconnect());
    return raw;
  }

  /** Waits until a replica has all that its primary has. */
  async function linked(raw: Redis): Promise<void> {
    const replication = () => raw.info("replication");
    await expect.poll(replication, { timeout: 20_000 }).toContain("master_link_status:up");
  }

  let server: StartedRedis;
  let redis: RedisConnection;
  let store: AdmissionStore;
  beforeEach(async () => {
    server = await start();
    ({ redis, store } = await connectTo(server.port));
    await fund(store, ORG, OTHER);
  });

  test("forgets its scripts: they are sent again, and each decision is made once", async () => {
    const raw = rawTo(server);
    for (const [number, say] of Object.values(everyVerb(store, own)).entries()) {
      await raw.script("FLUSH");
      expect((await say()).outcome, `verb ${number}`).not.toBe("fenced");
    }
    await raw.script("FLUSH");
    await store.want(OTHER);
    await raw.script("FLUSH");
    expect(await store.wanted()).toEqual([{ orgId: OTHER, writerEpochs: [] }]);
    // The last verb swept what the first one took.
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(0, 0));
  });

  test("is asked much at once gets it in one piece, and answers each by itself", async () => {
    const first = await moneyOf(store);
    const reads = async () => {
      const text = (await redis.command("INFO", "stats")) as string;
      return Number(/^total_reads_processed:(\d+)/m.exec(text)?.[1]);
    };
    const before = await reads();
    const answers = await Promise.all(Array.from({ length: 20 }, () => moneyOf(store)));
    expect(answers).toEqual(answers.map(() => first));
    // The question itself is one, and a piece may be read in two.
    expect((await reads()) - before).toBeLessThanOrEqual(3);
  });

  test("says its own time: nobody else's counts", async () => {
    const raw = rawTo(server);
    const timeMs = async () => {
      const [seconds, micros] = (await raw.time()).map(Number);
      return (seconds ?? 0) * 1000 + Math.floor((micros ?? 0) / 1000);
    };
    const before = await timeMs();
    const answer = await store.admit(ask());
    const after = await timeMs();
    const atMs = answer.outcome === "admitted" ? answer.atMs : 0;
    expect(atMs).toBeGreaterThanOrEqual(before);
    expect(atMs).toBeLessThanOrEqual(after);
  });

  test("loses its answer: nobody knows, nothing is sent again, and a drop undoes it", async () => {
    const proxy = await losingProxy(server.port);
    undo.push(() => proxy.close());
    const { redis: far, store: through } = await connectTo(proxy.port, 1000);
    expect(await through.admit(ask({ requestId: "req_first" }))).toMatchObject({
      outcome: "admitted",
    });
    proxy.loseReplies();
    await expect(through.admit(ask({ requestId: "req_lost" }))).rejects.toThrow("timed out");
    // It was taken all the same.
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(20, 0));
    const cut = through.admit(ask({ requestId: "req_cut" }));
    setTimeout(() => proxy.cut(), 50);
    await expect(cut).rejects.toThrow();
    await answersAgain(far);
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(30, 0));
    for (const requestId of ["req_first", "req_lost", "req_cut"])
      expect(proxy.timesSent(requestId)).toBe(requestId === "req_first" ? 2 : 1);
    for (const requestId of ["req_lost", "req_cut"])
      expect(await through.drop({ ...own, requestId })).toEqual({ outcome: "dropped" });
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(10, 0));
  });

  test("stands still: a call is given up in its time, may still be carried out, and a drop undoes it", async () => {
    const { redis: far, store: hasty } = await connectTo(server.port, 700);
    // A script that the server does not know yet would not be carried out later.
    await store.admit(ask({ requestId: "req_first" }));
    process.kill(server.pid, "SIGSTOP");
    const begun = performance.now();
    await expect(hasty.admit(ask())).rejects.toThrow("timed out");
    expect(performance.now() - begun).toBeLessThan(5000);
    process.kill(server.pid, "SIGCONT");
    await answersAgain(far);
    await expect.poll(() => moneyOf(store), { timeout: 20_000 }).toMatchObject(heldAndSpent(20, 0));
    expect(await hasty.drop(under)).toEqual({ outcome: "dropped" });
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(10, 0));
    expect(await hasty.admit(ask())).toMatchObject({ refusal: "request_known" });
  });

  test("is gone: a call is refused at once, waits for nothing, and is not made later", async () => {
    await server.kill();
    await expect(store.admit(ask())).rejects.toThrow();
    const begun = performance.now();
    await expect(store.admit(ask())).rejects.toThrow("enableOfflineQueue");
    expect(performance.now() - begun).toBeLessThan(1500);
    const again = await start({ port: server.port });
    await answersAgain(redis);
    expect(await rawTo(again).keys("*")).toEqual([]);
  });

  test("is flushed: everything is absent on the same server, until it is adopted", async () => {
    const ids = await store.seek([]);
    await store.admit(ask());
    await rawTo(server).flushall();
    expect(await store.seek([])).toEqual(ids);
    await expectFenced(store, "absent");
    expect(await store.adopt({ ownerEpoch: 2, servers: ids, state })).toEqual({
      outcome: "adopted",
    });
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(0, 0));
  });

  test("comes back with an old dump: it is another server, and what it says counts for nothing", async () => {
    const folder = mkdtempSync(join(tmpdir(), "relai-dump-"));
    undo.push(() => rmSync(folder, { recursive: true, force: true }));
    const first = await start({ folder });
    const { redis: kept, store: dumped } = await connectTo(first.port);
    await fund(dumped, ORG);
    await rawTo(first).save();
    expect(await dumped.admit(ask({ holdMicro: FUNDED }))).toMatchObject({ outcome: "admitted" });
    const before = await dumped.seek([]);
    await first.kill();
    await start({ folder, port: first.port });
    await answersAgain(kept);
    // The money that was held is free again there, and nobody gets at it.
    await expectFenced(dumped, "server");
    const after = await dumped.seek(before);
    expect(after).not.toEqual(before);
    expect(await dumped.adopt({ ownerEpoch: 2, servers: before, state })).toEqual(fenced("server"));
    expect(await dumped.adopt({ ownerEpoch: 1, servers: after, state })).toEqual(fenced("older"));
    expect(await dumped.adopt({ ownerEpoch: 2, servers: after, state })).toEqual({
      outcome: "adopted",
    });
  });

  test("is failed over, and back: every change of the primary is another server, also on a connection that was kept", async () => {
    const standby = await start();
    const [rawFirst, rawStandby] = [rawTo(server), rawTo(standby)];
    const { store: onStandby } = await connectTo(standby.port);
    await rawStandby.replicaof("127.0.0.1", server.port);
    await linked(rawStandby);
    // A first replica changes what the primary calls itself, which costs one adoption.
    const first = await store.seek([]);
    await store.adopt({ ownerEpoch: 2, servers: first, state });
    const second = { ...own, ownerEpoch: 2 };
    expect(await store.apply({ ...second, items: [] })).toMatchObject({ outcome: "applied" });
    const epochThere = () => rawStandby.hget(`${PREFIX}{${ORG}}:state`, "epoch");
    await expect.poll(epochThere, { timeout: 20_000 }).toBe("2");
    // A replica has the primary's name, takes nothing, and nobody claims it.
    expect(await rawStandby.info("replication")).toContain(`master_replid:${first[0]}`);
    await expect(onStandby.seek(first)).rejects.toThrow("1 of 1 answer, 0 of them as a primary");
    await expect(onStandby.drop({ ...second, requestId: "req_1" })).rejects.toThrow("read only");

    await rawStandby.replicaof("NO", "ONE");
    expect(await onStandby.drop({ ...second, requestId: "req_1" })).toEqual(fenced("server"));
    // The old primary does not know yet, and goes on; its takings end at the fence of the next owner.
    expect(await store.drop({ ...second, requestId: "req_1" })).toEqual({ outcome: "dropped" });
    const promoted = await onStandby.seek(first);
    expect(await onStandby.adopt({ ownerEpoch: 3, servers: promoted, state })).toEqual({
      outcome: "adopted",
    });
    await rawFirst.replicaof("127.0.0.1", standby.port);
    await linked(rawFirst);
    expect(await store.drop({ ...second, requestId: "req_1" })).toEqual(fenced("older"));
    await rawFirst.replicaof("NO", "ONE");
    expect(await store.drop({ ...second, ownerEpoch: 3, requestId: "req_1" })).toEqual(
      fenced("server"),
    );
  });

  test("is full: nothing is half done, and it goes on when there is room", async () => {
    const raw = rawTo(server);
    await raw.config("SET", "maxmemory", "1");
    await expect(store.admit(ask())).rejects.toThrow("OOM");
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(0, 0));
    await raw.config("SET", "maxmemory", "0");
    expect(await store.admit(ask())).toMatchObject({ outcome: "admitted" });
  });

  test("may throw keys away is refused", async () => {
    const careless = await start({ args: ["--maxmemory-policy", "allkeys-lru"] });
    await expect(connectTo(careless.port)).rejects.toThrow("maxmemory-policy is allkeys-lru");
    // One that began to when it was a replica is not moved to.
    const standby = await start();
    const urls = [server.url, standby.url];
    const raw = rawTo(standby);
    await raw.replicaof("127.0.0.1", server.port);
    await linked(raw);
    const both = await openRedis({ urls, commandMsMax: 2000 });
    undo.push(() => both.close());
    const before = await both.seek([]);
    await raw.config("SET", "maxmemory-policy", "allkeys-lru");
    await raw.replicaof("NO", "ONE");
    await expect(both.seek(before)).rejects.toThrow("maxmemory-policy is allkeys-lru");
    await raw.config("SET", "maxmemory-policy", "noeviction");
    expect(await both.seek(before)).not.toEqual(before);
  });

  test("is not there yet at one of its addresses: it is found when it is, and without any nothing opens", async () => {
    const port = await freePort();
    const late = `redis://127.0.0.1:${port}`;
    await expect(openRedis({ urls: [late], commandMsMax: 2000 })).rejects.toThrow(
      "no Redis server answers",
    );
    const both = await openRedis({ urls: [late, server.url], commandMsMax: 2000 });
    undo.push(() => both.close());
    const before = await both.seek([]);
    await server.kill();
    await expect(both.seek(before)).rejects.toThrow("0 of 2 answer");
    const raw = rawTo(await start({ port }));
    await answersAgain(both);
    expect(await raw.info("replication")).toContain(`master_replid:${(await both.seek([]))[0]}`);
  });
});
