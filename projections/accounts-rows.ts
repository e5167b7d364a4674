import type { Hold, KeyAccount, Lot, OrgSnapshot } from "#domain/accounts/types.ts";
import { unpackRows, type PackedRows, type ReadModelRow } from "./rows.ts";

/** The rows of the accounts: what stands in each table, and what is read out of them. */

/** The tables whose rows belong to an organization's own; their keys are its id and theirs. */
export type OrgTable = "lots" | "keys" | "holds";
/** All that is said of organizations; the rows of one of them begin with its row in `orgs`. */
export const ORG_TABLES = ["orgs", "lots", "keys", "holds"] as const;
/** The members alone: of an interface the compiler does not know that it is JSON. */
type Plain<T> = { readonly [Member in keyof T]: T[Member] };
/** A hold whose request has not ended. */
export type OpenHold = Plain<Omit<Hold, "state">>;
export type AccountsRow =
  | ReadModelRow<"orgs", Plain<Omit<OrgSnapshot, OrgTable> & { readonly lotsMade: number }>>
  | ReadModelRow<"lots", Plain<Lot & { readonly place: number }>>
  | ReadModelRow<"keys", Plain<KeyAccount>>
  | ReadModelRow<"holds", OpenHold>
  | ReadModelRow<"writers", { readonly writerEpoch: number }>;
type AccountsRows = PackedRows<AccountsRow>;

/** The organization that a row belongs to: its key is the organization's id, or begins with it. */
export function orgIn(key: string): string {
  const end = key.indexOf("/");
  return end < 0 ? key : key.slice(0, end);
}

export function rowOfNobody(key: string): Error {
  return new Error(`rows of the accounts belong to ${key}, which has no row`);
}

/**
 * Every organization as `adopt` takes it, one after the other, so that of many hardly more than one is there at a time.
 * All holds in it are open and recorded.
 */
export function* orgSnapshots(packed: AccountsRows): Generator<OrgSnapshot> {
  const lotsOf = byOrg(unpackRows(packed, "lots"));
  const keysOf = byOrg(unpackRows(packed, "keys"));
  const holdsOf = byOrg(unpackRows(packed, "holds"));
  for (const { value } of unpackRows(packed, "orgs")) {
    const { lotsMade: _, ...figures } = value;
    const { orgId } = figures;
    yield {
      ...figures,
      // Money is taken in the order of the lots' places; the order of the rows says nothing about it.
      lots: lotsOf(orgId)
        .sort((one, other) => one.place - other.place)
        .map(({ place: _place, ...lot }) => lot),
      keys: keysOf(orgId),
      holds: holdsOf(orgId).map((hold) => ({ ...hold, state: "open" })),
    };
  }
  for (const left of [lotsOf, keysOf, holdsOf]) left(undefined);
}

/**
 * Gives the rows of one organization after the other, which must be asked for in the order of their keys; at the end
 * undefined is asked for. Throws when it meets the end and rows were left over.
 */
function byOrg<Row extends ReadModelRow<OrgTable>>(rows: Iterator<Row, undefined>) {
  let next = rows.next();
  return (orgId: string | undefined): Row["value"][] => {
    const found: Row["value"][] = [];
    while (next.value && orgIn(next.value.key) === orgId) {
      found.push(next.value.value);
      next = rows.next();
    }
    if (orgId === undefined && next.value) throw rowOfNobody(next.value.key);
    return found;
  };
}

/** The tables that {@link openHolds} and {@link unsealedWriters} look into. */
export const WRITER_TABLES = ["holds", "writers"] as const;

/** The open holds by writer, each writer's oldest in its journal first: those that its seal must expire. */
export function openHolds(packed: AccountsRows): Map<number, OpenHold[]> {
  const holds = unpackRows(packed, "holds").map(({ value }) => value);
  const byWriter = Map.groupBy(holds, ({ writerEpoch }) => writerEpoch);
  for (const open of byWriter.values()) open.sort((one, other) => one.revision - other.revision);
  return byWriter;
}

/** The writers whose journals are not sealed, oldest first. */
export function unsealedWriters(packed: AccountsRows): number[] {
  const writers = unpackRows(packed, "writers").map(({ value }) => value.writerEpoch);
  return [...writers].sort((one, other) => one - other);
}
