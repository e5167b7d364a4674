import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
import type { AdmitOutcome } from "#domain/accounts/admission-types.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { createRedisKeyDirectory } from "#infra/key-directory/redis.ts";
import { openRedis, type RedisConnection } from "#infra/redis/connection.ts";
import { createRedisProgress } from "#infra/redis/progress.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { startCluster, type RedisCluster } from "#test/servers/redis-cluster.ts";
import { booksOnRedis } from "#test/servers/redis-books.ts";
import {
  answersAgain,
  freshPrefix,
  NO_PROGRAM,
  REDIS_PROGRAM,
  removeKeys,
  timedAdmission,
} from "#test/servers/redis-world.ts";
import { admissionHoldsSuite } from "./admission-holds-suite.ts";
import {
  ask,
  fenced,
  fund,
  own,
  type AdmissionStoreUnderTest,
  admissionStoreSuite,
} from "./admission-store-suite.ts";
import { admissionWantedSuite } from "./admission-wanted-suite.ts";
import {
  ENTRY,
  fill as fillDirectory,
  hashOf,
  keyDirectorySuite,
} from "#test/conformance/key-directory-suite.ts";

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
      await fillDirectory(directory, 1);
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

  describe("of three, a part of which", () => {
    let cluster: RedisCluster;
    const undo: (() => Promise<unknown>)[] = [];
    beforeEach(async () => {
      cluster = await startCluster(program);
      undo.push(() => cluster.close());
    });
    afterEach(async () => {
      for (const each of undo.splice(0).reverse()) await each();
    });

    const prefix = "relai:";
    const state = (orgId: string) => toSnapshot(emptyAccounts(orgId));
    const orgIds = Array.from({ length: 12 }, (_, at) => `org_${at}`);
    const orgsAt = (at: number) =>
      orgIds.filter((orgId) => cluster.homeOf(`${prefix}{${orgId}}`) === at);

    async function open(onTrouble?: (sentence: string) => void) {
      const [urls, isCluster, commandMsMax] = [cluster.urls, true, 1000];
      const redis = await openRedis({
        urls,
        isCluster,
        commandMsMax,
        ...(onTrouble && { onTrouble }),
      });
      undo.push(() => redis.close());
      const store = createRedisAdmission({ redis, prefix });
      return { redis, store, progress: createRedisProgress({ redis, prefix }) };
    }

    const absent: [how: string, leave: () => Promise<void>][] = [
      ["is gone", async () => cluster.servers[2]?.kill()],
      [
        "stands still",
        async () => {
          const { pid } = cluster.servers[2] ?? { pid: 0 };
          process.kill(pid, "SIGSTOP");
          undo.push(async () => process.kill(pid, "SIGCONT"));
        },
      ],
    ];
    test.for(absent)(
      "%s: who opens finds the others, nothing is sent there, and what all need is not lost with it",
      async ([, leave]) => {
        const before = await open();
        await fund(before.store, ...orgIds);
        const ids = await before.store.seek([]);
        await leave();
        const told: string[] = [];
        const after = await open((sentence) => told.push(sentence));
        expect(told.filter((sentence) => sentence.includes("does not answer"))).toHaveLength(1);
        const [there = "", other = ""] = orgsAt(2);
        for (const { store, progress } of [before, after]) {
          const dropping = () => store.drop({ ...own, orgId: there, requestId: "req_0" });
          const outcome = () => dropping().catch(() => "unknown");
          await expect.poll(outcome, { timeout: 20_000 }).toEqual(fenced("away"));
          const adopting = { ownerEpoch: 2, servers: ids, state: state(other) };
          expect(await store.adopt(adopting)).toEqual(fenced("away"));
          expect(await store.seek(ids)).toEqual(ids);
          expect(await store.seek([])).toHaveLength(2);
          for (const orgId of [...orgsAt(0), ...orgsAt(1)])
            expect(
              await store.admit(ask({ orgId, requestId: `req_${told.length}` })),
            ).toMatchObject({
              outcome: "admitted",
            });
          const [here = ""] = orgsAt(0);
          for (const orgId of [here, there]) await store.want(orgId);
          expect(await store.wanted()).toEqual([{ orgId: here, writerEpochs: [] }]);
          await progress.tell(1, 7n);
          expect(await progress.told()).toEqual({ ownerEpoch: 1, position: 7n });
          told.push("");
        }
      },
    );

    test("what one that was away has been told is older than what the others have", async () => {
      const { redis, progress } = await open();
      expect(await progress.told()).toBeUndefined();
      await progress.tell(2, 9n);
      const [, first, second] = redis.tags;
      await redis.command("SET", `${prefix}applied${first}`, "2 3");
      await redis.command("SET", `${prefix}applied${second}`, "1 11");
      expect(await progress.told()).toEqual({ ownerEpoch: 2, position: 9n });
      expect(new Set(redis.tags.map((tag) => cluster.homeOf(tag))).size).toBe(3);
    });

    test("moves under admissions: each is carried out once at most, and none is let in until it is adopted there", async () => {
      const { store } = await open();
      await fund(store, ...orgIds);
      const servers = await store.seek([]);
      const [moved = ""] = orgsAt(0);
      const others = orgIds.filter((orgId) => orgId !== moved);
      const answers = new Map<string, string>();
      let made = 0;
      const admit = async (orgId: string) => {
        made += 1;
        const requestId = `req_${made}`;
        const admitting = store.admit(ask({ orgId, requestId, holdMicro: 0 }));
        const answer = await admitting.catch(() => ({ outcome: "unknown" }));
        answers.set(requestId, "fenced" in answer ? answer.fenced : answer.outcome);
        return requestId;
      };
      const mine: string[] = [];
      const adoptions: unknown[] = [];
      let isOver = false;
      const callers = Array.from({ length: 8 }, async () => {
        while (!isOver) {
          mine.push(await admit(moved));
          const other = await admit(others[made % others.length] ?? "");
          expect(answers.get(other)).toBe("admitted");
        }
      });
      const pause = () => new Promise((resolve) => setTimeout(resolve, 300));
      await pause();
      await cluster.move(`${prefix}{${moved}}`, 1, async () => {
        await pause();
        adoptions.push(await store.adopt({ ownerEpoch: 2, servers, state: state(moved) }));
      });
      await pause();
      isOver = true;
      await Promise.all(callers);

      const said = (outcome: string) => mine.filter((id) => answers.get(id) === outcome);
      expect(said("refused")).toEqual([]);
      expect(said("admitted").length).toBeGreaterThan(0);
      expect(said("server").length).toBeGreaterThan(0);
      // Not half of an organization is adopted: while its keys are on the way nothing is sent that nobody could tell of.
      expect(adoptions.slice(1, -1)).toEqual(adoptions.slice(1, -1).map(() => fenced("away")));
      const held = await holdsOf(cluster.urls, prefix, moved);
      expect(held).toEqual(expect.arrayContaining(said("admitted")));
      expect([...said("admitted"), ...said("unknown")]).toEqual(expect.arrayContaining(held));
      expect(new Set(held).size).toBe(held.length);

      const adopting = { ownerEpoch: 3, servers: await store.seek(servers), state: state(moved) };
      expect(await store.adopt(adopting)).toEqual({ outcome: "adopted" });
      expect(await store.drop({ ...own, ownerEpoch: 3, orgId: moved, requestId: "req_0" })).toEqual(
        {
          outcome: "dropped",
        },
      );
    });

    test("moves with keys of the directory: they are found, and who is not there is not nobody until it is filled anew", async () => {
      const { redis } = await open();
      const directory = createRedisKeyDirectory({ redis, prefix, clock: manualClock() });
      await fillDirectory(directory, 1);
      const [hash, nobody] = [hashOf("a"), `${hashOf("a").slice(0, 2)}${"0".repeat(62)}`];
      await directory.put([[hash, ENTRY]]);
      const part = directory.partOf(hash);
      const key = `${prefix}{keys-${part}}`;
      await cluster.move(key, (cluster.homeOf(key) + 1) % 3);
      expect(await directory.lookup(hash)).toEqual(ENTRY);
      await expect(directory.lookup(nobody)).rejects.toThrow("not been filled");
      expect(await directory.stateOf(part, 1)).toBe("moved");
      expect(await directory.markFilled(part, 1)).toBe(false);
      await directory.markFilling(part, 1);
      expect(await directory.markFilled(part, 1)).toBe(true);
      expect(await directory.lookup(nobody)).toBeUndefined();
      expect(await directory.stateOf(part, 1)).toBe("kept");
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
      const without = lost.flatMap((orgId) => [
        ...idsOf(orgId, "unknown"),
        ...idsOf(orgId, "fenced"),
      ]);
      expect(without.length).toBeGreaterThan(0);
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
