import type { OrganizationFacts, TopUpFacts } from "#domain/organization.ts";
import { formatDollars } from "#domain/money.ts";
import type { AccountFigures } from "#domain/accounts/admission-types.ts";
import type { IssuedKeyRow } from "#projections/management.ts";
import { eachCount } from "./bodies.ts";

/** The objects of the control API. Amounts come twice: `…_micro` is the number that counts, `…_dollars` is to be read. */

/** A setting as the process runs with it. Of a secret the value says no more than that there is one. */
export interface SettingView {
  readonly name: string;
  readonly value: string | null;
  readonly source: string;
}

export type OrganizationView = ReturnType<typeof organizationView>;
export function organizationView(
  facts: Pick<OrganizationFacts, "orgId" | "name" | "homeRegion" | "createdAtMs">,
) {
  return {
    id: facts.orgId,
    object: "organization",
    name: facts.name,
    home_region: facts.homeRegion,
    created_at: isoTime(facts.createdAtMs),
  };
}

export type CreditView = ReturnType<typeof creditView>;
export function creditView(orgId: string, facts: TopUpFacts) {
  return {
    id: facts.topUpId,
    object: "credit",
    organization: orgId,
    amount_micro: facts.amountMicro,
    amount_dollars: formatDollars(facts.amountMicro),
    source: "manual",
    pot: "paid",
    created_at: isoTime(facts.createdAtMs),
  };
}

export type KeyView = ReturnType<typeof keyView>;
export function keyView(
  facts: Omit<IssuedKeyRow, "position" | "tokenHash"> & { readonly revokedAtMs: number | null },
) {
  const { limits, revokedAtMs } = facts;
  const { budgetMicro = null, expiresAtMs } = limits;
  return {
    id: facts.keyId,
    object: "key",
    organization: facts.orgId,
    name: facts.name === "" ? null : facts.name,
    scope: facts.scope,
    home_region: facts.homeRegion,
    display_prefix: facts.displayPrefix,
    ...eachCount(({ limit }) => limits[limit] ?? null),
    budget_micro: budgetMicro,
    budget_dollars: budgetMicro === null ? null : formatDollars(budgetMicro),
    expires_at: expiresAtMs === undefined ? null : isoTime(expiresAtMs),
    created_at: isoTime(facts.issuedAtMs),
    revoked_at: revokedAtMs === null ? null : isoTime(revokedAtMs),
  };
}

export type BalanceView = ReturnType<typeof balanceView>;
/** Credits are what was funded less what was spent; what running requests hold is still part of them. */
export function balanceView(orgId: string, balance: AccountFigures, asOfMs: number) {
  const creditsMicro = balance.fundedMicro - balance.spentMicro;
  return {
    object: "balance",
    organization: orgId,
    credits_micro: creditsMicro,
    credits_dollars: formatDollars(creditsMicro),
    held_micro: balance.heldMicro,
    held_dollars: formatDollars(balance.heldMicro),
    available_micro: balance.availableMicro,
    available_dollars: formatDollars(balance.availableMicro),
    funded_micro: balance.fundedMicro,
    funded_dollars: formatDollars(balance.fundedMicro),
    spent_micro: balance.spentMicro,
    spent_dollars: formatDollars(balance.spentMicro),
    leased: {},
    as_of: isoTime(asOfMs),
  };
}

export type ListView<T extends { readonly id: string }> = ReturnType<typeof listView<T>>;
export function listView<T extends { readonly id: string }>(data: readonly T[], has_more: boolean) {
  const [first_id = null, last_id = null] = [data[0]?.id, data.at(-1)?.id];
  return { object: "list", data, first_id, last_id, has_more };
}

/** Which part of a list is asked for. */
export interface Page {
  readonly limit: number;
  /** The id that the last page ended with. */
  readonly after?: string;
  /** `desc`: the newest first. */
  readonly order: "asc" | "desc";
}

function isoTime(atMs: number): string {
  return new Date(atMs).toISOString();
}
