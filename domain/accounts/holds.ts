import type { AccountTaking } from "#domain/events/schemas.ts";
import { UNSPENT_LOTS_MAX } from "#domain/organization.ts";
import {
  availableMicro,
  budgetAvailableMicro,
  credit,
  rule,
  settle,
  take,
  takeAsRecorded,
  type Accounts,
} from "./accounts.ts";
import type { Effect, Hold, HoldState, KeyAccount } from "./types.ts";

/**
 * The whole life of a hold. It is opened by `admit`, may be extended, and ends once: charged or released by `close`
 * and its event, dropped before it was recorded, or swept after its writer died. Holds never die by time.
 */
export const HOLD_TABLE = {
  absent: {
    admit: "admit",
    extend: "gone",
    drop: "drop",
    close: "nothing",
    apply_open: "open",
    apply_extended: "fault",
    apply_close: "fault",
    sweep: "nothing",
  },
  provisional: {
    admit: "refuse",
    extend: "raise",
    drop: "drop",
    close: "settle",
    apply_open: "confirm",
    apply_extended: "fault",
    apply_close: "fault",
    sweep: "give_back_and_forget",
  },
  open: {
    admit: "refuse",
    extend: "raise",
    drop: "fault",
    close: "settle",
    apply_open: "fault",
    apply_extended: "raise_to_event",
    apply_close: "settle_and_forget",
    sweep: "nothing",
  },
  closed: {
    admit: "refuse",
    extend: "fault",
    drop: "fault",
    close: "nothing",
    apply_open: "nothing",
    apply_extended: "nothing",
    apply_close: "forget",
    sweep: "nothing",
  },
  tombstone: {
    admit: "refuse",
    extend: "fault",
    drop: "nothing",
    close: "nothing",
    apply_open: "fault",
    apply_extended: "fault",
    apply_close: "fault",
    sweep: "nothing",
  },
} as const satisfies Record<HoldState, Record<string, string>>;

/** What can be said to a hold: the gateway's verbs, then what the ledger carries in from recorded events. */
export type HoldVerb = keyof (typeof HOLD_TABLE)["absent"];

/** What then happens; `fault` closes the organization and calls a person. */
export type HoldAct = (typeof HOLD_TABLE)[HoldState][HoldVerb];

/**
 * How many shares of lots a hold lists at the most: twice as many as there are unspent lots. A lot may stand in the list
 * again after a raise, behind what was there: a charge eats the list in its order, and what was listed before the raise
 * must be eaten as if the raise had never been, in case it is not recorded.
 */
export const SHARES_MAX = 2 * UNSPENT_LOTS_MAX;

/** How long a dropped request's id stays refused, so that an admission that comes late takes nothing. */
export const TOMBSTONE_MS = 60_000;
/** So many that are over one call forgets at the most, so that none waits for what an idle organization left behind. */
export const FORGOTTEN_MAX = 50;

/** Told of every cell of the table that was reached; tests count them. */
export type CellObserver = (state: HoldState, verb: HoldVerb) => void;

/** Looks a hold up and says what the verb does to it. */
export function holdAct(
  accounts: Accounts,
  requestId: string,
  verb: HoldVerb,
  observe: CellObserver | undefined,
): { hold: Hold | undefined; act: HoldAct } {
  const hold = accounts.holds.get(requestId);
  const state = hold?.state ?? "absent";
  observe?.(state, verb);
  return { hold, act: HOLD_TABLE[state][verb] };
}

/** Opens a provisional hold. The caller has checked that the money is there. */
export function admitHold(
  accounts: Accounts,
  key: KeyAccount,
  requestId: string,
  writerEpoch: number,
  micro: number,
): AccountTaking[] {
  const takings = take(accounts, key, micro);
  const { keyId } = key;
  const names = { requestId, keyId, writerEpoch, state: "provisional" as const };
  accounts.holds.set(requestId, { ...names, totalMicro: micro, accounts: takings, revision: -1 });
  return takings;
}

/**
 * Raises a hold towards a total, as far as the money of all its accounts goes, and the list of its lots. A lower total
 * changes nothing.
 */
export function raiseHold(accounts: Accounts, hold: Hold, totalMicro: number): void {
  const key = accounts.keys.get(hold.keyId);
  rule(key !== undefined, "a hold's key exists");
  const shares = hold.accounts.flatMap(({ lots }) => lots ?? []).length;
  const available = Math.min(
    availableMicro(accounts),
    budgetAvailableMicro(key),
    availableInLots(accounts, Math.max(0, SHARES_MAX - shares)),
  );
  const more = Math.min(totalMicro - hold.totalMicro, available);
  if (more <= 0) return;
  hold.accounts = joinTakings(hold.accounts, take(accounts, key, more));
  hold.totalMicro += more;
}

/** What the oldest `count` of the lots that have money have together. Micro. */
function availableInLots(accounts: Accounts, count: number): number {
  const withMoney = accounts.lots.values().filter((lot) => lot.availableMicro > 0);
  return withMoney.take(count).reduce((micro, lot) => micro + lot.availableMicro, 0);
}

/** The takings of a raised hold: the same accounts, what was added behind what was there, lot by lot. */
function joinTakings(
  before: readonly AccountTaking[],
  added: readonly AccountTaking[],
): AccountTaking[] {
  return before.map((taking) => {
    const more = added.find((candidate) => candidate.account === taking.account);
    rule(more !== undefined, "a hold is raised on all of its accounts");
    const micro = taking.micro + more.micro;
    if (taking.lots === undefined || more.lots === undefined) return { ...taking, micro };
    const lots = taking.lots.map((share) => ({ ...share }));
    for (const share of more.lots) {
      const last = lots.at(-1);
      if (last?.lotId === share.lotId) last.micro += share.micro;
      else lots.push({ ...share });
    }
    return { ...taking, micro, lots };
  });
}

/** Ends a hold in the accounts; its marker stays, with nothing left in it. */
export function endHold(accounts: Accounts, hold: Hold, chargedMicro: number): void {
  settle(accounts, hold.keyId, hold.accounts, chargedMicro);
  hold.accounts = [];
  hold.totalMicro = 0;
}

/**
 * Carries one effect of a recorded event into the accounts. Throws {@link AccountsFault} where the books' rules or the
 * table say that this cannot be.
 */
export function applyEffect(accounts: Accounts, effect: Effect, observe?: CellObserver): void {
  switch (effect.effect) {
    case "created":
      accounts.created = true;
      return;
    case "credited":
      return credit(accounts, effect.lotId, effect.pot, effect.micro);
    case "key_issued": {
      const { keyId, limits } = effect;
      rule(!accounts.keys.has(keyId), "a key is issued once");
      accounts.keys.set(keyId, { keyId, revoked: false, limits, spentMicro: 0, heldMicro: 0 });
      return;
    }
    case "key_revoked": {
      const key = accounts.keys.get(effect.keyId);
      rule(key !== undefined, "a revoked key was issued");
      key.revoked = true;
      return;
    }
    case "hold_opened":
    case "hold_extended":
    case "hold_closed":
      return applyToHold(accounts, effect, observe);
  }
}

type HoldEffect = Extract<Effect, { requestId: string }>;

const VERB_OF = {
  hold_opened: "apply_open",
  hold_extended: "apply_extended",
  hold_closed: "apply_close",
} as const satisfies Record<HoldEffect["effect"], HoldVerb>;

function applyToHold(accounts: Accounts, effect: HoldEffect, observe?: CellObserver): void {
  const { hold, act } = holdAct(accounts, effect.requestId, VERB_OF[effect.effect], observe);
  if (act === "nothing") return;
  switch (effect.effect) {
    case "hold_opened":
      if (act === "confirm" && hold) {
        hold.state = "open";
        hold.revision = effect.revision;
        return;
      }
      rule(act === "open", "a hold is recorded as opened once");
      takeAsRecorded(accounts, effect.keyId, effect.accounts);
      accounts.holds.set(effect.requestId, openHold(effect));
      return;
    case "hold_extended":
      rule(act === "raise_to_event" && hold !== undefined, "only an open hold is extended");
      hold.revision = effect.revision;
      if (hold.totalMicro >= effect.totalMicro) return;
      settle(accounts, hold.keyId, hold.accounts, 0);
      takeAsRecorded(accounts, hold.keyId, effect.accounts);
      hold.accounts = effect.accounts;
      hold.totalMicro = effect.totalMicro;
      return;
    case "hold_closed":
      rule(act !== "fault" && hold !== undefined, "only a hold that was opened is closed");
      if (act === "settle_and_forget")
        settle(accounts, hold.keyId, hold.accounts, effect.chargedMicro);
      accounts.holds.delete(effect.requestId);
  }
}

/** The hold that a recorded admission opens. */
export function openHold({ effect: _, ...hold }: HoldEffect & { effect: "hold_opened" }): Hold {
  return { ...hold, state: "open" };
}
