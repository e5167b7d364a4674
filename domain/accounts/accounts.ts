import type { AccountTaking, LotShare } from "#domain/events/schemas.ts";
import type { Hold, KeyAccount, Lot, OrgSnapshot } from "./types.ts";

/**
 * An organization's accounts in memory. Money rules, held by every function here:
 * available = funded − spent − held, and the same sum stands lot by lot; nothing of it is ever below zero.
 * The functions change the state in place, so that one request costs no copy; they do no I/O and know no clock.
 */
export interface Accounts {
  readonly orgId: string;
  /** The position of the last event that is in it. */
  position: bigint | "start";
  created: boolean;
  fundedMicro: number;
  spentMicro: number;
  heldMicro: number;
  /** In the order in which money is taken: the oldest lot first. A lot with nothing left in it is gone. */
  readonly lots: Map<string, Lot>;
  readonly keys: Map<string, KeyAccount>;
  readonly holds: Map<string, Hold>;
  /** Why this organization is closed to all money until a person has looked; undefined while all is well. */
  fault: string | undefined;
}

/** A rule of the books was about to be broken. The organization concerned is closed, the others go on. */
export class AccountsFault extends Error {
  override readonly name = "AccountsFault";
}

/** Throws {@link AccountsFault} with a fixed sentence when a rule of the books does not hold. */
export function rule(holds: boolean, sentence: string): asserts holds {
  if (!holds) throw new AccountsFault(sentence);
}

/** The accounts of an organization of which nothing is recorded yet. */
export function emptyAccounts(orgId: string): Accounts {
  return {
    orgId,
    position: "start",
    created: false,
    fundedMicro: 0,
    spentMicro: 0,
    heldMicro: 0,
    lots: new Map(),
    keys: new Map(),
    holds: new Map(),
    fault: undefined,
  };
}

/** What the organization can still spend. Micro. */
export function availableMicro(accounts: Accounts): number {
  return accounts.fundedMicro - accounts.spentMicro - accounts.heldMicro;
}

/** What a key's budget leaves: never below zero, and no end of it for a key without one. Micro. */
export function budgetAvailableMicro({ limits, spentMicro, heldMicro }: KeyAccount): number {
  return Math.max(0, (limits.budgetMicro ?? Infinity) - spentMicro - heldMicro);
}

/** Adds a top-up as the last lot. A repeat of the same lot is a fault: commands drop repeats before they are recorded. */
export function credit(accounts: Accounts, lotId: string, pot: "paid", micro: number): void {
  rule(!accounts.lots.has(lotId), "a lot is funded once");
  rule(Number.isSafeInteger(accounts.fundedMicro + micro), "the funded total stays a safe integer");
  accounts.fundedMicro += micro;
  accounts.lots.set(lotId, { lotId, pot, fundedMicro: micro, availableMicro: micro, heldMicro: 0 });
}

/** The account name of an organization's balance in events. */
export function balanceAccount(orgId: string): string {
  return `${orgId}/balance`;
}

/** The account name of a key's budget in events. */
export function budgetAccount(keyId: string): string {
  return `${keyId}/budget`;
}

/**
 * Sets money aside: on the key's budget if it has one, then on the balance, from the oldest lot on.
 * The caller has made sure that it is there. Returns the split that the event carries.
 */
export function take(accounts: Accounts, key: KeyAccount, micro: number): AccountTaking[] {
  const lots: LotShare[] = [];
  let rest = micro;
  for (const lot of accounts.lots.values()) {
    if (rest === 0) break;
    const part = Math.min(rest, lot.availableMicro);
    if (part === 0) continue;
    lot.availableMicro -= part;
    lot.heldMicro += part;
    rest -= part;
    lots.push({ lotId: lot.lotId, pot: lot.pot, micro: part });
  }
  rule(rest === 0, "the lots together hold what the balance says");
  accounts.heldMicro += micro;
  const balance = { account: balanceAccount(accounts.orgId), period: "total", micro, lots };
  if (key.limits.budgetMicro === undefined) return [balance];
  key.heldMicro += micro;
  return [{ account: budgetAccount(key.keyId), period: "total", micro }, balance];
}

const ACCOUNT_EXISTS = "a taking names an account that exists";

/** Sets aside exactly what an event says was taken, from exactly its lots. */
export function takeAsRecorded(
  accounts: Accounts,
  keyId: string,
  takings: readonly AccountTaking[],
): void {
  for (const taking of takings) {
    if (taking.lots === undefined) {
      const key = accounts.keys.get(keyId);
      rule(key !== undefined && taking.account === budgetAccount(keyId), ACCOUNT_EXISTS);
      key.heldMicro += taking.micro;
      continue;
    }
    rule(taking.account === balanceAccount(accounts.orgId), ACCOUNT_EXISTS);
    accounts.heldMicro += taking.micro;
    rule(availableMicro(accounts) >= 0, "the balance is never overspent");
    let sum = 0;
    for (const share of taking.lots) {
      const lot = accounts.lots.get(share.lotId);
      rule(lot !== undefined && lot.availableMicro >= share.micro, "a lot is never overspent");
      lot.availableMicro -= share.micro;
      lot.heldMicro += share.micro;
      sum += share.micro;
    }
    rule(sum === taking.micro, "a taking's lots add up to it");
  }
}

/**
 * Ends what was set aside: the charge eats the listed lots in order, the rest goes back to the same lots.
 * A charge of zero gives everything back.
 */
export function settle(
  accounts: Accounts,
  keyId: string,
  takings: readonly AccountTaking[],
  chargedMicro: number,
): void {
  for (const taking of takings) {
    rule(chargedMicro <= taking.micro, "a charge is never above its hold");
    if (taking.lots === undefined) {
      const key = accounts.keys.get(keyId);
      rule(key !== undefined && key.heldMicro >= taking.micro, "a budget gives back what it held");
      key.heldMicro -= taking.micro;
      key.spentMicro += chargedMicro;
      continue;
    }
    rule(accounts.heldMicro >= taking.micro, "the balance gives back what it held");
    accounts.heldMicro -= taking.micro;
    accounts.spentMicro += chargedMicro;
    let toEat = chargedMicro;
    for (const share of taking.lots) {
      const lot = accounts.lots.get(share.lotId);
      rule(lot !== undefined && lot.heldMicro >= share.micro, "a lot gives back what it held");
      const eaten = Math.min(toEat, share.micro);
      toEat -= eaten;
      lot.heldMicro -= share.micro;
      lot.availableMicro += share.micro - eaten;
      if (lot.heldMicro === 0 && lot.availableMicro === 0) accounts.lots.delete(lot.lotId);
    }
    rule(toEat === 0, "a charge is covered by its lots");
  }
}

/** Reads a snapshot into memory. The snapshot is copied, never shared. */
export function fromSnapshot(snapshot: OrgSnapshot): Accounts {
  return {
    ...snapshot,
    position: snapshot.position === "start" ? "start" : BigInt(snapshot.position),
    lots: new Map(snapshot.lots.map((lot) => [lot.lotId, { ...lot }])),
    keys: new Map(snapshot.keys.map((key) => [key.keyId, { ...key }])),
    holds: new Map(snapshot.holds.map((hold) => [hold.requestId, { ...hold }])),
    fault: snapshot.fault,
  };
}

/** Writes the state as plain JSON. */
export function toSnapshot({ fault, ...accounts }: Accounts): OrgSnapshot {
  return {
    ...accounts,
    position: String(accounts.position),
    lots: [...accounts.lots.values()].map((lot) => ({ ...lot })),
    keys: [...accounts.keys.values()].map((key) => ({ ...key })),
    holds: [...accounts.holds.values()].map((hold) => ({ ...hold })),
    ...(fault !== undefined && { fault }),
  };
}
