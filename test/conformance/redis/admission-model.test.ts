import * as fc from "fast-check";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { admit, close, drop, extend } from "#domain/accounts/admission.ts";
import { ADMIT_REFUSALS } from "#domain/accounts/checks.ts";
import { FORGOTTEN_MAX, HOLD_TABLE, SHARES_MAX, TOMBSTONE_MS } from "#domain/accounts/holds.ts";
import type { Effect } from "#domain/accounts/types.ts";
import { takeWanted } from "#domain/accounts/wanted.ts";
import { UNSPENT_LOTS_MAX } from "#domain/organization.ts";
import type { RedisConnection } from "#infra/redis/connection.ts";
import { KEY, ORG } from "#test/worlds/accounts-world.ts";
import {
  adoptNext,
  applyNext,
  CELLS,
  FUNDED,
  History,
  SAID,
  sayingOf,
  steps,
  type Said,
  type Step,
} from "#test/samples/admission-histories.ts";
import { booksOf, booksOnRedis } from "#test/servers/redis-books.ts";
import {
  connect,
  freshPrefix,
  redisForTests,
  removeKeys,
  SERVERS,
  SOURCES,
  timedAdmission,
  type RedisForTests,
} from "#test/servers/redis-world.ts";

/**
 * Random histories through the pure reducer and through real Redis: each answer, each fault and after each step all that
 * the store knows must be the same, to the micro.
 */

const FAULTS = new Set<string>();

/** Whom the ledger should look at, with the writers in one order. */
function inOrder(wanted: readonly { orgId: string; writerEpochs: readonly number[] }[]) {
  return wanted
    .map(({ orgId, writerEpochs }) => ({
      orgId,
      writerEpochs: writerEpochs.toSorted((one, other) => one - other),
    }))
    .toSorted((one, other) => (one.orgId < other.orgId ? -1 : 1));
}

describe.for(SERVERS)("the reducer and $name", ({ kind }) => {
  const source = SOURCES[kind];
  if (source.from === "nowhere") {
    test("agree", (context) => context.skip(`not tried: ${source.reason}`));
    return;
  }
  let server: RedisForTests;
  let redis: RedisConnection;
  let raw: Redis;
  beforeAll(async () => {
    server = await redisForTests(kind);
    redis = await connect(server.url);
    raw = new Redis(server.url, { protocol: 2 });
  });
  afterAll(async () => {
    raw.disconnect();
    await redis.close();
    await server.close();
  });

  /** A history that begins with an adopted organization, and what says a thing to both sides and compares them. */
  async function begin() {
    const history = new History(String((await redis.seek([]))[0]));
    const prefix = freshPrefix();
    const told: string[] = [];
    const clock = { now: () => history.nowMs };
    const store = timedAdmission(redis, prefix, clock, (_, sentence) => told.push(sentence));
    const say = async ({ reducer, store: onStore }: Said, step: string) => {
      const meant = reducer();
      const found = await onStore(store);
      const org = history.reducer.orgs.get(ORG);
      const there = await booksOnRedis(raw, prefix, ORG);
      const wanted = takeWanted(history.reducer, history.nowMs);
      // Where the books are closed only the reason is left of them, until they are replaced.
      const isClosed = org?.accounts.fault !== undefined;
      expect({
        step,
        found,
        told,
        books: isClosed ? there?.fault : there,
        wanted: inOrder(await store.wanted()),
      }).toEqual({
        step,
        found: meant,
        told: history.told,
        books: isClosed ? org.accounts.fault : org && booksOf(org),
        wanted: inOrder(wanted),
      });
      for (const sentence of told.splice(0)) FAULTS.add(sentence);
      history.told.length = 0;
    };

    const first = { which: 0, micro: 0, odd: false, jumpMs: 0 };
    await say(adoptNext(history, { ...first, verb: "adopt" }), "the first adoption");
    return { history, say, cleanUp: () => removeKeys(server.url, prefix) };
  }

  async function live(list: readonly Step[]): Promise<void> {
    const { history, say, cleanUp } = await begin();
    for (const effect of FUNDED) await say(applyNext(history, [effect]), effect.effect);
    for (const [at, step] of list.entries()) {
      const isClosed = history.reducer.orgs.get(ORG)?.accounts.fault !== undefined;
      // Nothing more can be learned of closed books than that they stay closed.
      const next =
        isClosed && step.which % 3 > 0 ? adoptNext(history, step) : sayingOf(history, step);
      if (next) await say(next, `step ${at}: ${JSON.stringify(step)}`);
    }
    await cleanUp();
  }

  test("agree step by step in random histories, to the micro", { timeout: 300_000 }, async () => {
    await fc.assert(fc.asyncProperty(steps, live), { numRuns: 100, seed: 20_261_121 });
    const cells = Object.entries(HOLD_TABLE).flatMap(([state, row]) =>
      Object.keys(row).map((verb) => `${state} ${verb}`),
    );
    // A sweep goes through the holds that there are, so it never meets an absent one.
    const reachable = cells.filter((cell) => cell !== "absent sweep");
    expect([...CELLS].toSorted()).toEqual(reachable.toSorted());
    expect([...SAID].toSorted()).toEqual([...ADMIT_REFUSALS].toSorted());
    // The rules that are left are of sums that no verb can break.
    expect(FAULTS.size).toBeGreaterThanOrEqual(14);
  });

  test("agree on more tombstones than one call forgets, whoever comes upon them", async () => {
    const { history, say, cleanUp } = await begin();
    const { reducer, ownerEpoch } = history;
    for (const effect of FUNDED) await say(applyNext(history, [effect]), effect.effect);
    const of = (at: number) => ({ orgId: ORG, ownerEpoch, requestId: `req_${at}` });
    const dropNext = (at: number): Said => ({
      reducer: () => drop(reducer, of(at), history.nowMs),
      store: (store) => store.drop(of(at)),
    });
    const count = 3 * FORGOTTEN_MAX;
    for (let at = 0; at < count; at += 1) await say(dropNext(at), `drop ${at}`);
    history.nowMs += TOMBSTONE_MS;
    await say(dropNext(count), "one more drop");
    const ask = { ...of(count + 1), writerEpoch: 7, keyId: KEY, holdMicro: 1 };
    const admitNext = { reducer: () => admit(reducer, ask, history.nowMs) };
    await say({ ...admitNext, store: (store) => store.admit(ask) }, "an admission");
    expect(reducer.orgs.get(ORG)?.tombstones.size).toBe(FORGOTTEN_MAX + 1);
    await cleanUp();
  });

  test("agree on a hold over a thousand lots, raised until no share more fits", async () => {
    const { history, say, cleanUp } = await begin();
    const { reducer, ownerEpoch } = history;
    const lotIds = Array.from({ length: UNSPENT_LOTS_MAX }, (_, at) => `lot_${at}`);
    const credits = lotIds.map((lotId): Effect => ({
      effect: "credited",
      lotId,
      pot: "paid",
      micro: 10,
    }));
    await say(applyNext(history, [{ effect: "key_issued", keyId: KEY, limits: {} }]), "a key");
    await say(applyNext(history, credits), "a thousand lots");

    // Every lot twice but the last: one share less than the most.
    const shares = [...lotIds, ...lotIds.slice(0, -1)];
    const lots = shares.map((lotId) => ({ lotId, pot: "paid", micro: 1 }) as const);
    const totalMicro = lots.length;
    const accounts = [{ account: `${ORG}/balance`, period: "total", micro: totalMicro, lots }];
    const hold = { requestId: "req_long", keyId: KEY, writerEpoch: 7, revision: 0 };
    await say(
      applyNext(history, [{ effect: "hold_opened", ...hold, totalMicro, accounts }]),
      "open",
    );
    const of = { orgId: ORG, ownerEpoch, requestId: "req_long" };
    // There is money in every lot, and one share left for it.
    for (const more of [5_000, 6_000]) {
      const ask = { ...of, totalMicro: totalMicro + more };
      const reduced = () => structuredClone(extend(reducer, ask));
      await say({ reducer: reduced, store: (store) => store.extend(ask) }, `${more} more`);
    }
    const raised = reducer.orgs.get(ORG)?.accounts.holds.get("req_long");
    expect(raised?.accounts[0]?.lots).toHaveLength(SHARES_MAX);
    expect(raised?.totalMicro).toBe(totalMicro + 8);
    const over = { ...of, chargedMicro: 1_234 };
    const closed = () => close(reducer, over);
    await say({ reducer: closed, store: (store) => store.close(over) }, "close");
    const all = { ...of, requestId: "req_all", writerEpoch: 7, keyId: KEY, holdMicro: 8_766 };
    const taken = () => admit(reducer, all, history.nowMs);
    await say({ reducer: taken, store: (store) => store.admit(all) }, "all that is left");
    await cleanUp();
  });
});
