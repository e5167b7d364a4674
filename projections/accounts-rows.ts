import type { Hold, KeyAccount, Lot, OrgSnapshot } from "#domain/accounts/types.ts";
import { unpackRows, type PackedRows, type ReadModelRow } from "./rows.ts";

/** The rows of the accounts: what stands in each table, and what is read out of them. */

/** The tables whose rows belong to an organization's own; their keys are its id and theirs. */
export type Table = "lots" | "keys" | "holds";
export type OrgRow = Omit<OrgSnapshot, "lots" | "keys" | "holds"> & { readonly lotsMade: number };
type LotRow = Lot & { readonly place: number };
type HoldRow = Omit<Hold, "state" | "forgetAtMs">;
interface Values {
  readonly orgs: OrgRow;
  readonly lots: LotRow;
  readonly keys: KeyAccount;
  readonly holds: HoldRow;
  readonly writers: { readonly writerEpoch: number };
}

/** The value of a row of this table. Rows of this version were written by the projection, so they have its shape. */
export function valueOf<T extends keyof Values>(_table: T, { value }: ReadModelRow): Values[T] {
  return value as unknown as Values[T];
}

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
export function* orgSnapshots(packed: PackedRows): Generator<OrgSnapshot> {
  const lotsOf = rowsByOrg(packed, "lots");
  const keysOf = rowsByOrg(packed, "keys");
  const holdsOf = rowsByOrg(packed, "holds");
  for (const row of unpackRows(packed.filter(({ table }) => table === "orgs"))) {
    const { lotsMade: _, ...figures } = valueOf("orgs", row);
    const { orgId } = figures;
    yield {
      ...figures,
      // Money is taken in the order of the lots' places; the order of the rows says nothing about it.
      lots: lotsOf(orgId)
        .sort((one, other) => one.place - other.place)
        .map(({ place: _place, ...lot }) => lot),
      keys: keysOf(orgId),
      holds: holdsOf(orgId).map((hold) => ({
        ...hold,
        state: "open",
        forgetAtMs: 0,
      })),
    };
  }
  for (const left of [lotsOf, keysOf, holdsOf]) left(undefined);
}

/**
 * Gives the rows of one organization after the other, which must be asked for in the order of their keys; at the end
 * undefined is asked for. Throws when it meets the end and rows were left over.
 */
function rowsByOrg<T extends Table>(packed: PackedRows, table: T) {
  const rows = unpackRows(packed.filter((piece) => piece.table === table));
  let next = rows.next();
  return (orgId: string | undefined): Values[T][] => {
    const found: Values[T][] = [];
    while (next.value && orgIn(next.value.key) === orgId) {
      found.push(valueOf(table, next.value));
      next = rows.next();
    }
    if (orgId === undefined && next.value) throw rowOfNobody(next.value.key);
    return found;
  };
}

/** A hold whose request has not ended, and where its journal says so last. */
export interface OpenHold {
  readonly orgId: string;
  readonly requestId: string;
  /** The revision, in its writer's journal, of its RequestAdmitted or of its newest HoldExtended. */
  readonly revision: number;
}

/** The tables that {@link openHolds} and {@link unsealedWriters} look into. */
export const WRITER_TABLES = ["holds", "writers"] as const;

/** The open holds by writer, each writer's oldest in its journal first: those that its seal must expire. */
export function openHolds(packed: PackedRows): Map<number, OpenHold[]> {
  const byWriter = new Map<number, OpenHold[]>();
  for (const row of unpackRows(packed)) {
    if (row.table !== "holds") continue;
    const { writerEpoch, requestId, revision } = valueOf("holds", row);
    const holds = byWriter.get(writerEpoch) ?? [];
    byWriter.set(writerEpoch, holds);
    holds.push({ orgId: orgIn(row.key), requestId, revision });
  }
  for (const holds of byWriter.values()) holds.sort((one, other) => one.revision - other.revision);
  return byWriter;
}

/** The writers whose journals are not sealed, oldest first. */
export function unsealedWriters(packed: PackedRows): number[] {
  const writers: number[] = [];
  for (const row of unpackRows(packed))
    if (row.table === "writers") writers.push(valueOf("writers", row).writerEpoch);
  return writers.sort((one, other) => one - other);
}
