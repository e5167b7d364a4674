import { effectsOf, orgOf } from "#domain/accounts/effects.ts";
import {
  AccountsFault,
  availableMicro,
  emptyAccounts,
  type Accounts,
} from "#domain/accounts/accounts.ts";
import { applyEffect, type CellObserver } from "#domain/accounts/holds.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import type { AccountTaking, EventData } from "#domain/events/schemas.ts";
import { PICO_PER_MICRO } from "#domain/money.ts";
import { costOf, exactPico } from "#domain/prices.ts";
import type { Report } from "./found.ts";

/** What stands on one account, lot or budget by plain addition of the events. Micro. */
export interface Sum {
  fundedMicro: number;
  chargedMicro: number;
  heldMicro: number;
}

/** What a sum leaves to spend. */
export function leftMicro(sum: Sum): number {
  return sum.fundedMicro - sum.chargedMicro - sum.heldMicro;
}

/**
 * 3 LIAB: per organization available + held = top-ups − charged, and the accounts' own code comes to the same figures
 * as plain addition. 4 NOSPEND: nothing of a balance, lot or budget is ever below zero, after any event.
 * 15 PRICE: tokens × the prices in the event give the same micro (whether those are the right prices: pins.ts).
 * 16 ROUND: charges × 10^6 plus residuals are exactly the sum of tokens × prices.
 */
export function createMoneyCheck(report: Report, observe?: CellObserver) {
  // By organization, lot and key: added up here, apart from the accounts' own code.
  const orgs = new Map<string, Sum>();
  const lots = new Map<string, Sum>();
  const budgets = new Map<string, Sum>();
  // The same events through the accounts' own code.
  const accounts = new Map<string, Accounts>();
  const takings = new Map<string, readonly AccountTaking[]>();
  let chargedPico = 0n;
  let exact = 0n;

  function sumOf(sums: Map<string, Sum>, id: string): Sum {
    let sum = sums.get(id);
    if (!sum) sums.set(id, (sum = { fundedMicro: 0, chargedMicro: 0, heldMicro: 0 }));
    return sum;
  }

  function notBelowZero(account: string, sum: Sum): void {
    if (sum.heldMicro < 0) report("NOSPEND", `${account} holds ${sum.heldMicro}`);
    if (leftMicro(sum) < 0) report("NOSPEND", `${account} is overspent: ${leftMicro(sum)}`);
  }

  /** Puts a taking on its accounts (`sign` 1) or off them (-1), and charges it lot by lot. */
  function move(
    orgId: string,
    keyId: string,
    of: readonly AccountTaking[],
    sign: 1 | -1,
    chargedMicro: number,
  ): void {
    for (const taking of of) {
      const sum = taking.lots ? sumOf(orgs, orgId) : sumOf(budgets, keyId);
      sum.heldMicro += sign * taking.micro;
      sum.chargedMicro += chargedMicro;
      notBelowZero(taking.account, sum);
      let toEat = chargedMicro;
      for (const share of taking.lots ?? []) {
        const lot = sumOf(lots, share.lotId);
        const eaten = Math.min(toEat, share.micro);
        lot.heldMicro += sign * share.micro;
        lot.chargedMicro += eaten;
        toEat -= eaten;
        notBelowZero(share.lotId, lot);
      }
      if (taking.lots && toEat > 0) report("NOSPEND", `a charge passes the lots of ${orgId}`);
    }
  }

  /** Takes what a request has set aside off its accounts, charged or not, and puts what it has from now on there. */
  function replace(
    { requestId, orgId, keyId }: { requestId: string; orgId: string; keyId: string },
    next: readonly AccountTaking[],
    chargedMicro: number,
  ): void {
    move(orgId, keyId, takings.get(requestId) ?? [], -1, chargedMicro);
    move(orgId, keyId, next, 1, 0);
    if (next.length > 0) takings.set(requestId, next);
    else takings.delete(requestId);
  }

  function priced(data: EventData<"UsageRecorded.v1">): void {
    const { requestId, tokens, salePico, chargedMicro, overHoldMicro, residualPico } = data;
    const saleMicro = chargedMicro + overHoldMicro;
    const sale = costOf(tokens, salePico);
    if (sale.micro !== saleMicro || sale.residualPico !== residualPico)
      report("PRICE", `${requestId} costs ${sale.micro}, not ${chargedMicro} + ${overHoldMicro}`);
    if (costOf(tokens, data.costPico).micro !== data.providerCostMicro)
      report("PRICE", `${requestId} has another provider cost than its tokens`);
    chargedPico += BigInt(saleMicro) * PICO_PER_MICRO + BigInt(residualPico);
    exact += exactPico(tokens, salePico);
    if (chargedPico !== exact) report("ROUND", "charges and residuals are not the exact sum");
  }

  function add(event: RecordedEvent): void {
    if (event.type === "CreditToppedUp.v1") {
      sumOf(orgs, event.data.orgId).fundedMicro += event.data.amountMicro;
      sumOf(lots, event.data.topUpId).fundedMicro += event.data.amountMicro;
    } else if (event.type === "KeyIssued.v1") {
      const { keyId, budget } = event.data;
      if (budget) sumOf(budgets, keyId).fundedMicro = budget.micro;
    } else if (event.type === "RequestAdmitted.v1" || event.type === "HoldExtended.v1") {
      replace(event.data, event.data.accounts, 0);
    } else if (event.type === "UsageRecorded.v1") {
      priced(event.data);
      replace(event.data, [], event.data.chargedMicro);
    } else if (event.type === "RequestReleased.v1" || event.type === "RequestExpired.v1") {
      replace(event.data, [], 0);
    }
  }

  function fold(event: RecordedEvent, orgId: string): void {
    let folded = accounts.get(orgId);
    if (!folded) accounts.set(orgId, (folded = emptyAccounts(orgId)));
    try {
      for (const effect of effectsOf(event)) applyEffect(folded, effect, observe);
    } catch (error) {
      if (!(error instanceof AccountsFault)) throw error;
      return report("NOSPEND", `the accounts refuse ${event.type}: ${error.message}`);
    }
    const sum = sumOf(orgs, orgId);
    if (
      folded.fundedMicro !== sum.fundedMicro ||
      folded.spentMicro !== sum.chargedMicro ||
      folded.heldMicro !== sum.heldMicro ||
      availableMicro(folded) !== leftMicro(sum)
    )
      report("LIAB", `the accounts of ${orgId} are not what its events add up to`);
  }

  return {
    orgs,
    lots,
    budgets,
    accounts,
    take(event: RecordedEvent): void {
      const orgId = orgOf(event);
      if (orgId === undefined) return;
      add(event);
      fold(event, orgId);
    },
  };
}
