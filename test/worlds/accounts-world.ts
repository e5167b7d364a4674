import { expect } from "vitest";
import type { Accounts } from "#domain/accounts/accounts.ts";
import { adopt, apply, emptyAdmission, type Admission } from "#domain/accounts/admission.ts";
import { availableMicro, emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
import type { CellObserver } from "#domain/accounts/holds.ts";
import type { AccountsItem, Effect } from "#domain/accounts/types.ts";

/** Organizations, keys, lots and requests for tests of the accounts; a name stands for an id. */
export const ORG = "org_A";
export const KEY = "key_A";
export const BUDGET_KEY = "key_B";
export const RPM_KEY = "key_C";
export const LOTS = { first: 100, second: 50 };
export const FUNDED = LOTS.first + LOTS.second;
export const BUDGET = 60;
export const RPM = 3;
export const START_MS = 1_790_000_000_000;

export const CREATED: readonly Effect[] = [
  { effect: "created" },
  { effect: "credited", lotId: "lot_1", pot: "paid", micro: LOTS.first },
  { effect: "credited", lotId: "lot_2", pot: "paid", micro: LOTS.second },
  { effect: "key_issued", keyId: KEY, limits: {} },
  { effect: "key_issued", keyId: BUDGET_KEY, limits: { budgetMicro: BUDGET } },
  { effect: "key_issued", keyId: RPM_KEY, limits: { rpm: RPM } },
];

/** Each list of effects as one event's item, one position after the other. */
export function itemsOf(
  effects: readonly (readonly Effect[])[],
  after: bigint | "start" = "start",
): AccountsItem[] {
  let prev = after;
  return effects.map((each) => {
    const position: bigint = prev === "start" ? 1n : prev + 1n;
    const item = { prev, position, effects: each };
    prev = position;
    return item;
  });
}

/** An admission store with organizations adopted under epoch 1, each with two lots and three keys. */
export function funded(options: { orgs?: string[]; observe?: CellObserver } = {}) {
  const faults: string[] = [];
  const admission: Admission = emptyAdmission({
    server: "server-1",
    ...(options.observe ? { observe: options.observe } : {}),
    onFault: (orgId) => faults.push(orgId),
  });
  for (const orgId of options.orgs ?? [ORG]) {
    const state = toSnapshot(emptyAccounts(orgId));
    adopt(admission, { ownerEpoch: 1, servers: ["server-1"], state });
    expect(
      apply(admission, { orgId, ownerEpoch: 1, items: itemsOf(CREATED.map((effect) => [effect])) }),
    ).toMatchObject({ outcome: "applied" });
  }
  return { admission, faults };
}

/** The accounts behind an organization, to look into. */
export function accountsOf(admission: Admission, orgId = ORG): Accounts {
  const org = admission.orgs.get(orgId);
  if (!org) throw new Error(`${orgId} was never adopted`);
  return org.accounts;
}

/** Every rule of the books that holds at every moment: nothing negative, and the same sums lot by lot and in total. */
export function expectTrueBooks(accounts: Accounts): void {
  const { fundedMicro, spentMicro, heldMicro } = accounts;
  const available = availableMicro(accounts);
  expect(Math.min(available, heldMicro, spentMicro)).toBeGreaterThanOrEqual(0);
  expect(available + heldMicro + spentMicro).toBe(fundedMicro);
  let [lotsAvailable, lotsHeld] = [0, 0];
  for (const lot of accounts.lots.values()) {
    expect(Math.min(lot.availableMicro, lot.heldMicro)).toBeGreaterThanOrEqual(0);
    expect(lot.availableMicro + lot.heldMicro).toBeLessThanOrEqual(lot.fundedMicro);
    lotsAvailable += lot.availableMicro;
    lotsHeld += lot.heldMicro;
  }
  expect([lotsAvailable, lotsHeld]).toEqual([available, heldMicro]);
  let holds = 0;
  const budgets = new Map<string, number>();
  for (const hold of accounts.holds.values()) {
    holds += hold.totalMicro;
    for (const { account, micro, lots } of hold.accounts) {
      expect(`${account} ${micro}`).toBe(`${account} ${hold.totalMicro}`);
      if (lots) expect(lots.reduce((sum, share) => sum + share.micro, 0)).toBe(micro);
      else budgets.set(hold.keyId, (budgets.get(hold.keyId) ?? 0) + micro);
    }
  }
  expect(holds).toBe(heldMicro);
  for (const key of accounts.keys.values()) {
    expect(key.heldMicro).toBe(budgets.get(key.keyId) ?? 0);
    expect(key.spentMicro + key.heldMicro).toBeLessThanOrEqual(key.limits.budgetMicro ?? Infinity);
  }
}
