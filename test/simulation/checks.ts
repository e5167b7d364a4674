import { availableMicro, type Accounts } from "#domain/accounts/accounts.ts";
import { pricesAt } from "#domain/catalogue/lookup.ts";
import { costOf, totalInput } from "#domain/prices.ts";
import type { Admission } from "#domain/accounts/admission.ts";
import { leftMicro, type Sum } from "#domain/invariants/money.ts";
import type { Audit } from "#domain/invariants.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import { orgIn, type AccountsRow } from "#projections/accounts-rows.ts";
import { accountsProjection } from "#projections/accounts.ts";
import type { Stored } from "#projections/projection.ts";
import { CATALOGUE, type Seen } from "./clients.ts";
import type { BookEntry } from "./upstream.ts";
import type { Watch } from "./watch.ts";

/**
 * 12 PESS: the admission store never shows more available than the events leave, on any balance, lot or budget. Money
 * comes in by its event first, goes out by the store first, and comes back (close) only behind its terminal event; so
 * this holds at every moment, for every organization that is adopted at all, under whichever owner money can be taken. An
 * older owner's late adoption may come in on a server that was flushed, and shows what was there then: no journal takes
 * from it, and no caller who names a newer owner reads it.
 */
export function checkPessimistic(admission: Admission, audit: Audit, watch: Watch): void {
  const { orgs, lots, budgets } = audit.money;
  const leftOf = (sum: Sum | undefined) => (sum ? leftMicro(sum) : 0);
  const oldestOwner = audit.holds.oldestOwner();
  for (const [orgId, { ownerEpoch, accounts }] of admission.orgs) {
    if (ownerEpoch < oldestOwner) continue;
    const shown = availableMicro(accounts);
    const left = leftOf(orgs.get(orgId));
    if (shown > left) watch.broken("PESS", `${orgId} shows ${shown} available of ${left}`);
    if (shown < 0) watch.broken("NOSPEND", `admission overspends ${orgId}: ${shown}`);
    let inLots = 0;
    for (const lot of accounts.lots.values()) {
      inLots += lot.availableMicro;
      if (lot.availableMicro < 0 || lot.heldMicro < 0)
        watch.broken("NOSPEND", `admission overspends ${lot.lotId}`);
      if (lot.availableMicro > leftOf(lots.get(lot.lotId)))
        watch.broken("PESS", `${lot.lotId} shows more than its events leave`);
    }
    if (inLots !== shown) watch.broken("LIAB", `the lots of ${orgId} add up to ${inLots}`);
    for (const key of accounts.keys.values()) {
      if (key.limits.budgetMicro === undefined) continue;
      const budget = key.limits.budgetMicro - key.spentMicro - key.heldMicro;
      if (budget < 0) watch.broken("NOSPEND", `admission overspends the budget of ${key.keyId}`);
      if (budget > leftOf(budgets.get(key.keyId)))
        watch.broken("PESS", `the budget of ${key.keyId} shows more than its events leave`);
    }
  }
}

/** 3 LIAB inside admission: what is held is the sum of the holds. Dearer, so not after every step. */
export function checkHeld(admission: Admission, watch: Watch): void {
  for (const [orgId, { accounts }] of admission.orgs) {
    let held = 0;
    for (const hold of accounts.holds.values()) held += hold.totalMicro;
    if (held !== accounts.heldMicro)
      watch.broken("LIAB", `${orgId} holds ${accounts.heldMicro}, its holds add up to ${held}`);
  }
}

/** 11 REPLAY: the rows of the accounts are the same for any batch size, and for a fold that is stopped and opened again. */
export function checkReplay(events: readonly RecordedEvent[], sizes: readonly number[]): string[] {
  const texts = sizes.map((size) => rowsText(events, size));
  return texts.every((text) => text === texts[0]) ? [] : [`batches of ${sizes.join(", ")} differ`];
}

function rowsText(events: readonly RecordedEvent[], size: number): string {
  // Rows are kept as text, so that no fold shares one with the next.
  const rows = new Map<string, string>();
  const { handles } = accountsProjection;
  const stored: Stored<AccountsRow> = (tables, key) =>
    [...rows.values()]
      .map((row) => JSON.parse(row) as AccountsRow)
      .filter((row) => tables.includes(row.table) && orgIn(row.key) === key);
  for (let at = 0; at < events.length; at += size) {
    const fold = accountsProjection.open(stored, () => {});
    for (const event of events.slice(at, at + size)) if (handles.has(event.type)) fold.apply(event);
    for (const write of fold.takeWrites()) {
      if (write.value === null) rows.delete(`${write.table}/${write.key}`);
      else rows.set(`${write.table}/${write.key}`, JSON.stringify(write));
    }
  }
  const sorted = [...rows].sort(([one], [other]) => (one < other ? -1 : 1));
  return JSON.stringify(sorted);
}

/** Nothing goes upstream whose hold is not durable. */
export function checkForwarded(audit: Audit, requestId: string, watch: Watch): void {
  const hold = audit.holds.holds.get(requestId);
  // Of a gateway that was stopped in between the hold may have expired; it learns that from its journal later.
  const isHeld = hold && (hold.ended === undefined || hold.ended === "RequestExpired.v1");
  if (!isHeld) watch.broken("ONCE", `${requestId} is sent upstream and no hold of it is durable`);
}

/**
 * Every call in the upstream's book has exactly one outcome: with the book's tokens where usage had arrived, whether its
 * client was still there or not; and where none had, with all that the upstream may bill, up to what was held.
 */
export function checkBook(book: readonly BookEntry[], seen: readonly Seen[], watch: Watch): void {
  const { holds } = watch.audit.holds;
  const usage = new Map<string, Extract<RecordedEvent, { type: "UsageRecorded.v1" }>>();
  const owed = new Map<string, number>();
  for (const event of watch.events) {
    if (event.type === "UsageRecorded.v1") usage.set(event.data.requestId, event);
    const { requestId, providerCostMicro = 0, unbilledMicro = 0 } = event.data as Owed;
    if (requestId !== undefined)
      owed.set(requestId, (owed.get(requestId) ?? 0) + providerCostMicro + unbilledMicro);
  }
  const booked = new Set<string>();
  for (const entry of book) {
    const { requestId } = entry;
    if (booked.has(requestId)) watch.broken("ONCE", `${requestId} reached the upstream twice`);
    booked.add(requestId);
    const hold = holds.get(requestId);
    if (!hold) watch.broken("CLOSE", `${requestId} is in the upstream's book only`);
    else if (hold.ended === undefined) watch.broken("CLOSE", `${requestId} has no outcome`);
    const recorded = usage.get(requestId);
    if (entry.usageSent && hold?.ended !== "RequestExpired.v1" && !recorded)
      watch.broken("PRICE", `${requestId} told its usage and is not charged`);
    if (entry.usageSent && recorded && recorded.data.billedBy !== "provider")
      watch.broken("PRICE", `${requestId} told its usage and is charged by an estimate`);
    const billedMicro = Math.min(costMicroOf(entry), hold?.costTotalMicro ?? 0);
    if ((owed.get(requestId) ?? 0) < billedMicro)
      watch.broken("PRICE", `${requestId} costs ${billedMicro}, and the books hide a part of it`);
    if (recorded?.data.billedBy === "provider") {
      const told = JSON.stringify(entriesOf(entry.tokens));
      if (told !== JSON.stringify(entriesOf(recorded.data.tokens)))
        watch.broken("PRICE", `${requestId} is recorded with other tokens than the book's ${told}`);
    }
  }
  for (const requestId of usage.keys())
    if (!booked.has(requestId)) watch.broken("PRICE", `${requestId} is charged and never called`);
  for (const one of seen) checkSeen(one, usage, watch);
}

/** What an event of a request says that we may owe its provider. */
interface Owed {
  readonly requestId?: string;
  readonly providerCostMicro?: number;
  readonly unbilledMicro?: number;
}

/** What the upstream charges for a call at the catalogue's cost prices. */
function costMicroOf({ model, tokens }: BookEntry): number {
  const price = CATALOGUE.bindings.get(model)?.[0]?.price;
  if (!price) return 0;
  return costOf(tokens, pricesAt(price, "default", totalInput(tokens)).costPico).micro;
}

function checkSeen(seen: Seen, usage: ReadonlyMap<string, RecordedEvent>, watch: Watch): void {
  if (!seen.complete) return;
  if (seen.requestId === undefined || !usage.has(seen.requestId))
    watch.broken("CLOSE", `${seen.requestId} was seen whole and is not recorded as used`);
}

function entriesOf(tokens: object): unknown {
  return Object.entries(tokens)
    .filter(([, count]) => count !== 0)
    .sort(([one], [other]) => (one < other ? -1 : 1));
}

/** What is still held anywhere once all is at rest. */
export function stillHeld(admission: Admission, accounts: ReadonlyMap<string, Accounts>): string[] {
  const found: string[] = [];
  for (const [orgId, folded] of accounts) {
    if (folded.heldMicro !== 0) found.push(`the events leave ${folded.heldMicro} held of ${orgId}`);
    const org = admission.orgs.get(orgId);
    if (!org) found.push(`${orgId} is not adopted`);
    else if (org.accounts.heldMicro !== 0)
      found.push(`admission holds ${org.accounts.heldMicro} of ${orgId}`);
    else if (availableMicro(org.accounts) !== availableMicro(folded))
      found.push(`admission and the events differ on ${orgId}`);
  }
  return found;
}
