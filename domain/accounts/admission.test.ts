import { describe, expect, test } from "vitest";
import {
  accountsOf,
  BUDGET,
  BUDGET_KEY,
  expectTrueBooks,
  funded,
  FUNDED,
  itemsOf,
  KEY,
  ORG,
  RPM,
  RPM_KEY,
  START_MS,
} from "#test/worlds/accounts-world.ts";
import { takeWanted } from "./wanted.ts";
import { emptyAccounts, fromSnapshot, toSnapshot } from "./accounts.ts";
import {
  adopt,
  admit,
  apply,
  close,
  drop,
  emptyAdmission,
  extend,
  figures,
  sweep,
  type Admission,
} from "./admission.ts";
import type { AdmitAsk } from "./admission-types.ts";
import { ADMIT_REFUSALS } from "./checks.ts";
import { FORGOTTEN_MAX, TOMBSTONE_MS } from "./holds.ts";
import type { AccountsItem, Effect } from "./types.ts";

const own = { orgId: ORG, ownerEpoch: 1 };

function ask(changes: Partial<AdmitAsk> = {}): AdmitAsk {
  return { ...own, requestId: "req_1", writerEpoch: 7, keyId: KEY, holdMicro: 10, ...changes };
}

function carry(admission: Admission, ...effects: Effect[]) {
  const after = accountsOf(admission).position;
  return apply(admission, {
    ...own,
    items: itemsOf(
      effects.map((effect) => [effect]),
      after,
    ),
  });
}

describe("refusals come in the order of the table", () => {
  const EXPIRED = "key_expired";
  /** Row by row: from the top, one thing more is put right, and the next refusal is met. */
  const rows: readonly [string, Partial<AdmitAsk>][] = [
    ["request_known", { requestId: "req_0", keyId: "key_nobody", holdMicro: 1_000 }],
    ["key_unknown", { keyId: "key_nobody", holdMicro: 1_000 }],
    ["key_revoked", { keyId: "key_revoked", holdMicro: 1_000 }],
    ["key_expired", { keyId: EXPIRED, holdMicro: 1_000 }],
    ["rate_limit_exceeded", { keyId: "key_all", holdMicro: 1_000 }],
    ["key_budget_exceeded", { keyId: "key_small", holdMicro: 1_000 }],
    ["insufficient_balance", { holdMicro: 1_000 }],
    ["balance_held", { holdMicro: FUNDED - 1 }],
  ];
  function world() {
    const { admission } = funded();
    const limits = { rpm: 1, budgetMicro: 5 };
    const expired = { ...limits, expiresAtMs: START_MS };
    carry(
      admission,
      { effect: "key_issued", keyId: "key_revoked", limits: expired },
      { effect: "key_revoked", keyId: "key_revoked" },
      { effect: "key_issued", keyId: EXPIRED, limits: expired },
      { effect: "key_issued", keyId: "key_all", limits },
      { effect: "key_issued", keyId: "key_small", limits: { budgetMicro: 5 } },
    );
    admit(admission, ask({ requestId: "req_0" }), START_MS);
    admit(admission, ask({ requestId: "req_00", keyId: "key_all", holdMicro: 5 }), START_MS);
    return admission;
  }
  test("and every refusal has its row", () => {
    expect(rows.map(([refusal]) => refusal)).toEqual(ADMIT_REFUSALS);
  });

  test.each(rows)("%s", (refusal, changes) => {
    const admission = world();
    const before = JSON.stringify(toSnapshot(accountsOf(admission)));
    expect(admit(admission, ask(changes), START_MS)).toMatchObject({ outcome: "refused", refusal });
    // A refusal takes and counts nothing.
    expect(JSON.stringify(toSnapshot(accountsOf(admission)))).toBe(before);
  });

  test("figures come with what was short", () => {
    const admission = world();
    const balance = {
      fundedMicro: FUNDED,
      spentMicro: 0,
      heldMicro: 15,
      availableMicro: FUNDED - 15,
    };
    expect(admit(admission, ask({ holdMicro: FUNDED - 1 }), START_MS)).toMatchObject({ balance });
    expect(admit(admission, ask({ keyId: "key_small", holdMicro: 6 }), START_MS)).toMatchObject({
      balance,
      budget: { fundedMicro: 5, spentMicro: 0, heldMicro: 0, availableMicro: 5 },
    });
    expect(admit(admission, ask({ keyId: "key_all" }), START_MS + 1_000)).toMatchObject({
      rate: { limit: 1, remaining: 0, freeInMs: 60_000 - (START_MS % 1000), resetMs: 60_000 },
    });
  });

  test("a key works to the millisecond before it expires", () => {
    const admission = world();
    expect(admit(admission, ask({ keyId: EXPIRED, holdMicro: 1 }), START_MS - 1)).toMatchObject({
      outcome: "admitted",
    });
  });
});

test("what is available can be held to the last micro, and not one more", () => {
  const { admission } = funded();
  expect(admit(admission, ask({ holdMicro: FUNDED }), START_MS)).toMatchObject({
    outcome: "admitted",
    atMs: START_MS,
  });
  expect(admit(admission, ask({ requestId: "req_2", holdMicro: 1 }), START_MS)).toMatchObject({
    refusal: "balance_held",
  });
});

test("a budget holds and spends beside the balance, on one hold", () => {
  const { admission } = funded();
  const budget = { account: `${BUDGET_KEY}/budget`, period: "total", micro: 40 };
  const admitted = admit(admission, ask({ keyId: BUDGET_KEY, holdMicro: 40 }), START_MS);
  expect(admitted).toMatchObject({ accounts: [budget, { account: `${ORG}/balance`, micro: 40 }] });
  expect(
    admit(admission, ask({ requestId: "req_2", keyId: BUDGET_KEY, holdMicro: 21 }), START_MS),
  ).toMatchObject({
    refusal: "key_budget_exceeded",
    budget: { availableMicro: BUDGET - 40 },
  });
  // An extension stops at what the budget leaves.
  expect(extend(admission, { ...own, requestId: "req_1", totalMicro: 100 })).toMatchObject({
    totalMicro: BUDGET,
  });
  close(admission, { ...own, requestId: "req_1", chargedMicro: 50 });
  expect(figures(admission, { orgId: ORG, keyId: BUDGET_KEY }, START_MS)).toMatchObject({
    budget: { spentMicro: 50, heldMicro: 0, availableMicro: BUDGET - 50 },
    balance: { spentMicro: 50, heldMicro: 0 },
  });
  expectTrueBooks(accountsOf(admission));
});

test("only what is admitted counts against the rate limit, and the windows start empty after an adoption", () => {
  const { admission } = funded();
  const send = (number: number, holdMicro: number) =>
    admit(admission, ask({ requestId: `req_${number}`, keyId: RPM_KEY, holdMicro }), START_MS);
  expect(send(0, 1_000)).toMatchObject({ refusal: "insufficient_balance" });
  for (let number = 1; number <= RPM; number++)
    expect(send(number, 1)).toMatchObject({
      outcome: "admitted",
      rate: { limit: RPM, remaining: RPM - number },
    });
  expect(send(9, 1)).toMatchObject({ refusal: "rate_limit_exceeded" });
  const state = toSnapshot(accountsOf(admission));
  adopt(admission, { ownerEpoch: 2, servers: ["server-1"], state });
  const next = ask({ requestId: "req_10", keyId: RPM_KEY, holdMicro: 1, ownerEpoch: 2 });
  expect(admit(admission, next, START_MS)).toMatchObject({ outcome: "admitted" });
});

test("what is kept of provisional holds goes with them, also from behind one that stays", () => {
  const { admission } = funded();
  admit(admission, ask(), START_MS);
  for (let number = 2; number < 2_000; number++) {
    const requestId = `req_${number}`;
    admit(admission, ask({ requestId, holdMicro: 1 }), START_MS + number);
    close(admission, { ...own, requestId, chargedMicro: 0 });
  }
  expect(admission.orgs.get(ORG)?.provisional.size).toBe(1);
  figures(admission, { orgId: ORG }, START_MS + 30_001);
  expect(takeWanted(admission, START_MS + 30_001)).toEqual([{ orgId: ORG, writerEpochs: [7] }]);
});

describe("owner epochs", () => {
  test("an organization that was never adopted is fenced, never a balance of zero", () => {
    const admission = emptyAdmission({ server: "server-1" });
    const absent = { outcome: "fenced", fenced: "absent" };
    expect(admit(admission, ask(), START_MS)).toEqual(absent);
    expect(extend(admission, { ...own, requestId: "req_1", totalMicro: 5 })).toEqual(absent);
    expect(drop(admission, { ...own, requestId: "req_1" }, START_MS)).toEqual(absent);
    expect(close(admission, { ...own, requestId: "req_1", chargedMicro: 0 })).toEqual(absent);
    expect(apply(admission, { ...own, items: [] })).toEqual(absent);
    expect(sweep(admission, { ...own, writerEpoch: 7 })).toEqual(absent);
    expect(figures(admission, { orgId: ORG }, START_MS)).toEqual(absent);
  });

  test.each([0, 2])(
    "epoch %i instead of 1 is fenced by every verb and changes nothing",
    (ownerEpoch) => {
      const { admission } = funded();
      admit(admission, ask(), START_MS);
      const before = JSON.stringify(toSnapshot(accountsOf(admission)));
      const older = { outcome: "fenced", fenced: "older" };
      const other = { orgId: ORG, ownerEpoch, requestId: "req_1" };
      expect(admit(admission, ask({ ownerEpoch, requestId: "req_2" }), START_MS)).toEqual(older);
      expect(extend(admission, { ...other, totalMicro: 50 })).toEqual(older);
      expect(drop(admission, other, START_MS)).toEqual(older);
      expect(close(admission, { ...other, chargedMicro: 3 })).toEqual(older);
      expect(apply(admission, { ...other, items: itemsOf([[]], 6n) })).toEqual(older);
      expect(sweep(admission, { ...other, writerEpoch: 7 })).toEqual(older);
      expect(JSON.stringify(toSnapshot(accountsOf(admission)))).toBe(before);
    },
  );

  test("adopt replaces the state only under a higher epoch and on the right server", () => {
    const { admission } = funded();
    admit(admission, ask(), START_MS);
    const state = toSnapshot(emptyAccounts(ORG));
    const servers = ["server-1"];
    expect(adopt(admission, { ownerEpoch: 1, servers, state })).toMatchObject({ fenced: "older" });
    expect(adopt(admission, { ownerEpoch: 0, servers, state })).toMatchObject({ fenced: "older" });
    expect(adopt(admission, { ownerEpoch: 2, servers: ["server-2"], state })).toMatchObject({
      fenced: "server",
    });
    expect(accountsOf(admission).heldMicro).toBe(10);
    expect(adopt(admission, { ownerEpoch: 2, servers: ["server-2", "server-1"], state })).toEqual({
      outcome: "adopted",
    });
    expect(accountsOf(admission)).toMatchObject({ fundedMicro: 0, heldMicro: 0 });
  });

  test("what was adopted shares nothing with the snapshot", () => {
    const { admission } = funded();
    const state = toSnapshot(accountsOf(admission));
    const before = JSON.stringify(state);
    adopt(admission, { ownerEpoch: 2, servers: ["server-1"], state });
    admit(admission, ask({ ownerEpoch: 2, keyId: BUDGET_KEY }), START_MS);
    expect(JSON.stringify(state)).toBe(before);
  });
});

describe("apply", () => {
  const credited = (number: number): Effect[] => [
    { effect: "credited", lotId: `lot_${number}`, pot: "paid", micro: 1 },
  ];
  const at = (prev: bigint | "start", position: bigint): AccountsItem => ({
    prev,
    position,
    effects: credited(Number(position)),
  });

  test("positions that are reached are passed over, what joins on is applied once", () => {
    const { admission } = funded();
    const items = [at(6n, 10n), at(10n, 13n)];
    expect(apply(admission, { ...own, items })).toEqual({ outcome: "applied", position: 13n });
    expect(apply(admission, { ...own, items })).toEqual({ outcome: "applied", position: 13n });
    expect(apply(admission, { ...own, items: [...items, at(13n, 14n)] })).toEqual({
      outcome: "applied",
      position: 14n,
    });
    expect(accountsOf(admission).fundedMicro).toBe(FUNDED + 3);
  });

  test("a gap is never jumped: the store says how far it has come, and keeps what joined on", () => {
    const { admission } = funded();
    expect(apply(admission, { ...own, items: [at(9n, 12n)] })).toEqual({
      outcome: "behind",
      position: 6n,
    });
    expect(apply(admission, { ...own, items: [at(6n, 8n), at(9n, 12n)] })).toEqual({
      outcome: "behind",
      position: 8n,
    });
    expect(accountsOf(admission).fundedMicro).toBe(FUNDED + 1);
    const empty = emptyAdmission({ server: "server-1" });
    adopt(empty, { ownerEpoch: 1, servers: ["server-1"], state: toSnapshot(emptyAccounts(ORG)) });
    expect(apply(empty, { ...own, items: [at(3n, 4n)] })).toEqual({
      outcome: "behind",
      position: "start",
    });
  });

  const hold: Extract<Effect, { effect: "hold_opened" }> = {
    effect: "hold_opened",
    requestId: "req_9",
    keyId: KEY,
    writerEpoch: 7,
    revision: 0,
    totalMicro: 120,
    accounts: [
      {
        account: `${ORG}/balance`,
        period: "total",
        micro: 120,
        lots: [{ lotId: "lot_1", pot: "paid", micro: 120 }],
      },
    ],
  };
  const balance = (
    micro: number,
    lots: [string, number][],
    account = `${ORG}/balance`,
  ): Effect => ({
    ...hold,
    totalMicro: micro,
    accounts: [
      {
        account,
        period: "total",
        micro,
        lots: lots.map(([lotId, share]) => ({ lotId, pot: "paid", micro: share })),
      },
    ],
  });
  test.each<[string, Effect[]]>([
    ["a lot overspent", [hold]],
    [
      "a balance overspent",
      [
        balance(151, [
          ["lot_1", 100],
          ["lot_2", 51],
        ]),
      ],
    ],
    ["a lot that is not there", [balance(5, [["lot_3", 5]])]],
    ["lots that do not add up", [balance(5, [["lot_1", 4]])]],
    ["another's balance", [balance(5, [["lot_1", 5]], "org_B/balance")]],
    ["a lot funded twice", [{ effect: "credited", lotId: "lot_1", pot: "paid", micro: 1 }]],
    [
      "a total beyond 2^53",
      [{ effect: "credited", lotId: "lot_9", pot: "paid", micro: Number.MAX_SAFE_INTEGER }],
    ],
    ["a key issued twice", [{ effect: "key_issued", keyId: KEY, limits: {} }]],
    ["an unknown key revoked", [{ effect: "key_revoked", keyId: "key_nobody" }]],
    [
      "a charge above its hold",
      [balance(5, [["lot_1", 5]]), { effect: "hold_closed", requestId: "req_9", chargedMicro: 6 }],
    ],
  ])("%s closes the organization, once, and not the others", (_name, effects) => {
    const { admission, faults } = funded({ orgs: [ORG, "org_B"] });
    const position = accountsOf(admission).position;
    const items = itemsOf([effects], position);
    const fault = { outcome: "fenced", fenced: "fault" };
    expect(apply(admission, { ...own, items })).toEqual(fault);
    expect(apply(admission, { ...own, items })).toEqual(fault);
    expect(admit(admission, ask(), START_MS)).toEqual(fault);
    expect(accountsOf(admission).position).toBe(position);
    expect(faults).toEqual([ORG]);
    expect(admit(admission, ask({ orgId: "org_B" }), START_MS)).toMatchObject({
      outcome: "admitted",
    });
    // The fault goes with the state.
    expect(fromSnapshot(toSnapshot(accountsOf(admission))).fault).toBe(accountsOf(admission).fault);
  });
});

test("a sweep gives back what the dead writer took and never recorded, and nothing of anybody else", () => {
  const { admission } = funded();
  admit(admission, ask({ holdMicro: 5 }), START_MS);
  admit(admission, ask({ requestId: "req_2", holdMicro: 7 }), START_MS);
  admit(admission, ask({ requestId: "req_3", holdMicro: 11, writerEpoch: 8 }), START_MS);
  const fourth = admit(admission, ask({ requestId: "req_4", holdMicro: 13 }), START_MS);
  const accounts = fourth.outcome === "admitted" ? fourth.accounts : [];
  carry(admission, {
    effect: "hold_opened",
    requestId: "req_4",
    keyId: KEY,
    writerEpoch: 7,
    totalMicro: 13,
    revision: 0,
    accounts,
  });
  expect(sweep(admission, { ...own, writerEpoch: 7 })).toEqual({ outcome: "swept" });
  expect([...accountsOf(admission).holds.keys()]).toEqual(["req_3", "req_4"]);
  expect(accountsOf(admission).heldMicro).toBe(24);
  expectTrueBooks(accountsOf(admission));
});

test("a tombstone refuses its id for 60 s, then is forgotten; one that comes late is refused meanwhile", () => {
  const { admission } = funded();
  const under = { ...own, requestId: "req_1" };
  drop(admission, under, START_MS);
  expect(admit(admission, ask(), START_MS + TOMBSTONE_MS - 1)).toMatchObject({
    refusal: "request_known",
  });
  expect(drop(admission, under, START_MS + 10)).toEqual({ outcome: "dropped" });
  // Any later call forgets it, so nothing is left of it.
  admit(admission, ask({ requestId: "req_2" }), START_MS + TOMBSTONE_MS);
  expect([...accountsOf(admission).holds.keys()]).toEqual(["req_2"]);
  expect(admission.orgs.get(ORG)?.tombstones.size).toBe(0);
});

test("of many tombstones that are over one call forgets so many, the oldest first", () => {
  const { admission } = funded();
  for (let at = 0; at <= FORGOTTEN_MAX; at++)
    drop(admission, { ...own, requestId: `req_${at}` }, START_MS);
  admit(admission, ask({ requestId: "req_x" }), START_MS + TOMBSTONE_MS);
  const left = admission.orgs.get(ORG)?.tombstones.keys() ?? [];
  expect([...left]).toEqual([`req_${FORGOTTEN_MAX}`]);
});
