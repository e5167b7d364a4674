import * as fc from "fast-check";
import { AccountsFault, emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
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
} from "#domain/accounts/admission.ts";
import { applyEffect } from "#domain/accounts/holds.ts";
import type { AccountsItem, Effect, OrgSnapshot } from "#domain/accounts/types.ts";
import { want } from "#domain/accounts/wanted.ts";
import type { AccountTaking } from "#domain/events/schemas.ts";
import type { AdmissionStore } from "#services/ports.ts";
import { BUDGET_KEY, KEY, ORG, RPM_KEY, START_MS } from "#test/worlds/accounts-world.ts";

/**
 * Histories of one organization that no gateway would make: anything is said to anything, at times that jump, with amounts
 * up to the largest. Each saying goes to the reducer and to another store alike. Only a request id is not admitted again
 * once it was, and was forgotten: ids are made once.
 */

const KEYS = [KEY, BUDGET_KEY, RPM_KEY, "key_D", "key_E"];
/** Where something happens at the edge: seconds, old holds, tombstones, windows, and clocks that are set back. */
const JUMPS_MS = [
  0, 1, 999, 1000, 1001, 7_000, 29_999, 30_000, 30_001, 59_000, 59_999, 60_000, 60_001, 60_999,
  61_000, 61_001, 62_000, 3_600_000, -1, -1000, -30_001, -61_000, -62_000, -3_600_000,
];
const LARGEST = Number.MAX_SAFE_INTEGER;

const micro = fc.oneof(
  { weight: 8, arbitrary: fc.nat(60) },
  { weight: 1, arbitrary: fc.integer({ min: 2 ** 31 - 2, max: 2 ** 31 + 2 }) },
  { weight: 1, arbitrary: fc.integer({ min: 10 ** 14, max: 10 ** 14 + 100 }) },
  { weight: 1, arbitrary: fc.nat(9).map((less) => LARGEST - less) },
);
const VERBS = {
  admit: 30,
  extend: 8,
  drop: 6,
  close: 8,
  record: 14,
  record_extended: 8,
  record_end: 10,
  credit: 7,
  key: 3,
  revoke: 1,
  odd_items: 2,
  sweep: 3,
  adopt: 3,
  look: 3,
  wait: 10,
  invent: 1,
} as const;
type Verb = keyof typeof VERBS;
export const steps = fc.array(
  fc.record({
    verb: fc.oneof(
      ...Object.entries(VERBS).map(([verb, weight]) => ({
        weight,
        arbitrary: fc.constant(verb as Verb),
      })),
    ),
    which: fc.nat(1_000),
    micro,
    /** One time in eight somebody does what nobody should. */
    odd: fc.nat(7).map((die) => die === 0),
    jumpMs: fc.constantFrom(...JUMPS_MS),
  }),
  { minLength: 20, maxLength: 140, size: "max" },
);
export type Step = typeof steps extends fc.Arbitrary<(infer One)[]> ? One : never;

export const FUNDED: readonly Effect[] = [
  { effect: "created" },
  { effect: "credited", lotId: "lot_1", pot: "paid", micro: 100 },
  { effect: "credited", lotId: "lot_2", pot: "paid", micro: 50 },
  { effect: "key_issued", keyId: KEY, limits: {} },
  { effect: "key_issued", keyId: BUDGET_KEY, limits: { budgetMicro: 60 } },
  { effect: "key_issued", keyId: RPM_KEY, limits: { rpm: 3 } },
  {
    effect: "key_issued",
    keyId: "key_D",
    limits: { rpm: 2, budgetMicro: LARGEST, expiresAtMs: START_MS + 600_000 },
  },
];

/** What the histories came through, to show that they came through all of it. */
export const CELLS = new Set<string>();
export const SAID = new Set<string>();

export class History {
  nowMs = START_MS;
  readonly reducer: Admission;
  readonly told: string[] = [];
  readonly admitted = new Set<string>();
  /** What admission answered, or was raised to: what an event would carry. */
  readonly takings = new Map<string, { totalMicro: number; accounts: readonly AccountTaking[] }>();
  log: Effect[] = [];
  ownerEpoch = 0;
  made = 0;
  readonly server: string;

  constructor(server: string) {
    this.server = server;
    this.reducer = emptyAdmission({
      server,
      observe: (state, verb) => CELLS.add(`${state} ${verb}`),
      onFault: (_, sentence) => this.told.push(sentence),
    });
  }

  /** What the log says, as the ledger would adopt it; undefined where the log cannot be. */
  folded(): OrgSnapshot | undefined {
    const accounts = emptyAccounts(ORG);
    try {
      for (const effect of this.log) applyEffect(accounts, effect);
    } catch (error) {
      if (error instanceof AccountsFault) return undefined;
      throw error;
    }
    accounts.position = BigInt(this.log.length);
    return toSnapshot(accounts);
  }
}

/** One thing said, to the reducer and to a store. */
export interface Said {
  readonly reducer: () => { outcome: string } | void;
  readonly store: (store: AdmissionStore) => Promise<unknown>;
}

export function adoptNext(history: History, { odd, which }: Step): Said {
  history.ownerEpoch += odd && which % 3 === 0 ? 0 : 1;
  const { ownerEpoch } = history;
  const snapshot = history.folded() ?? { ...toSnapshot(emptyAccounts(ORG)), position: "9" };
  const state = odd && which % 3 === 1 ? { ...snapshot, fault: "a person looks" } : snapshot;
  const servers = odd && which % 3 === 2 ? ["elsewhere"] : ["elsewhere", history.server];
  if (history.folded() === undefined) history.log = [];
  history.admitted.clear();
  const asked = { ownerEpoch, servers, state };
  return {
    reducer: () => adopt(history.reducer, asked),
    store: (store) => store.adopt(asked),
  };
}

export function applyNext(history: History, effects: readonly Effect[], odd = false): Said {
  const { reducer, ownerEpoch } = history;
  const position = reducer.orgs.get(ORG)?.accounts.position ?? "start";
  const at = position === "start" ? 0n : position;
  const after = { prev: position, position: at + 3n, effects };
  const gap = { prev: at + 4n, position: at + 9n, effects };
  const items: AccountsItem[] = odd
    ? [{ prev: "start", position: at, effects }, after, { ...after, prev: 0n }, gap]
    : [after];
  const asked = { orgId: ORG, ownerEpoch, items };
  return {
    reducer() {
      const answer = apply(reducer, asked);
      if (answer.outcome === "applied" || answer.outcome === "behind") history.log.push(...effects);
      return answer;
    },
    store: (store) => store.apply(asked),
  };
}

/** Turns a step into what is said; undefined where there is nothing to say it to. */
export function sayingOf(history: History, step: Step): Said | undefined {
  const { reducer, takings } = history;
  const { which, odd } = step;
  const ownerEpoch = history.ownerEpoch + (odd && which % 5 === 0 ? (which % 2) * 2 - 1 : 0);
  const orgId = odd && which % 7 === 0 ? "org_nobody" : ORG;
  const of = { orgId, ownerEpoch };
  const holds = reducer.orgs.get(ORG)?.accounts.holds;
  const known = [...(holds?.keys() ?? []), ...(odd ? ["req_nobody", ...history.admitted] : [])];
  const requestId = known[which % Math.max(1, known.length)] ?? `req_${(history.made += 1)}`;
  const hold = holds?.get(requestId);
  const most = odd ? step.micro : Math.min(step.micro, hold?.totalMicro ?? 0);
  const revision = history.log.length;

  switch (step.verb) {
    case "admit": {
      // A tombstone may be forgotten by this very admission.
      const isThere = hold !== undefined && hold.state !== "tombstone";
      const again = odd && (isThere || !history.admitted.has(requestId));
      const ask = {
        ...of,
        requestId: again ? requestId : `req_${(history.made += 1)}`,
        writerEpoch: 7 + (which % 3),
        keyId: KEYS[which % KEYS.length] ?? KEY,
        holdMicro: step.micro,
      };
      return {
        reducer() {
          const answer = admit(reducer, ask, history.nowMs);
          if (answer.outcome === "admitted") {
            history.admitted.add(ask.requestId);
            takings.set(ask.requestId, { totalMicro: ask.holdMicro, accounts: answer.accounts });
          }
          if (answer.outcome === "refused") SAID.add(answer.refusal);
          return answer;
        },
        store: (store) => store.admit(ask),
      };
    }
    case "extend": {
      const ask = {
        ...of,
        requestId,
        totalMicro: Math.min(LARGEST, (hold?.totalMicro ?? 0) + step.micro),
      };
      return {
        reducer() {
          const answer = structuredClone(extend(reducer, ask));
          if (answer.outcome === "raised") {
            const { totalMicro, accounts } = answer;
            takings.set(requestId, { totalMicro, accounts });
          }
          return answer;
        },
        store: (store) => store.extend(ask),
      };
    }
    case "drop":
      if (!odd && hold && hold.state !== "provisional") return undefined;
      return {
        reducer: () => drop(reducer, { ...of, requestId }, history.nowMs),
        store: (store) => store.drop({ ...of, requestId }),
      };
    case "close": {
      const ask = { ...of, requestId, chargedMicro: most };
      return {
        reducer: () => close(reducer, ask),
        store: (store) => store.close(ask),
      };
    }
    case "sweep": {
      const ask = { ...of, writerEpoch: 7 + (which % 3) };
      return { reducer: () => sweep(reducer, ask), store: (store) => store.sweep(ask) };
    }
    case "record": {
      const taken = takings.get(requestId);
      if (!taken || (!odd && hold?.state !== "provisional")) return undefined;
      const { keyId, writerEpoch } = hold ?? { keyId: KEYS[which % 4] ?? KEY, writerEpoch: 9 };
      const effect = "hold_opened";
      return applyNext(history, [{ effect, requestId, keyId, writerEpoch, revision, ...taken }]);
    }
    case "record_extended": {
      const taken = takings.get(requestId);
      if (!taken || (!odd && hold?.state !== "open")) return undefined;
      // What was recorded once may say more than this store knows: it was raised by the one before.
      const opened = { effect: "hold_extended", requestId, revision, ...taken } as const;
      return applyNext(history, [opened], odd && which % 2 === 0);
    }
    case "record_end":
      if (!odd && hold?.state !== "open" && hold?.state !== "closed") return undefined;
      return applyNext(history, [{ effect: "hold_closed", requestId, chargedMicro: most }]);
    case "invent": {
      // A hold that another store admitted, over more than one lot.
      const lots = [...(reducer.orgs.get(ORG)?.accounts.lots.values() ?? [])];
      const shares = lots.slice(0, 3).map(({ lotId, pot, availableMicro }) => ({
        lotId,
        pot,
        micro: odd ? step.micro : availableMicro,
      }));
      const total = shares.reduce((sum, share) => sum + share.micro, 0);
      if (!Number.isSafeInteger(total)) return undefined;
      const account = odd && which % 2 === 0 ? "org_nobody/balance" : `${ORG}/balance`;
      const accounts = [{ account, period: "total", micro: total, lots: shares }];
      const id = `req_${(history.made += 1)}`;
      takings.set(id, { totalMicro: total, accounts });
      const hold = { requestId: id, keyId: KEY, writerEpoch: 9, totalMicro: total, accounts };
      return applyNext(history, [{ effect: "hold_opened", revision, ...hold }]);
    }
    case "credit": {
      const lotId = odd ? "lot_1" : `lot_${(history.made += 1)}`;
      const effect = { effect: "credited", lotId, pot: "paid", micro: step.micro } as const;
      return applyNext(history, [effect], which % 4 === 0 && !odd);
    }
    case "key": {
      const keyId = odd ? KEY : KEYS[which % KEYS.length];
      if (!keyId || (!odd && reducer.orgs.get(ORG)?.accounts.keys.has(keyId))) return undefined;
      const limits = { budgetMicro: step.micro, expiresAtMs: history.nowMs + 60_000 };
      return applyNext(history, [{ effect: "key_issued", keyId, limits }]);
    }
    case "revoke":
      return applyNext(history, [{ effect: "key_revoked", keyId: KEYS[3 + (which % 2)] ?? KEY }]);
    case "odd_items":
      return applyNext(history, [], true);
    case "look": {
      const ask = { orgId, ...(which % 3 > 0 && { keyId: KEYS[which % KEYS.length] ?? KEY }) };
      if (which % 2 === 0 && odd) {
        return {
          reducer: () => want(reducer, orgId),
          store: (store) => store.want(orgId),
        };
      }
      return {
        reducer() {
          const found = figures(reducer, ask, history.nowMs);
          return found.outcome === "figures" ? { ...found, asOfMs: history.nowMs } : found;
        },
        store: (store) => store.figures(ask),
      };
    }
    case "wait":
      history.nowMs += step.jumpMs;
      return undefined;
    case "adopt":
      return adoptNext(history, step);
  }
}
