import { afterEach, describe, expect, test } from "vitest";
import { sha256Hex } from "#domain/hash.ts";
import type { Ledger } from "#services/ledger/ledger.ts";
import {
  failoverWorld,
  otherOrg,
  PREFIX,
  type FailoverWorld,
  type GatewayOnRedis,
} from "#test/worlds/failover-world.ts";
import { startCluster, type RedisCluster } from "#test/servers/redis-cluster.ts";
import { NO_PROGRAM, REDIS_PROGRAM } from "#test/servers/redis-world.ts";

/** A cluster of three, the real ledger and a gateway on it, and what becomes of a part of it. */

const ORGS = 30;
const ORG_IDS = Array.from({ length: ORGS }, (_, number) => otherOrg(number).orgId);
/** Longer than the cluster takes to call a server failed, and than a ledger would wait before it claims. */
const AWAY_MS = 7_000;
const BACK = { timeout: 40_000, interval: 50 };

describe("a region on a Redis Cluster", () => {
  if (REDIS_PROGRAM === undefined) {
    test("loses a part", (context) => context.skip(NO_PROGRAM));
    return;
  }
  const program = REDIS_PROGRAM;
  const undo: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const each of undo.splice(0).reverse()) await each();
  });

  let cluster: RedisCluster;
  let world: FailoverWorld;
  let gateway: GatewayOnRedis;
  let isSeen: Awaited<ReturnType<FailoverWorld["controlOn"]>>;

  async function begin(options: { replica?: boolean } = {}): Promise<void> {
    cluster = await startCluster(program, options);
    undo.push(() => cluster.close());
    world = await failoverWorld(1_000, { isCluster: true, others: ORGS });
    undo.push(() => world.close());
  }

  async function serve(): Promise<Ledger> {
    const ledger = await world.ledgerOn(cluster.urls, "ledger-1");
    gateway = await world.gatewayOn(cluster.urls, "gateway-1");
    isSeen = await world.controlOn(cluster.urls);
    return ledger;
  }

  const homeOf = (orgId: string) => cluster.homeOf(`${PREFIX}{${orgId}}`);
  const orgsAt = (at: number) => ORG_IDS.filter((orgId) => homeOf(orgId) === at);
  const shardOf = (tokenHash: string) => `${PREFIX}{keys-${tokenHash.slice(0, 2)}}`;
  const hashOf = (orgId: string) => sha256Hex(orgId.replace("org_", "key_"));
  /** A hash that is nobody's, in the shard of another. */
  const nobodyBeside = (tokenHash: string) => tokenHash.slice(0, 2) + "0".repeat(62);

  const opens = async (orgId: string) => typeof (await gateway.open(orgId)) === "object";
  const served = async (orgIds: readonly string[]) =>
    (await Promise.all(orgIds.map(opens))).filter(Boolean).length;
  const epochs = async () => (await world.owners()).map(({ ownerEpoch }) => ownerEpoch);

  /** For as long as a primary is away: everybody else is served, whose home it is not, and nothing is claimed. */
  async function servesTheOthers(away: number): Promise<void> {
    const [there, elsewhere] = [
      orgsAt(away),
      [0, 1, 2].filter((at) => at !== away).flatMap(orgsAt),
    ];
    const before = await epochs();
    const [one = ""] = elsewhere;
    const until = performance.now() + AWAY_MS;
    while (performance.now() < until) {
      await expect.poll(() => served(elsewhere), BACK).toBe(elsewhere.length);
      expect(await isSeen(one, await world.topUp(one), 20_000)).toBe(true);
    }
    expect(await served(there)).toBe(0);
    expect(await isSeen(there[0] ?? "", await world.topUp(there[0] ?? ""), 1_000)).toBe(false);
    const [first, second] = [await world.topUp(one), await world.topUp(one)];
    for (const orgId of ORG_IDS) {
      const hash = hashOf(orgId);
      if (cluster.homeOf(shardOf(hash)) === away) {
        await expect(gateway.lookup(hash)).rejects.toThrow();
        expect(await isSeen(one, first, 200, hash)).toBe(false);
      } else {
        const lookup = (of: string) => () => gateway.lookup(of).catch(() => "not said");
        await expect.poll(lookup(hash), BACK).toMatchObject({ orgId });
        await expect.poll(lookup(nobodyBeside(hash)), BACK).toBeUndefined();
        expect(await isSeen(one, second, 20_000, hash)).toBe(true);
      }
    }
    expect(await epochs()).toEqual(before);
  }

  /** Everybody is served, sees what was recorded meanwhile, and every key is known. */
  async function servesAll(): Promise<void> {
    for (const orgId of ORG_IDS)
      await expect.poll(() => opens(orgId), { ...BACK, message: orgId }).toBe(true);
    for (const orgId of ORG_IDS)
      expect(await isSeen(orgId, await world.topUp(orgId), 5_000)).toBe(true);
    for (const orgId of ORG_IDS) {
      const lookup = (hash: string) => () => gateway.lookup(hash).catch(() => "not said");
      await expect.poll(lookup(hashOf(orgId)), BACK).toMatchObject({ orgId });
      await expect.poll(lookup(nobodyBeside(hashOf(orgId))), BACK).toBeUndefined();
    }
    expect(world.alarms).not.toContain("fault");
  }

  test("one primary stands still: only what lives there waits, and with its memory it goes on without a claim", async () => {
    await begin();
    expect(await (await serve()).filled("all", 20_000)).toBe(true);
    await servesAll();
    const { pid } = cluster.servers[2] ?? { pid: 0 };
    process.kill(pid, "SIGSTOP");
    await servesTheOthers(2);
    process.kill(pid, "SIGCONT");
    await servesAll();
    expect(await epochs()).toEqual([1]);
  });

  test("one primary is gone and comes back empty: what lived there is adopted under one more claim", async () => {
    await begin();
    expect(await (await serve()).filled("all", 20_000)).toBe(true);
    await cluster.servers[2]?.kill();
    await servesTheOthers(2);
    await cluster.start(2);
    await servesAll();
    expect(await epochs()).toEqual([1, 2]);
  });

  test("a replica takes the place of one that is gone: what lived there is adopted", async () => {
    await begin({ replica: true });
    expect(await (await serve()).filled("all", 20_000)).toBe(true);
    await cluster.servers[0]?.kill();
    await servesAll();
    expect(await epochs()).toEqual([1, 2]);
  });

  test("one primary is gone at the start: the others are served, and it when it comes", async () => {
    await begin();
    await cluster.servers[2]?.kill();
    await serve();
    await expect.poll(() => served(orgsAt(0)), BACK).toBe(orgsAt(0).length);
    await expect.poll(() => served(orgsAt(1)), BACK).toBe(orgsAt(1).length);
    await servesTheOthers(2);
    await cluster.start(2);
    await servesAll();
    expect(await epochs()).toEqual([1, 2]);
  });

  test("a slot moves to another primary: its organization is adopted there, and its keys need no claim", async () => {
    await begin();
    expect(await (await serve()).filled("all", 20_000)).toBe(true);
    const [orgId = ""] = orgsAt(0);
    const hash = hashOf(orgId);
    const from = cluster.homeOf(shardOf(hash));
    await cluster.move(shardOf(hash), (from + 1) % 3);
    await servesAll();
    expect(await epochs()).toEqual([1]);
    await cluster.move(`${PREFIX}{${orgId}}`, 1, () => gateway.open(orgId));
    await servesAll();
    expect((await epochs()).length).toBeLessThanOrEqual(3);
  });
});
