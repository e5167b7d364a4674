import type {
  AccountFigures,
  AdmitRefused,
  RateFigures,
} from "#domain/accounts/admission-types.ts";
import { outputTokensThatFit } from "#domain/hold.ts";
import type { ApiError } from "#services/errors.ts";
import type { Offer } from "./offer.ts";

/** What the admission store refused, as the caller is told. */
export function refusalOf(refused: AdmitRefused, offer: Offer): ApiError {
  const { balance, budget } = refused;
  switch (refused.refusal) {
    case "request_known":
      return { code: "ledger_unavailable", retryAfterSeconds: 1 };
    case "key_unknown":
      return { code: "invalid_api_key" };
    case "key_revoked":
    case "key_expired":
      return { code: refused.refusal };
    case "rate_limit_exceeded": {
      const seconds = Math.max(1, Math.ceil((refused.rate?.freeInMs ?? 1000) / 1000));
      return {
        code: "rate_limit_exceeded",
        message: `Rate limit exceeded: ${refused.rate?.limit ?? 0} requests per minute`,
        extra: { retry_after: seconds },
        retryAfterSeconds: seconds,
      };
    }
    case "key_budget_exceeded":
      return {
        code: "key_budget_exceeded",
        extra: {
          ...(budget && budgetExtra(budget)),
          required_micro: offer.holdMicro,
          ...fits(offer, Math.min(budget?.availableMicro ?? 0, balance.availableMicro)),
        },
      };
    case "insufficient_balance":
    case "balance_held":
      return {
        code: refused.refusal,
        extra: { ...balanceExtra(balance, offer), ...fits(offer, balance.availableMicro) },
      };
  }
}

/**
 * The refusal of whoever has nothing available at all, whatever is asked; undefined when there is something. What would
 * be needed is not known, for the request was not read.
 */
export function refusalWithoutMeans({
  balance,
  budget,
}: Pick<AdmitRefused, "balance" | "budget">): ApiError | undefined {
  if (budget && budget.availableMicro <= 0)
    return { code: "key_budget_exceeded", extra: budgetExtra(budget) };
  if (balance.availableMicro > 0) return undefined;
  const isHeld = balance.fundedMicro > balance.spentMicro;
  const code = isHeld ? "balance_held" : "insufficient_balance";
  return { code, extra: balanceExtra(balance) };
}

/** A key's budget by the public names of its figures. */
export function budgetExtra(budget: AccountFigures) {
  return {
    budget_micro: budget.fundedMicro,
    spent_micro: budget.spentMicro,
    held_micro: budget.heldMicro,
    available_micro: budget.availableMicro,
  };
}

function balanceExtra(balance: AccountFigures, offer?: Offer) {
  return {
    balance_micro: balance.fundedMicro - balance.spentMicro,
    ...(offer ? { required_micro: offer.holdMicro } : {}),
    available_micro: balance.availableMicro,
    held_micro: balance.heldMicro,
  };
}

/** What of the request an amount would pay for, in words for the caller: `max_tokens ≤ 1900`. */
function fits({ ask, bounds, prices }: Offer, availableMicro: number): { would_fit?: string } {
  const tokens = outputTokensThatFit(availableMicro, bounds, prices.salePico) ?? 0;
  const each = Math.floor(tokens / ask.n) - ask.bounds.predictionTokensBound;
  return each > 0 ? { would_fit: `max_tokens ≤ ${each}` } : {};
}

/** The rate-limit headers of a key that has a limit; none for a key without. */
export function rateHeaders(rate: RateFigures | undefined): Record<string, string> {
  if (!rate) return {};
  return {
    "x-ratelimit-limit-requests": String(rate.limit),
    "x-ratelimit-remaining-requests": String(rate.remaining),
    "x-ratelimit-reset-requests": `${Math.ceil(rate.resetMs / 1000)}s`,
  };
}
