import {
  AccountsFault,
  availableMicro,
  budgetAvailableMicro,
  fromSnapshot,
  type Accounts,
} from "./accounts.ts";
import type {
  AccountFigures,
  AdmitAsk,
  AdmitOutcome,
  ApplyOutcome,
  ExtendOutcome,
  Fenced,
} from "./admission-types.ts";
import { firstRefusal, rateOf, type AdmitRefusal, type Asked } from "./checks.ts";
import {
  admitHold,
  applyEffect,
  endHold,
  holdAct,
  raiseHold,
  TOMBSTONE_MS,
  type CellObserver,
} from "./holds.ts";
import { count, type RateWindow } from "./rate-window.ts";
import type { AccountsItem, KeyAccount, OrgSnapshot } from "./types.ts";
import { noteTaken, wantIfOld, type Taken } from "./wanted.ts";

/**
 * The admission store as a pure reducer: it decides who may take money now. It knows no clock and does no I/O; it
 * changes its own state in place. Every store of admission behaves like this one.
 */
export interface Admission {
  /** The identity of this life of the server. */
  readonly server: string;
  readonly orgs: Map<string, AdmissionOrg>;
  /** The organizations that the ledger should look at. */
  readonly wanted: Set<string>;
  readonly observe?: CellObserver;
  /** Told once when an organization is closed because a rule of the books did not hold. */
  readonly onFault?: (orgId: string, sentence: string) => void;
}

export interface AdmissionOrg {
  ownerEpoch: number;
  readonly accounts: Accounts;
  /** By key; starts empty after an adoption. */
  readonly windows: Map<string, RateWindow>;
  /** Dropped request ids, oldest first, until they may be forgotten. */
  readonly tombstones: string[];
  /** Provisional holds, oldest first, among them some that are provisional no more; and when those are cleared out. */
  taken: Taken[];
  clearTakenAt: number;
}

/** A server's new life: nothing is adopted yet, so everything is fenced. */
export function emptyAdmission(options: Omit<Admission, "orgs" | "wanted">): Admission {
  return { ...options, orgs: new Map(), wanted: new Set() };
}

const FENCED = {
  absent: { outcome: "fenced", fenced: "absent" },
  older: { outcome: "fenced", fenced: "older" },
  server: { outcome: "fenced", fenced: "server" },
  fault: { outcome: "fenced", fenced: "fault" },
} as const satisfies Record<Fenced["fenced"], Fenced>;

/** The organization, if the caller's epoch is the one that owns it here. */
function owned(admission: Admission, orgId: string, ownerEpoch: number): AdmissionOrg | Fenced {
  const org = admission.orgs.get(orgId);
  if (!org) return FENCED.absent;
  if (org.ownerEpoch !== ownerEpoch) return FENCED.older;
  if (org.accounts.fault !== undefined) return FENCED.fault;
  return org;
}

/** Runs a change of one organization; a broken rule closes it instead of ending the process. */
function guarded<T>(admission: Admission, org: AdmissionOrg, change: () => T): T | Fenced {
  try {
    return change();
  } catch (error) {
    if (!(error instanceof AccountsFault)) throw error;
    return closeForFault(admission, org, error.message);
  }
}

function closeForFault(admission: Admission, org: AdmissionOrg, sentence: string): Fenced {
  org.accounts.fault = sentence;
  admission.onFault?.(org.accounts.orgId, sentence);
  return FENCED.fault;
}

/**
 * Decides one request: refuses it for the first of the reasons in checks.ts, or holds the money on all of its accounts at
 * once and counts it against the rate limit. A refusal takes and counts nothing.
 */
export function admit(admission: Admission, ask: AdmitAsk, nowMs: number): AdmitOutcome {
  const org = owned(admission, ask.orgId, ask.ownerEpoch);
  if ("outcome" in org) return org;
  const { accounts } = org;
  forgetTombstones(org, nowMs);
  wantIfOld(admission, org, nowMs);
  const { act } = holdAct(accounts, ask.requestId, "admit", admission.observe);
  const key = accounts.keys.get(ask.keyId);
  if (act !== "admit") return refused(accounts, key, "request_known");
  if (!key) return refused(accounts, key, "key_unknown");
  const asked: Asked = { org, key, holdMicro: ask.holdMicro, nowMs, window: undefined };
  const refusal = firstRefusal(asked);
  if (refusal) return { ...refused(accounts, key, refusal), ...rateOf(asked) };
  return guarded(admission, org, () => {
    const takings = admitHold(accounts, key, ask.requestId, ask.writerEpoch, ask.holdMicro);
    noteTaken(org, ask.requestId, nowMs);
    if (asked.window) count(asked.window);
    return { outcome: "admitted", atMs: nowMs, accounts: takings, ...rateOf(asked) };
  });
}

function refused(accounts: Accounts, key: KeyAccount | undefined, refusal: AdmitRefusal) {
  const outcome = "refused" as const;
  return { outcome, refusal, balance: balanceFigures(accounts), ...budgetOf(key) };
}

/** Raises a hold towards a total, as far as the money goes. */
export function extend(
  admission: Admission,
  ask: { orgId: string; ownerEpoch: number; requestId: string; totalMicro: number },
): ExtendOutcome {
  const org = owned(admission, ask.orgId, ask.ownerEpoch);
  if ("outcome" in org) return org;
  const { hold, act } = holdAct(org.accounts, ask.requestId, "extend", admission.observe);
  if (act === "gone") return { outcome: "gone" };
  if (act !== "raise" || !hold)
    return closeForFault(admission, org, "a hold that has ended is not extended");
  return guarded(admission, org, () => {
    raiseHold(org.accounts, hold, ask.totalMicro);
    return { outcome: "raised", totalMicro: hold.totalMicro, accounts: hold.accounts };
  });
}

/** Undoes an admission that was certainly not recorded; its id stays refused for a while. */
export function drop(
  admission: Admission,
  ask: { orgId: string; ownerEpoch: number; requestId: string },
  nowMs: number,
): { outcome: "dropped" } | Fenced {
  const org = owned(admission, ask.orgId, ask.ownerEpoch);
  if ("outcome" in org) return org;
  forgetTombstones(org, nowMs);
  const { hold, act } = holdAct(org.accounts, ask.requestId, "drop", admission.observe);
  if (act === "nothing") return { outcome: "dropped" };
  if (act !== "drop")
    return closeForFault(admission, org, "a hold that is recorded is not dropped");
  return guarded(admission, org, () => {
    if (hold) endHold(org.accounts, hold, 0);
    org.accounts.holds.set(ask.requestId, {
      requestId: ask.requestId,
      keyId: hold?.keyId ?? "",
      writerEpoch: hold?.writerEpoch ?? 0,
      state: "tombstone",
      totalMicro: 0,
      accounts: [],
      revision: -1,
      forgetAtMs: nowMs + TOMBSTONE_MS,
    });
    org.tombstones.push(ask.requestId);
    return { outcome: "dropped" };
  });
}

/** Ends a hold whose terminal event is durable: the charge is spent, the rest is free. */
export function close(
  admission: Admission,
  ask: { orgId: string; ownerEpoch: number; requestId: string; chargedMicro: number },
): { outcome: "closed" } | Fenced {
  const org = owned(admission, ask.orgId, ask.ownerEpoch);
  if ("outcome" in org) return org;
  const { hold, act } = holdAct(org.accounts, ask.requestId, "close", admission.observe);
  if (act === "nothing" || !hold) return { outcome: "closed" };
  return guarded(admission, org, () => {
    endHold(org.accounts, hold, ask.chargedMicro);
    hold.state = "closed";
    return { outcome: "closed" };
  });
}

/**
 * Carries recorded events in, each once. An item whose position is reached already is passed over; the others must
 * join on without a gap, else the store answers how far it has come.
 */
export function apply(
  admission: Admission,
  ask: { orgId: string; ownerEpoch: number; items: readonly AccountsItem[] },
): ApplyOutcome {
  const org = owned(admission, ask.orgId, ask.ownerEpoch);
  if ("outcome" in org) return org;
  const { accounts } = org;
  return guarded(admission, org, () => {
    for (const item of ask.items) {
      if (accounts.position !== "start" && item.position <= accounts.position) continue;
      if (item.prev !== accounts.position)
        return { outcome: "behind", position: accounts.position };
      for (const effect of item.effects) applyEffect(accounts, effect, admission.observe);
      accounts.position = item.position;
    }
    return { outcome: "applied", position: accounts.position };
  });
}

/** Puts an organization's whole state in place, if the epoch known for it is lower and this is the right server. */
export function adopt(
  admission: Admission,
  ask: { ownerEpoch: number; servers: readonly string[]; state: OrgSnapshot },
): { outcome: "adopted" } | Fenced {
  if (!ask.servers.includes(admission.server)) return FENCED.server;
  const present = admission.orgs.get(ask.state.orgId);
  if (present && present.ownerEpoch >= ask.ownerEpoch) return FENCED.older;
  admission.orgs.set(ask.state.orgId, {
    ownerEpoch: ask.ownerEpoch,
    accounts: fromSnapshot(ask.state),
    windows: new Map(),
    tombstones: [],
    taken: [],
    clearTakenAt: 0,
  });
  return { outcome: "adopted" };
}

/**
 * Frees what a dead writer took and never recorded. Its sealed journal must have been applied before; from then on this
 * is right at any time, and an admission that comes later is freed by the next one.
 */
export function sweep(
  admission: Admission,
  ask: { orgId: string; ownerEpoch: number; writerEpoch: number },
): { outcome: "swept" } | Fenced {
  const org = owned(admission, ask.orgId, ask.ownerEpoch);
  if ("outcome" in org) return org;
  return guarded(admission, org, () => {
    for (const candidate of org.accounts.holds.values()) {
      if (candidate.writerEpoch !== ask.writerEpoch) continue;
      const { act } = holdAct(org.accounts, candidate.requestId, "sweep", admission.observe);
      if (act !== "give_back_and_forget") continue;
      endHold(org.accounts, candidate, 0);
      org.accounts.holds.delete(candidate.requestId);
    }
    return { outcome: "swept" };
  });
}

/** The figures that people read: the balance, and the budget of one of the organization's keys. */
export function figures(
  admission: Admission,
  ask: { orgId: string; keyId?: string },
  nowMs: number,
):
  | { outcome: "figures"; balance: AccountFigures; budget?: AccountFigures; unspentLots: number }
  | Fenced {
  const org = admission.orgs.get(ask.orgId);
  if (!org) return FENCED.absent;
  if (org.accounts.fault !== undefined) return FENCED.fault;
  wantIfOld(admission, org, nowMs);
  const key = ask.keyId === undefined ? undefined : org.accounts.keys.get(ask.keyId);
  return {
    outcome: "figures",
    balance: balanceFigures(org.accounts),
    ...budgetOf(key),
    unspentLots: org.accounts.lots.size,
  };
}

function balanceFigures(accounts: Accounts): AccountFigures {
  const { fundedMicro, spentMicro, heldMicro } = accounts;
  return { fundedMicro, spentMicro, heldMicro, availableMicro: availableMicro(accounts) };
}

/** How a key's budget stands, if it has one. */
function budgetOf(key: KeyAccount | undefined): { readonly budget?: AccountFigures } {
  const fundedMicro = key?.limits.budgetMicro;
  if (!key || fundedMicro === undefined) return {};
  const { spentMicro, heldMicro } = key;
  return {
    budget: { fundedMicro, spentMicro, heldMicro, availableMicro: budgetAvailableMicro(key) },
  };
}

/** Tombstones come in the order of their time, so only the head is looked at. */
function forgetTombstones(org: AdmissionOrg, nowMs: number): void {
  for (;;) {
    const oldest = org.tombstones[0];
    if (oldest === undefined) return;
    const hold = org.accounts.holds.get(oldest);
    if (hold?.state === "tombstone" && hold.forgetAtMs > nowMs) return;
    if (hold?.state === "tombstone") org.accounts.holds.delete(oldest);
    org.tombstones.shift();
  }
}
