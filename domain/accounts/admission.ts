import {
  AccountsFault,
  availableMicro,
  budgetAvailableMicro,
  fromSnapshot,
  rule,
  type Accounts,
} from "./accounts.ts";
import type {
  AccountFigures,
  AdmitAsk,
  AdmitOutcome,
  ApplyOutcome,
  ExtendOutcome,
  Fenced,
  FiguresAsk,
  FiguresOutcome,
  OfOwner,
  OfRequest,
} from "./admission-types.ts";
import { firstRefusal, rateOf, type AdmitRefusal, type Asked } from "./checks.ts";
import {
  admitHold,
  applyEffect,
  endHold,
  FORGOTTEN_MAX,
  holdAct,
  raiseHold,
  TOMBSTONE_MS,
  type CellObserver,
} from "./holds.ts";
import { count, type RateWindow } from "./rate-window.ts";
import type { AccountsItem, KeyAccount, OrgSnapshot } from "./types.ts";
import { wantIfOld } from "./wanted.ts";

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
  readonly ownerEpoch: number;
  readonly accounts: Accounts;
  /** By key; starts empty after an adoption. */
  readonly windows: Map<string, RateWindow>;
  /** Until when each dropped request id stays refused, oldest first. Milliseconds. */
  readonly tombstones: Map<string, number>;
  /** When each hold that is still provisional was taken, oldest first. Milliseconds. */
  readonly provisional: Map<string, number>;
}

/** A server's new life: nothing is adopted yet, so everything is fenced. */
export function emptyAdmission(options: Omit<Admission, "orgs" | "wanted">): Admission {
  return { ...options, orgs: new Map(), wanted: new Set() };
}

const fenced = (why: Fenced["fenced"]): Fenced => ({ outcome: "fenced", fenced: why });

/**
 * Runs a verb on an organization, if the caller's epoch is the one that owns it here. A broken rule of the books closes
 * the organization instead of ending the process.
 */
function onOwned<T>(
  admission: Admission,
  { orgId, ownerEpoch }: OfOwner,
  verb: (org: AdmissionOrg) => T,
): T | Fenced {
  const org = admission.orgs.get(orgId);
  if (!org) return fenced("absent");
  if (org.ownerEpoch !== ownerEpoch) return fenced("older");
  if (org.accounts.fault !== undefined) return fenced("fault");
  try {
    return verb(org);
  } catch (error) {
    if (!(error instanceof AccountsFault)) throw error;
    org.accounts.fault = error.message;
    admission.onFault?.(orgId, error.message);
    return fenced("fault");
  }
}

/**
 * Decides one request: refuses it for the first of the reasons in checks.ts, or holds the money on all of its accounts at
 * once and counts it against the rate limit. A refusal takes and counts nothing.
 */
export function admit(admission: Admission, ask: AdmitAsk, nowMs: number): AdmitOutcome {
  return onOwned(admission, ask, (org) => {
    const { accounts } = org;
    const { requestId, holdMicro } = ask;
    forgetTombstones(org, nowMs);
    wantIfOld(admission, org, nowMs);
    const { act } = holdAct(accounts, requestId, "admit", admission.observe);
    const key = accounts.keys.get(ask.keyId);
    if (act !== "admit") return refused(accounts, key, "request_known");
    if (!key) return refused(accounts, key, "key_unknown");
    const asked: Asked = { org, key, holdMicro, nowMs, window: undefined };
    const refusal = firstRefusal(asked);
    if (refusal) return { ...refused(accounts, key, refusal), ...rateOf(asked) };
    const takings = admitHold(accounts, key, requestId, ask.writerEpoch, holdMicro);
    org.provisional.set(requestId, nowMs);
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
  ask: OfRequest & { totalMicro: number },
): ExtendOutcome {
  return onOwned(admission, ask, ({ accounts }) => {
    const { hold, act } = holdAct(accounts, ask.requestId, "extend", admission.observe);
    if (act === "gone") return { outcome: "gone" };
    rule(act === "raise" && hold !== undefined, "a hold that has ended is not extended");
    raiseHold(accounts, hold, ask.totalMicro);
    return { outcome: "raised", totalMicro: hold.totalMicro, accounts: hold.accounts };
  });
}

/** Undoes an admission that was certainly not recorded; its id stays refused for a while. */
export function drop(
  admission: Admission,
  ask: OfRequest,
  nowMs: number,
): { outcome: "dropped" } | Fenced {
  return onOwned(admission, ask, (org) => {
    forgetTombstones(org, nowMs);
    const { requestId } = ask;
    const { hold, act } = holdAct(org.accounts, requestId, "drop", admission.observe);
    if (act === "nothing") return { outcome: "dropped" };
    rule(act === "drop", "a hold that is recorded is not dropped");
    if (hold) endHold(org.accounts, hold, 0);
    org.provisional.delete(requestId);
    const { keyId, writerEpoch } = hold ?? { keyId: "", writerEpoch: 0 };
    const names = { requestId, keyId, writerEpoch, state: "tombstone" as const };
    org.accounts.holds.set(requestId, { ...names, totalMicro: 0, accounts: [], revision: -1 });
    org.tombstones.set(requestId, nowMs + TOMBSTONE_MS);
    return { outcome: "dropped" };
  });
}

/** Ends a hold whose terminal event is durable: the charge is spent, the rest is free. */
export function close(
  admission: Admission,
  ask: OfRequest & { chargedMicro: number },
): { outcome: "closed" } | Fenced {
  return onOwned(admission, ask, ({ accounts, provisional }) => {
    const { hold, act } = holdAct(accounts, ask.requestId, "close", admission.observe);
    if (act === "settle" && hold) {
      endHold(accounts, hold, ask.chargedMicro);
      hold.state = "closed";
      provisional.delete(ask.requestId);
    }
    return { outcome: "closed" };
  });
}

/**
 * Carries recorded events in, each once. An item whose position is reached already is passed over; the others must
 * join on without a gap, else the store answers how far it has come.
 */
export function apply(
  admission: Admission,
  ask: OfOwner & { items: readonly AccountsItem[] },
): ApplyOutcome {
  return onOwned(admission, ask, ({ accounts, provisional }) => {
    for (const { prev, position, effects } of ask.items) {
      if (accounts.position !== "start" && position <= accounts.position) continue;
      if (prev !== accounts.position) return { outcome: "behind", position: accounts.position };
      for (const effect of effects) {
        applyEffect(accounts, effect, admission.observe);
        if (effect.effect === "hold_opened") provisional.delete(effect.requestId);
      }
      accounts.position = position;
    }
    return { outcome: "applied", position: accounts.position };
  });
}

/** Puts an organization's whole state in place, if the epoch known for it is lower and this is the right server. */
export function adopt(
  admission: Admission,
  ask: { ownerEpoch: number; servers: readonly string[]; state: OrgSnapshot },
): { outcome: "adopted" } | Fenced {
  if (!ask.servers.includes(admission.server)) return fenced("server");
  const present = admission.orgs.get(ask.state.orgId);
  if (present && present.ownerEpoch >= ask.ownerEpoch) return fenced("older");
  admission.orgs.set(ask.state.orgId, {
    ownerEpoch: ask.ownerEpoch,
    accounts: fromSnapshot(ask.state),
    windows: new Map(),
    tombstones: new Map(),
    provisional: new Map(),
  });
  return { outcome: "adopted" };
}

/**
 * Frees what a dead writer took and never recorded. Its sealed journal must have been applied before; from then on this
 * is right at any time, and an admission that comes later is freed by the next one.
 */
export function sweep(
  admission: Admission,
  ask: OfOwner & { writerEpoch: number },
): { outcome: "swept" } | Fenced {
  return onOwned(admission, ask, ({ accounts, provisional }) => {
    for (const { requestId, writerEpoch } of accounts.holds.values()) {
      if (writerEpoch !== ask.writerEpoch) continue;
      const { hold, act } = holdAct(accounts, requestId, "sweep", admission.observe);
      if (act !== "give_back_and_forget" || !hold) continue;
      endHold(accounts, hold, 0);
      accounts.holds.delete(requestId);
      provisional.delete(requestId);
    }
    return { outcome: "swept" };
  });
}

/**
 * The figures that people read: the balance, and the budget of one of the organization's keys. Where an owner is named, only
 * what is in place under that one.
 */
export function figures(admission: Admission, ask: FiguresAsk, nowMs: number): FiguresOutcome {
  const org = admission.orgs.get(ask.orgId);
  if (!org) return fenced("absent");
  if (org.ownerEpoch !== (ask.ownerEpoch ?? org.ownerEpoch)) return fenced("older");
  const { accounts } = org;
  if (accounts.fault !== undefined) return fenced("fault");
  wantIfOld(admission, org, nowMs);
  const key = ask.keyId === undefined ? undefined : accounts.keys.get(ask.keyId);
  const figures = { balance: balanceFigures(accounts), ...budgetOf(key) };
  const { lots, position } = accounts;
  return { outcome: "figures", ...figures, unspentLots: lots.size, position, asOfMs: nowMs };
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

/** Tombstones come in the order of their time, so only the head is looked at. Those that are too many go with the next calls. */
function forgetTombstones({ accounts, tombstones }: AdmissionOrg, nowMs: number): void {
  const least = tombstones.size - FORGOTTEN_MAX;
  for (const [requestId, untilMs] of tombstones) {
    if (untilMs > nowMs || tombstones.size <= least) return;
    tombstones.delete(requestId);
    accounts.holds.delete(requestId);
  }
}
