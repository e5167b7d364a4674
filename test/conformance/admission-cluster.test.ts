import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
import type { AdmitOutcome } from "#domain/accounts/admission-types.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { createRedisKeyDirectory } from "#infra/key-directory/redis.ts";
import { openRedis, type RedisConnection } from "#infra/redis/connection.ts";
import { manualClock } from "#test/manual-clock.ts";
import { startCluster, type RedisCluster } from "#test/redis-cluster.ts";
import { booksOnRedis } from "#test/redis-books.ts";
import {
  answersAgain,
  freshPrefix,
  NO_PROGRAM,
  REDIS_PROGRAM,
  removeKeys,
  timedAdmission,
} from "#test/redis-world.ts";
import { admissionHoldsSuite } from "./admission-holds-suite.ts";
import {
  ask,
  fenced,
  fund,
  type AdmissionStoreUnderTest,
  admissionStoreSuite,
} from "./admission-store-suite.ts";
import { admissionWantedSuite } from "./admission-wanted-suite.ts";
import { fill, keyDirectorySuite } from "./key-directory-suite.ts";

/** The organizations that a server has. */
async function orgsOn(url: string, prefix: string): Promise<string[]> {
  const raw = new Redis(url, { protocol: 2 });
  const keys = await raw.keys(`${prefix}*:state`);
  raw.disconnect();
  return keys.map((key) => /\{(.*)\}/.exec(key)?.[1] ?? "");
}

/** The request ids that an organization holds money for, on whichever of the servers it is. */
async function holdsOf(urls: readonly string[], prefix: string, orgId: string): Promise<string[]> {
  const each = await Promise.all(
    urls.map(async (url) => {
      const raw = new Redis(url, { protocol: 2 });
      const books = await booksOnRedis(raw, prefix, orgId).catch(() => undefined);
      raw.disconnect();
      return books?.holds.map(([requestId]) => requestId) ?? [];
    }),
  );
  return each.flat();
}

/** The same suites on a cluster of three: what an organization needs is on one server, and not all are on the same. */

describe("on a Redis Cluster", () => {
  if (REDIS_PROGRAM === undefined) {
    test("admission and the key directory", (context) => context.skip(NO_PROGRAM));
    return;
  }
  const program = REDIS_PROGRAM;

  describe("of three", () => {
    let cluster: RedisCluster;
    let redis: RedisConnection;
    beforeAll(async () => {
      cluster = await startCluster(program);
      redis = await openRedis({ urls: cluster.urls, isCluster: true, commandMsMax: 5000 });
    });
    afterAll(async () => {
      await redis.close();
      await cluster.close();
    });
    const removeAll = async (prefix: string) => {
      for (const url of cluster.urls) await removeKeys(url, prefix);
    };

    async function make(): Promise<AdmissionStoreUnderTest> {
      const clock = manualClock();
      const prefix = freshPrefix();
      return {
        store: timedAdmission(redis, prefix, clock),
        clock,
        clockMoves: true,
        async restart() {
          await cluster.restart();
          await redis.close();
          redis = await openRedis({ urls: cluster.urls, isCluster: true, commandMsMax: 5000 });
          return timedAdmission(redis, prefix, clock);
        },
        cleanUp: () => removeAll(prefix),
      };
    }

    admissionStoreSuite("Redis Cluster", make);
    admissionHoldsSuite("Redis Cluster", make);
    admissionWantedSuite("Redis Cluster", make);
    keyDirectorySuite("Redis Cluster", async () => {
      const clock = manualClock();
      const prefix = freshPrefix();
      const open = () => createRedisKeyDirectory({ redis, prefix, clock });
      const directory = open();
      await fill(directory, 1);
      const advance = (ms: number) => clock.advance(ms);
      return { directory, elsewhere: open(), advance, cleanUp: () => removeAll(prefix) };
    });

    test("organizations are on all servers, each keeps the identity of its own, and from all of them they are removed", async () => {
      const prefix = freshPrefix();
      const store = createRedisAdmission({ redis, prefix });
      const orgIds = Array.from({ length: 30 }, (_, at) => `org_${at}`);
      await fund(store, ...orgIds);
      const each = cluster.urls.map((url) => new Redis(url, { protocol: 2 }));
      const keys = await Promise.all(each.map((one) => one.keys(`${prefix}*`)));
      for (const [at, one] of each.entries()) {
        expect(keys[at]?.length).toBeGreaterThan(0);
        const id = /master_replid:(\S+)/.exec(await one.info("replication"))?.[1] ?? "";
        expect(await store.seek([])).toContain(id);
        const state = keys[at]?.find((key) => key.endsWith(":state")) ?? "";
        expect(await one.hget(state, "server")).toBe(id);
        one.disconnect();
      }
      const [kept = ""] = orgIds;
      await redis.removeAllBut(`${prefix}{${kept}}`, prefix);
      const left = await Promise.all(cluster.urls.map((url) => orgsOn(url, prefix)));
      expect(left.flat()).toEqual([kept]);
      await removeAll(prefix);
    });
  });

  test("a primary killed with admissions in flight: no request is carried out twice, and its organizations are fenced", async () => {
    const cluster = await startCluster(program, { replica: true });
    const redis = await openRedis({ urls: cluster.urls, isCluster: true, commandMsMax: 2000 });
    const prefix = freshPrefix();
    const store = createRedisAdmission({ redis, prefix });
    try {
      const orgIds = Array.from({ length: 12 }, (_, at) => `org_${at}`);
      await fund(store, ...orgIds);
      const before = await store.seek([]);
      const gone = cluster.servers[0]?.url ?? "";
      const lost = (await orgsOn(gone, prefix)).toSorted();
      const kept = orgIds.filter((orgId) => !lost.includes(orgId));
      expect(lost.length * kept.length).toBeGreaterThan(0);

      const answers = new Map<string, { orgId: string; answer: AdmitOutcome | "unknown" }>();
      let isKilled = false;
      let made = 0;
      const caller = async () => {
        for (let after = 0; after < 40; after += Number(isKilled)) {
          made += 1;
          const [orgId = "", requestId] = [orgIds[made % orgIds.length], `req_${made}`];
          const admitting = store.admit(ask({ orgId, requestId, holdMicro: 0 }));
          const answer = await admitting.catch(() => "unknown" as const);
          answers.set(requestId, { orgId, answer });
        }
      };
      const callers = Promise.all(Array.from({ length: 32 }, caller));
      await new Promise((resolve) => setTimeout(resolve, 100));
      isKilled = true;
      await cluster.servers[0]?.kill();
      await callers;

      // Each id was said once: one that was sent again would be known, or be there without having been admitted.
      const idsOf = (of: string, outcome: string) =>
        [...answers].flatMap(([requestId, { orgId, answer }]) =>
          orgId === of && (answer === outcome || (answer as AdmitOutcome).outcome === outcome)
            ? [requestId]
            : [],
        );
      expect(orgIds.flatMap((orgId) => idsOf(orgId, "refused"))).toEqual([]);
      expect(lost.flatMap((orgId) => idsOf(orgId, "unknown")).length).toBeGreaterThan(0);
      for (const orgId of kept) {
        const held = await holdsOf(cluster.urls.slice(1, 3), prefix, orgId);
        expect(held).toEqual(expect.arrayContaining(idsOf(orgId, "admitted")));
        const mayBe = [...idsOf(orgId, "admitted"), ...idsOf(orgId, "unknown")];
        expect(mayBe).toEqual(expect.arrayContaining(held));
      }

      // The replica takes its place: another server, on which nothing is admitted until it was adopted.
      const orgId = lost[0] ?? "";
      const dropping = () =>
        store.drop({ orgId, ownerEpoch: 1, requestId: "req_0" }).catch(() => undefined);
      await expect.poll(dropping, { timeout: 30_000 }).toEqual(fenced("server"));
      await answersAgain(redis);
      const after = await store.seek(before);
      expect(after).not.toEqual(before);
      const state = toSnapshot(emptyAccounts(orgId));
      const adopting = (servers: readonly string[]) =>
        store.adopt({ ownerEpoch: 2, servers, state });
      expect(await adopting(before)).toEqual(fenced("server"));
      expect(await adopting(after)).toEqual({ outcome: "adopted" });
    } finally {
      await redis.close();
      await cluster.close();
    }
  });
});
