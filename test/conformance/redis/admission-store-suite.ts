import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
import { apply as applyPure } from "#domain/accounts/admission.ts";
import type { AdmitAsk } from "#domain/accounts/admission-types.ts";
import type { AdmitRefusal } from "#domain/accounts/checks.ts";
import { TOMBSTONE_MS } from "#domain/accounts/holds.ts";
import type { Effect, OrgSnapshot } from "#domain/accounts/types.ts";
import type { AccountTaking } from "#domain/events/schemas.ts";
import type { AdmissionStore } from "#services/ports.ts";
import {
  accountsOf,
  BUDGET,
  BUDGET_KEY,
  CREATED,
  funded,
  FUNDED,
  itemsOf,
  KEY,
  ORG,
  RPM,
  RPM_KEY,
} from "#test/worlds/accounts-world.ts";
import type { ManualClock } from "#test/doubles/manual-clock.ts";

/** What an adapter brings to its test: a store in which nothing is adopted. A string says why it cannot do something. */
export interface AdmissionStoreUnderTest {
  readonly store: AdmissionStore;
  /** The store's own time. */
  readonly clock: Pick<ManualClock, "now" | "advance" | "setBack">;
  readonly clockMoves: true | string;
  /** The server loses its memory and comes back with a new identity. */
  readonly restart: (() => Promise<AdmissionStore>) | string;
  cleanUp(): Promise<void>;
}

export const OTHER = "org_B";
const SERVER_ELSEWHERE = "a server that is not this one";
export const own = { orgId: ORG, ownerEpoch: 1 };
export const under = { ...own, requestId: "req_1" };
export const fenced = (reason: string) => ({ outcome: "fenced", fenced: reason });

export const ask = (changes: Partial<AdmitAsk> = {}): AdmitAsk => ({
  ...under,
  writerEpoch: 7,
  keyId: KEY,
  holdMicro: 10,
  ...changes,
});

/** A hold of 120 (the whole first lot and 20 of the second), charged with 30 where it is charged. */
export const HOLD = 120;
export const CHARGE = 30;
const lot = (lotId: string, micro: number) => ({ lotId, pot: "paid", micro }) as const;
const takings = (second: number): AccountTaking[] => {
  const lots = [lot("lot_1", 100), lot("lot_2", second)];
  return [{ account: `${ORG}/balance`, period: "total", micro: 100 + second, lots }];
};
const hold = { requestId: "req_1", keyId: KEY, writerEpoch: 7, revision: 0 };
export const opened: Effect = {
  ...hold,
  effect: "hold_opened",
  totalMicro: HOLD,
  accounts: takings(20),
};
export const extended: Effect = {
  ...hold,
  effect: "hold_extended",
  revision: 1,
  totalMicro: 125,
  accounts: takings(25),
};
export const closed: Effect = { effect: "hold_closed", requestId: "req_1", chargedMicro: CHARGE };

/** The money of an organization, and of a key's budget. Fails where the figures do not add up. */
export async function moneyOf(store: AdmissionStore, orgId = ORG, keyId = BUDGET_KEY) {
  const found = await store.figures({ orgId, keyId });
  if (found.outcome === "fenced") return found;
  for (const each of found.budget ? [found.balance, found.budget] : [found.balance]) {
    const { fundedMicro, spentMicro, heldMicro, availableMicro } = each;
    expect(Math.min(spentMicro, heldMicro, availableMicro)).toBeGreaterThanOrEqual(0);
    expect(spentMicro + heldMicro + availableMicro).toBe(fundedMicro);
  }
  const { asOfMs: _, ...money } = found;
  return money;
}

export const heldAndSpent = (held: number, spent: number): object => ({
  balance: { heldMicro: held, spentMicro: spent },
});

/** The same store, whose money is added up again after every verb. */
export const watched = (store: AdmissionStore): AdmissionStore =>
  new Proxy(store, {
    get: (of, verb) => {
      const say = Reflect.get(of, verb) as (...asks: unknown[]) => Promise<unknown>;
      return async (...asks: unknown[]) => {
        const answer = await say.apply(of, asks);
        for (const orgId of [ORG, OTHER]) await moneyOf(of, orgId);
        return answer;
      };
    },
  });

/** Every verb of money that names an owner epoch, as somebody would say it about the request in hand. */
export const everyVerb = (store: AdmissionStore, of: { orgId: string; ownerEpoch: number }) => ({
  admit: () => store.admit(ask({ ...of, requestId: "req_2" })),
  extend: () => store.extend({ ...under, ...of, totalMicro: 50 }),
  drop: () => store.drop({ ...under, ...of }),
  close: () => store.close({ ...under, ...of, chargedMicro: 3 }),
  apply: () => store.apply({ ...of, items: itemsOf([[{ effect: "created" }]], 6n) }),
  sweep: () => store.sweep({ ...of, writerEpoch: 7 }),
});

async function position(store: AdmissionStore): Promise<bigint | "start"> {
  const applied = await store.apply({ ...own, items: [] });
  if (applied.outcome !== "applied") throw new Error(`no position: ${JSON.stringify(applied)}`);
  return applied.position;
}

/** Carries effects in as one event each, behind what is there. */
export async function carry(store: AdmissionStore, ...effects: Effect[]) {
  const each = effects.map((effect) => [effect]);
  return store.apply({ ...own, items: itemsOf(each, await position(store)) });
}

async function adoptHere(store: AdmissionStore, state: OrgSnapshot, ownerEpoch = 1) {
  return store.adopt({ ownerEpoch, servers: [SERVER_ELSEWHERE, ...(await store.seek([]))], state });
}

/** Adopts organizations under epoch 1, each with two lots and three keys. */
export async function fund(store: AdmissionStore, ...orgs: string[]): Promise<void> {
  for (const orgId of orgs) {
    expect(await adoptHere(store, toSnapshot(emptyAccounts(orgId)))).toEqual({
      outcome: "adopted",
    });
    const items = itemsOf(CREATED.map((effect) => [effect]));
    expect(await store.apply({ orgId, ownerEpoch: 1, items })).toEqual({
      outcome: "applied",
      position: BigInt(CREATED.length),
    });
  }
}

/** Holds an admission store to its port. What a harness cannot do is skipped with its reason. */
export function admissionStoreSuite(
  name: string,
  make: () => Promise<AdmissionStoreUnderTest>,
): void {
  describe(`admission store: ${name}`, () => {
    let made: AdmissionStoreUnderTest;
    beforeEach(async () => {
      made = await make();
    });
    afterEach(() => made.cleanUp());

    ownerTests(() => made);
    refusalTests(() => made);
    repeatTests(() => made);
    applyTests(() => made);
  });
}

type Made = () => AdmissionStoreUnderTest;
const storeOf = (made: Made) => watched(made().store);

function ownerTests(made: Made): void {
  test("never adopted is absent to every verb, never a balance of zero, and takes nothing", async () => {
    const store = storeOf(made);
    for (const say of Object.values(everyVerb(store, own)))
      expect(await say()).toEqual(fenced("absent"));
    expect(await moneyOf(store)).toEqual(fenced("absent"));
    await fund(store, ORG);
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(0, 0));
    expect(await store.admit(ask())).toMatchObject({ outcome: "admitted" });
  });

  test.each([1, 3])("epoch %i instead of 2 is fenced and changes nothing", async (ownerEpoch) => {
    const store = storeOf(made);
    await adoptHere(store, toSnapshot(accountsOf(funded().admission)), 2);
    await store.admit(ask({ ownerEpoch: 2 }));
    const before = await moneyOf(store);
    for (const say of Object.values(everyVerb(store, { orgId: ORG, ownerEpoch })))
      expect(await say()).toEqual(fenced("older"));
    expect(await moneyOf(store)).toEqual(before);
    expect(await store.apply({ ...own, ownerEpoch: 2, items: [] })).toMatchObject({ position: 6n });
  });

  test("adopts only on its own server, and only under a higher epoch", async () => {
    const store = storeOf(made);
    const state = toSnapshot(emptyAccounts(ORG));
    const elsewhere = { ownerEpoch: 5, servers: [SERVER_ELSEWHERE], state };
    expect(await store.adopt(elsewhere)).toEqual(fenced("server"));
    expect(await moneyOf(store)).toEqual(fenced("absent"));
    await fund(store, ORG);
    await store.admit(ask());
    expect(await store.adopt(elsewhere)).toEqual(fenced("server"));
    for (const epoch of [0, 1])
      expect(await adoptHere(store, state, epoch)).toEqual(fenced("older"));
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(10, 0));
    expect(await adoptHere(store, state, 2)).toEqual({ outcome: "adopted" });
    // Who must know that the newest owner has it in place says which that is.
    expect(await store.figures({ orgId: ORG, ownerEpoch: 1 })).toEqual(fenced("older"));
    expect(await store.figures({ orgId: ORG, ownerEpoch: 2 })).toMatchObject({
      outcome: "figures",
    });
    expect(await moneyOf(store)).toMatchObject({ balance: { fundedMicro: 0, heldMicro: 0 } });
  });

  test("a restarted server is another and knows nobody; adopted anew it goes on", async (context) => {
    const { restart } = made();
    if (typeof restart === "string") return context.skip(restart);
    const before = await made().store.seek([]);
    expect(await made().store.seek(before)).toEqual(before);
    await fund(storeOf(made), ORG);
    const store = watched(await restart());
    for (const server of await store.seek(before)) expect(before).not.toContain(server);
    for (const say of Object.values(everyVerb(store, own)))
      expect(await say()).toEqual(fenced("absent"));
    // A snapshot with a hold in it, made by the pure accounts.
    const { admission } = funded();
    const items = itemsOf([[opened]], 6n);
    expect(applyPure(admission, { ...own, items })).toMatchObject({ outcome: "applied" });
    const state = toSnapshot(accountsOf(admission));
    const text = JSON.stringify(state);
    expect(await store.adopt({ ownerEpoch: 1, servers: before, state })).toEqual(fenced("server"));
    expect(await adoptHere(store, state)).toEqual({ outcome: "adopted" });
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(HOLD, 0));
    expect(await position(store)).toBe(7n);
    expect(await carry(store, extended, closed)).toEqual({ outcome: "applied", position: 9n });
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(0, CHARGE));
    expect(JSON.stringify(state)).toBe(text);
  });
}

function refusalTests(made: Made): void {
  /** From row to row one thing more is put right, and the next refusal is met. */
  test.each<[AdmitRefusal, Partial<AdmitAsk>]>([
    ["request_known", { requestId: "req_0", keyId: "key_nobody" }],
    ["key_unknown", { keyId: "key_nobody" }],
    ["key_revoked", { keyId: "key_revoked" }],
    ["key_expired", { keyId: "key_expired" }],
    ["rate_limit_exceeded", { keyId: "key_all" }],
    ["key_budget_exceeded", { keyId: BUDGET_KEY }],
    ["insufficient_balance", {}],
    ["balance_held", { holdMicro: FUNDED - 1 }],
  ])("%s comes in its order and takes nothing", async (refusal, changes) => {
    const store = storeOf(made);
    await fund(store, ORG);
    const limits = { rpm: 1, budgetMicro: 5 };
    const all = { effect: "key_issued", limits } as const;
    const expired = { ...all, limits: { ...limits, expiresAtMs: made().clock.now() } };
    await carry(
      store,
      { ...expired, keyId: "key_revoked" },
      { effect: "key_revoked", keyId: "key_revoked" },
      { ...expired, keyId: "key_expired" },
      { ...all, keyId: "key_all" },
    );
    await store.admit(ask({ requestId: "req_0" }));
    await store.admit(ask({ requestId: "req_00", keyId: "key_all", holdMicro: 5 }));
    const before = await moneyOf(store);
    expect(before).toMatchObject(heldAndSpent(15, 0));
    const { balance } = before.outcome === "figures" ? before : {};
    const refused = { outcome: "refused", refusal, balance };
    expect(await store.admit(ask({ holdMicro: 1_000, ...changes }))).toMatchObject(refused);
    expect(await moneyOf(store)).toEqual(before);
  });

  test("of many at once just as many are admitted as there is money for", async () => {
    const store = storeOf(made);
    await fund(store, ORG);
    const asks = Array.from({ length: 40 }, (_, at) => ask({ requestId: `req_${at}` }));
    const answers = await Promise.all(asks.map((each) => store.admit(each)));
    expect(answers.filter((each) => each.outcome === "admitted")).toHaveLength(FUNDED / 10);
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(FUNDED, 0));
  });

  test("only what is admitted counts per minute, and comes free within 61 s", async (context) => {
    const { clock, clockMoves } = made();
    if (clockMoves !== true) return context.skip(clockMoves);
    const store = storeOf(made);
    await fund(store, ORG);
    let number = 0;
    const send = (holdMicro = 1) =>
      store.admit(ask({ requestId: `req_${(number += 1)}`, keyId: RPM_KEY, holdMicro }));
    await clock.advance(1_000 - (clock.now() % 1_000));
    expect(await send(1_000)).toMatchObject({ refusal: "insufficient_balance" });
    for (let left = RPM - 1; left >= 0; left -= 1)
      expect(await send()).toMatchObject({ rate: { limit: RPM, remaining: left } });
    const rate = { limit: RPM, remaining: 0, freeInMs: 61_000, resetMs: 61_000 };
    expect(await send()).toMatchObject({ refusal: "rate_limit_exceeded", rate });
    await clock.advance(60_999);
    expect(await send()).toMatchObject({ rate: { freeInMs: 1 } });
    await clock.advance(1);
    const admitted = { outcome: "admitted", atMs: clock.now(), rate: { remaining: RPM - 1 } };
    expect(await send()).toMatchObject(admitted);
    expect(await store.figures({ orgId: ORG })).toMatchObject({ asOfMs: clock.now() });
  });

  test("a dropped id is refused for its time, then forgotten", async (context) => {
    const { clock, clockMoves } = made();
    if (clockMoves !== true) return context.skip(clockMoves);
    const store = storeOf(made);
    await fund(store, ORG);
    await store.drop(under);
    await clock.advance(TOMBSTONE_MS - 1);
    expect(await store.admit(ask())).toMatchObject({ refusal: "request_known" });
    await clock.advance(1);
    expect(await store.admit(ask())).toMatchObject({ outcome: "admitted" });
  });
}

/** Says it twice, as one does whose first answer was lost; the second changes nothing. */
async function twice<A>(store: AdmissionStore, say: () => Promise<A>): Promise<[A, A]> {
  const first = await say();
  const money = await standing(store);
  const second = await say();
  expect(await standing(store)).toEqual(money);
  return [first, second];
}

const standing = async (store: AdmissionStore) => [await moneyOf(store), await position(store)];

function repeatTests(made: Made): void {
  test("every verb said again changes nothing", async () => {
    const store = storeOf(made);
    await fund(store, ORG);
    const same = async (say: () => Promise<unknown>) => {
      const [first, second] = await twice(store, say);
      expect(second).toEqual(first);
    };
    const [first, second] = await twice(store, () => store.admit(ask({ keyId: BUDGET_KEY })));
    expect(first).toMatchObject({ outcome: "admitted" });
    expect(second).toMatchObject({ refusal: "request_known", balance: { heldMicro: 10 } });
    // An extension stops at what the budget leaves.
    await same(() => store.extend({ ...under, totalMicro: 100 }));
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(BUDGET, 0));
    await same(() => store.close({ ...under, chargedMicro: CHARGE }));
    expect(await moneyOf(store)).toMatchObject({ budget: { spentMicro: CHARGE, heldMicro: 0 } });
    const dropped = ask({ requestId: "req_2" });
    await store.admit(dropped);
    await same(() => store.drop(dropped));
    expect(await store.admit(dropped)).toMatchObject({ refusal: "request_known" });
    await store.admit(ask({ requestId: "req_3" }));
    await store.admit(ask({ requestId: "req_4", writerEpoch: 8 }));
    await same(() => store.sweep({ ...own, writerEpoch: 7 }));
    const credited: Effect = { effect: "credited", lotId: "lot_3", pot: "paid", micro: 5 };
    await same(() => store.apply({ ...own, items: itemsOf([[credited]], 6n) }));
    expect(await moneyOf(store)).toMatchObject({
      balance: { fundedMicro: FUNDED + 5, heldMicro: 10, spentMicro: CHARGE },
    });
    const snapshot = toSnapshot(emptyAccounts(ORG));
    expect(await twice(store, () => adoptHere(store, snapshot))).toContainEqual(fenced("older"));
  });
}

function applyTests(made: Made): void {
  const at = (prev: bigint | "start", position: bigint, micro = 1) => ({
    prev,
    position,
    effects: [{ effect: "credited", lotId: `lot_${position}`, pot: "paid", micro } as const],
  });

  test("passes over what it has, joins on, and says how far it came where there is a gap", async () => {
    const store = storeOf(made);
    await adoptHere(store, toSnapshot(emptyAccounts(ORG)));
    const apply = (...items: ReturnType<typeof at>[]) => store.apply({ ...own, items });
    expect(await apply(at(3n, 4n))).toEqual({ outcome: "behind", position: "start" });
    expect(await apply(at("start", 4n))).toEqual({ outcome: "applied", position: 4n });
    const more = [at("start", 4n), at(4n, 10n), at(10n, 13n)];
    expect(await apply(...more)).toEqual({ outcome: "applied", position: 13n });
    // What joined on before the gap is kept.
    expect(await apply(at(13n, 14n), at(15n, 16n))).toEqual({ outcome: "behind", position: 14n });
    expect(await moneyOf(store)).toMatchObject({ balance: { fundedMicro: 4 } });
  });

  test("keeps positions beyond 2^53 and money up to it exactly", async () => {
    const store = storeOf(made);
    await fund(store, ORG);
    const far = 9_007_199_254_740_993n;
    const micro = Number.MAX_SAFE_INTEGER - FUNDED;
    const items = [at(6n, far, micro)];
    expect(await store.apply({ ...own, items })).toEqual({ outcome: "applied", position: far });
    expect(await store.apply({ ...own, items: [at(far - 1n, far + 1n)] })).toEqual({
      outcome: "behind",
      position: far,
    });
    await store.admit(ask({ holdMicro: Number.MAX_SAFE_INTEGER - 1 }));
    expect(await moneyOf(store)).toMatchObject({ balance: { availableMicro: 1 } });
    await store.close({ ...under, chargedMicro: Number.MAX_SAFE_INTEGER - 2 });
    expect(await moneyOf(store)).toMatchObject(heldAndSpent(0, Number.MAX_SAFE_INTEGER - 2));
  });
}
