import type { AccountTaking } from "#domain/events/schemas.ts";
import {
  AccountsFault,
  emptyAccounts,
  toSnapshot,
  type Accounts,
} from "#domain/accounts/accounts.ts";
import { effectsOf, orgOf } from "#domain/accounts/effects.ts";
import { applyEffect } from "#domain/accounts/holds.ts";
import type { Effect, Hold, KeyAccount, Lot, OrgSnapshot } from "#domain/accounts/types.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import type { Fold, OnFault, Projection } from "./projection.ts";
import type { JsonValue, ReadModelRow, ReadModelWrite } from "./rows.ts";

/**
 * The accounts of every organization, as the recorded events say: what an admission store is filled from. Rows are
 * small, so that a request that came and went touches its organization, its lots and its key, and no hold at all.
 *
 * An event that breaks a rule of the books closes its organization: the sentence stands in the organization's row, its
 * money and position stay where they were, and the others go on. Which holds are open is followed even then, because
 * each of them still ends by exactly one event.
 */
export const accountsProjection: Projection = {
  name: "accounts",
  version: 1,
  handles: new Set([
    "OrganizationCreated.v1",
    "CreditToppedUp.v1",
    "KeyIssued.v1",
    "KeyRevoked.v1",
    "RequestAdmitted.v1",
    "HoldExtended.v1",
    "UsageRecorded.v1",
    "RequestReleased.v1",
    "RequestExpired.v1",
  ]),
  resumes: true,
  open: openFold,
};

type Table = "lots" | "keys" | "holds";

/** Which rows of one table changed, and which there are in the read model. */
interface Rows {
  readonly changed: Set<string>;
  readonly stored: Set<string>;
}

interface OrgFold {
  readonly accounts: Accounts;
  /** How many lots there ever were: a lot's place in the order in which money is taken. */
  lotsMade: number;
  readonly places: Map<string, number>;
  changed: boolean;
  readonly rows: Record<Table, Rows>;
}

function emptyOrg(orgId: string): OrgFold {
  const none = (): Rows => ({ changed: new Set(), stored: new Set() });
  return {
    accounts: emptyAccounts(orgId),
    lotsMade: 0,
    places: new Map(),
    changed: false,
    rows: { lots: none(), keys: none(), holds: none() },
  };
}

function openFold(rows: readonly ReadModelRow[], onFault: OnFault): Fold {
  const orgs = load(rows);
  let changed: OrgFold[] = [];
  return {
    apply(event) {
      const orgId = orgOf(event);
      if (orgId === undefined) return;
      let org = orgs.get(orgId);
      if (!org) orgs.set(orgId, (org = emptyOrg(orgId)));
      if (!org.changed) {
        org.changed = true;
        changed.push(org);
      }
      applyTo(org, event, onFault);
    },
    takeWrites() {
      const writes: ReadModelWrite[] = [];
      for (const org of changed) writeOrg(org, writes);
      changed = [];
      return writes;
    },
  };
}

function applyTo(org: OrgFold, event: RecordedEvent, onFault: OnFault): void {
  const { accounts } = org;
  for (const effect of effectsOf(event)) {
    markChanged(org, effect);
    if (accounts.fault === undefined) {
      try {
        applyEffect(accounts, effect);
        if (effect.effect === "credited") org.places.set(effect.lotId, org.lotsMade++);
        continue;
      } catch (error) {
        if (!(error instanceof AccountsFault)) throw error;
        accounts.fault = error.message;
        const { orgId } = accounts;
        onFault("accounts_fault", { orgId, position: String(event.position), rule: error.message });
      }
    }
    followHold(accounts, effect);
  }
  if (accounts.fault === undefined) accounts.position = event.position;
}

/** In an organization closed by a fault: which holds are open, without moving any money. */
function followHold(accounts: Accounts, effect: Effect): void {
  if (effect.effect === "hold_opened") {
    const { requestId, keyId, writerEpoch, totalMicro, accounts: takings, revision } = effect;
    accounts.holds.set(requestId, {
      requestId,
      keyId,
      writerEpoch,
      state: "open",
      totalMicro,
      accounts: takings,
      revision,
      forgetAtMs: 0,
    });
  } else if (effect.effect === "hold_extended") {
    const hold = accounts.holds.get(effect.requestId);
    if (!hold) return;
    hold.totalMicro = effect.totalMicro;
    hold.accounts = effect.accounts;
    hold.revision = effect.revision;
  } else if (effect.effect === "hold_closed") {
    accounts.holds.delete(effect.requestId);
  }
}

/** Notes, before an effect is applied, every row that it can change; the organization's own row always changes. */
function markChanged(org: OrgFold, effect: Effect): void {
  const { lots, keys, holds } = org.rows;
  switch (effect.effect) {
    case "created":
      return;
    case "credited":
      lots.changed.add(effect.lotId);
      return;
    case "key_issued":
    case "key_revoked":
      keys.changed.add(effect.keyId);
      return;
    case "hold_opened":
      markTakings(org, effect.keyId, effect.accounts);
      holds.changed.add(effect.requestId);
      return;
    case "hold_extended": {
      const hold = org.accounts.holds.get(effect.requestId);
      if (hold) markTakings(org, hold.keyId, hold.accounts);
      if (hold) markTakings(org, hold.keyId, effect.accounts);
      holds.changed.add(effect.requestId);
      return;
    }
    case "hold_closed": {
      const hold = org.accounts.holds.get(effect.requestId);
      // What a hold took is marked already if the hold itself is.
      if (hold && !holds.changed.has(effect.requestId)) markTakings(org, hold.keyId, hold.accounts);
      // A hold that no read model has seen is nothing to write: the set stays small in a large batch.
      if (holds.stored.has(effect.requestId)) holds.changed.add(effect.requestId);
      else holds.changed.delete(effect.requestId);
    }
  }
}

function markTakings(org: OrgFold, keyId: string, takings: readonly AccountTaking[]): void {
  for (const { lots } of takings) {
    if (lots === undefined) org.rows.keys.changed.add(keyId);
    else for (const share of lots) org.rows.lots.changed.add(share.lotId);
  }
}

// ------------------------------------------------------------------------------------------------------- rows

type OrgRow = Omit<OrgSnapshot, "lots" | "keys" | "holds"> & { readonly lotsMade: number };
type LotRow = Lot & { readonly orgId: string; readonly place: number };
type KeyRow = KeyAccount & { readonly orgId: string };
type HoldRow = Omit<Hold, "state" | "forgetAtMs"> & { readonly orgId: string };

/** Adds an organization's changed rows; afterwards nothing of it counts as changed. */
function writeOrg(org: OrgFold, writes: ReadModelWrite[]): void {
  const { orgId, position, created, fundedMicro, spentMicro, heldMicro, fault } = org.accounts;
  const value = {
    orgId,
    position: String(position),
    created,
    fundedMicro,
    spentMicro,
    heldMicro,
    lotsMade: org.lotsMade,
    ...(fault === undefined ? {} : { fault }),
  };
  writes.push({ table: "orgs", key: orgId, value });
  org.changed = false;

  const { lots, keys, holds } = org.accounts;
  writeRows(org, "lots", writes, (lotId) => {
    const lot = lots.get(lotId);
    const place = org.places.get(lotId);
    if (lot && place !== undefined) return { orgId, place, ...lot };
    org.places.delete(lotId);
    return undefined;
  });
  writeRows(org, "keys", writes, (keyId) => {
    const key = keys.get(keyId);
    return key && { orgId, ...key };
  });
  writeRows(org, "holds", writes, (requestId) => {
    const hold = holds.get(requestId);
    if (!hold) return undefined;
    const { keyId, writerEpoch, totalMicro, accounts, revision } = hold;
    return { orgId, requestId, keyId, writerEpoch, totalMicro, revision, accounts };
  });
}

function writeRows(
  org: OrgFold,
  table: Table,
  writes: ReadModelWrite[],
  valueOf: (id: string) => JsonValue | undefined,
): void {
  const { changed, stored } = org.rows[table];
  for (const id of changed) {
    const value = valueOf(id);
    const key = `${org.accounts.orgId}/${id}`;
    if (value !== undefined) {
      stored.add(id);
      writes.push({ table, key, value });
    } else if (stored.delete(id)) {
      writes.push({ table, key, value: null });
    }
  }
  changed.clear();
}

/** The values of one table. Rows of this version were written above, so they have the table's shape. */
function valuesOf<T>(rows: readonly ReadModelRow[], table: string): T[] {
  return rows.filter((row) => row.table === table).map((row) => row.value as unknown as T);
}

/** The organizations that rows describe. */
function load(rows: readonly ReadModelRow[]): Map<string, OrgFold> {
  const orgs = new Map<string, OrgFold>();
  for (const { lotsMade, position, fault, ...figures } of valuesOf<OrgRow>(rows, "orgs")) {
    const org = emptyOrg(figures.orgId);
    org.lotsMade = lotsMade;
    Object.assign(org.accounts, figures);
    org.accounts.position = position === "start" ? "start" : BigInt(position);
    org.accounts.fault = fault;
    orgs.set(figures.orgId, org);
  }
  const orgNamed = (orgId: string): OrgFold => {
    const org = orgs.get(orgId);
    if (!org) throw new Error(`rows of the accounts belong to ${orgId}, which has no row`);
    return org;
  };
  // Money is taken in the order of the lots' places; the order of the rows says nothing about it.
  const lots = valuesOf<LotRow>(rows, "lots").sort((one, other) => one.place - other.place);
  for (const { orgId, place, ...lot } of lots) {
    const org = orgNamed(orgId);
    org.places.set(lot.lotId, place);
    org.accounts.lots.set(lot.lotId, lot);
    org.rows.lots.stored.add(lot.lotId);
  }
  for (const { orgId, ...key } of valuesOf<KeyRow>(rows, "keys")) {
    const org = orgNamed(orgId);
    org.accounts.keys.set(key.keyId, key);
    org.rows.keys.stored.add(key.keyId);
  }
  for (const { orgId, ...hold } of valuesOf<HoldRow>(rows, "holds")) {
    const org = orgNamed(orgId);
    org.accounts.holds.set(hold.requestId, { ...hold, state: "open", forgetAtMs: 0 });
    org.rows.holds.stored.add(hold.requestId);
  }
  return orgs;
}

/** Every organization as `adopt` takes it. All holds in it are open and recorded. */
export function orgSnapshots(rows: readonly ReadModelRow[]): OrgSnapshot[] {
  return [...load(rows).values()].map((org) => toSnapshot(org.accounts));
}

/** A hold whose request has not ended, and where its journal says so last. */
export interface OpenHold {
  readonly orgId: string;
  readonly requestId: string;
  /** The revision, in its writer's journal, of its RequestAdmitted or of its newest HoldExtended. */
  readonly revision: number;
}

/** The open holds of one writer, the oldest in its journal first: those that its seal must expire. */
export function openHolds(rows: readonly ReadModelRow[], writerEpoch: number): OpenHold[] {
  return valuesOf<HoldRow>(rows, "holds")
    .filter((hold) => hold.writerEpoch === writerEpoch)
    .map(({ orgId, requestId, revision }) => ({ orgId, requestId, revision }))
    .sort((one, other) => one.revision - other.revision);
}
