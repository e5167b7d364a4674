import { availableMicro, budgetAvailableMicro, type Accounts } from "./accounts.ts";
import type { RateFigures } from "./admission-types.ts";
import { advance, emptyWindow, freeInMs, type RateWindow } from "./rate-window.ts";
import type { KeyAccount } from "./types.ts";

/** What a request of a key is judged by. */
export interface Asked {
  readonly org: { readonly accounts: Accounts; readonly windows: Map<string, RateWindow> };
  readonly key: KeyAccount;
  readonly holdMicro: number;
  readonly nowMs: number;
  /** What the check of the rate limit looked at; undefined before it, and of a key without such a limit. */
  window: RateWindow | undefined;
}

/**
 * Every refusal of a key's request with its check, in the order in which they are looked at: the first that holds is the
 * answer. Nothing else in admission reads a limit in order to refuse.
 */
const CHECKS = {
  key_revoked: ({ key }) => key.revoked,
  key_expired: ({ key, nowMs }) => (key.limits.expiresAtMs ?? Infinity) <= nowMs,
  rate_limit_exceeded(asked) {
    const { rpm } = asked.key.limits;
    if (rpm === undefined) return false;
    asked.window = windowOf(asked);
    return asked.window.total >= rpm;
  },
  key_budget_exceeded: ({ key, holdMicro }) => budgetAvailableMicro(key) < holdMicro,
  insufficient_balance: ({ org: { accounts }, holdMicro }) =>
    accounts.fundedMicro - accounts.spentMicro < holdMicro,
  balance_held: ({ org, holdMicro }) => availableMicro(org.accounts) < holdMicro,
} satisfies Record<string, (asked: Asked) => boolean>;

type Refusal = keyof typeof CHECKS;
const IN_ORDER = Object.keys(CHECKS) as Refusal[];

/**
 * Every refusal of admission, in the order in which they are looked at. `request_known` (the id was dropped or used
 * before) and `key_unknown` come before all checks: without a new id and a key there is nothing to judge.
 */
export const ADMIT_REFUSALS = ["request_known", "key_unknown", ...IN_ORDER] as const;
export type AdmitRefusal = (typeof ADMIT_REFUSALS)[number];

/** The first refusal that stands against a request; undefined where none does. */
export function firstRefusal(asked: Asked): Refusal | undefined {
  for (const refusal of IN_ORDER) if (CHECKS[refusal](asked)) return refusal;
  return undefined;
}

function windowOf({ org, key, nowMs }: Asked): RateWindow {
  let window = org.windows.get(key.keyId);
  if (!window) org.windows.set(key.keyId, (window = emptyWindow()));
  advance(window, nowMs);
  return window;
}

/** How the rate limit stands, where its check was reached and there is one. */
export function rateOf({ key, window, nowMs }: Asked): { readonly rate?: RateFigures } {
  const limit = key.limits.rpm;
  if (!window || limit === undefined) return {};
  return {
    rate: {
      limit,
      remaining: Math.max(0, limit - window.total),
      freeInMs: freeInMs(window, limit, nowMs),
      resetMs: freeInMs(window, 1, nowMs),
    },
  };
}
