import type { AccountTaking } from "#domain/events/schemas.ts";
import { AccountsFault, emptyAccounts, type Accounts } from "#domain/accounts/accounts.ts";
import { effectsOf, orgOf } from "#domain/accounts/effects.ts";
import { applyEffect, openHold } from "#domain/accounts/holds.ts";
import type { Effect, Lot } from "#domain/accounts/types.ts";
import { journalEpoch, type RecordedEvent } from "#domain/events/events.ts";
import {
  settingFold,
  type Fold,
  type OnFault,
  type Projection,
  type Stored,
} from "./projection.ts";
import {
  ORG_TABLES,
  orgIn,
  rowOfNobody,
  type AccountsRow,
  type OrgTable,
} from "./accounts-rows.ts";
import type { ReadModelWrite } from "./rows.ts";

/**
 * The accounts of every organization, as the recorded events say: what an admission store is filled from. Rows are
 * small, so that a request that came and went touches its organization, its lots and its key, and no hold at all.
 *
 * An event that breaks a rule of the books closes its organization: the sentence stands in the organization's row, its
 * money and position stay where they were, and the others go on. Which holds are open is followed even then, because
 * each of them still ends by exactly one event.
 *
 * Beside the holds stand the writers whose journals are not sealed: in those a hold may still come. What is in neither
 * table is done for ever.
 */
export const accountsProjection: Projection<"accounts", AccountsRow> = {
  name: "accounts",
  version: 3,
  handles: new Set([
    "WriterStarted.v1",
    "JournalSealed.v1",
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
  open: (stored, onFault) => openFold(stored, onFault, ORGS_MAX),
};

type AccountsWrite = ReadModelWrite<AccountsRow>;

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
  /** Undefined until the first event here: of most organizations there is none between two starts. */
  rows: Record<OrgTable, Rows> | undefined;
}

function emptyFold(orgId: string): OrgFold {
  const accounts = emptyAccounts(orgId);
  return { accounts, lotsMade: 0, places: new Map(), changed: false, rows: undefined };
}

/** To be called first before an event is applied: what there is then is what the read model has. */
function rowsOf(org: OrgFold): Record<OrgTable, Rows> {
  const all = (stored: ReadonlyMap<string, unknown>): Rows => ({
    changed: new Set(),
    stored: new Set(stored.keys()),
  });
  const { lots, keys, holds } = org.accounts;
  return (org.rows ??= { lots: all(lots), keys: all(keys), holds: all(holds) });
}

/** So many organizations are kept in memory, the ones that an event came for last; the others are read again. */
const ORGS_MAX = 50_000;

/** As the projection's `open`; tests keep fewer organizations in memory. */
export function openFold(
  stored: Stored<AccountsRow>,
  onFault: OnFault,
  orgsMax: number,
): Fold<AccountsRow> {
  /** Those that events came for, the one for which it is longest ago first. */
  const orgs = new Map<string, OrgFold>();
  // A writer's row, from its start to its seal.
  const writers = settingFold<AccountsRow>({
    "WriterStarted.v1": ({ revision }) => {
      const writerEpoch = Number(revision);
      return { table: "writers", key: String(writerEpoch), value: { writerEpoch } };
    },
    "JournalSealed.v1": ({ stream }) => ({
      table: "writers",
      key: String(journalEpoch(stream)),
      value: null,
    }),
  });
  let changed: OrgFold[] = [];

  function foldOf(orgId: string, isNew: boolean): OrgFold {
    const org =
      orgs.get(orgId) ?? (isNew ? emptyFold(orgId) : load(orgId, stored(ORG_TABLES, orgId)));
    orgs.delete(orgId);
    orgs.set(orgId, org);
    return org;
  }

  /** What is not stored yet stays. */
  function forgetOldest(): void {
    for (const [orgId, org] of orgs) {
      if (orgs.size <= orgsMax || org.changed) return;
      orgs.delete(orgId);
    }
  }

  return {
    apply(event) {
      writers.apply(event);
      const orgId = orgOf(event);
      if (orgId === undefined) return;
      forgetOldest();
      const org = foldOf(orgId, event.type === "OrganizationCreated.v1");
      if (!org.changed) {
        org.changed = true;
        changed.push(org);
      }
      applyTo(org, event, onFault);
    },
    takeWrites() {
      const writes = writers.takeWrites();
      for (const org of changed) writeOrg(org, writes);
      changed = [];
      return writes;
    },
  };
}

function applyTo(org: OrgFold, event: RecordedEvent, onFault: OnFault): void {
  const { accounts } = org;
  rowsOf(org);
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
    accounts.holds.set(effect.requestId, openHold(effect));
  } else if (effect.effect === "hold_extended") {
    const hold = accounts.holds.get(effect.requestId);
    const { totalMicro, accounts: takings, revision } = effect;
    if (hold) Object.assign(hold, { totalMicro, accounts: takings, revision });
  } else if (effect.effect === "hold_closed") {
    accounts.holds.delete(effect.requestId);
  }
}

/** Notes, before an effect is applied, every row that it can change; the organization's own row always changes. */
function markChanged(org: OrgFold, effect: Effect): void {
  const { lots, keys, holds } = rowsOf(org);
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
      if (hold) markTakings(org, hold.keyId, [...hold.accounts, ...effect.accounts]);
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
  const rows = rowsOf(org);
  for (const { lots } of takings) {
    if (lots === undefined) rows.keys.changed.add(keyId);
    else for (const share of lots) rows.lots.changed.add(share.lotId);
  }
}

// ------------------------------------------------------------------------------------------------------- rows

/** Adds an organization's changed rows; afterwards nothing of it counts as changed. */
function writeOrg(org: OrgFold, writes: AccountsWrite[]): void {
  const { lots, keys, holds, fault, ...figures } = org.accounts;
  const value = {
    ...figures,
    position: String(figures.position),
    lotsMade: org.lotsMade,
    ...(fault !== undefined && { fault }),
  };
  writes.push({ table: "orgs", key: figures.orgId, value });
  org.changed = false;

  writeRows(org, "lots", writes, (lotId) => {
    const lot = lots.get(lotId);
    const place = org.places.get(lotId);
    if (lot && place !== undefined) return { place, ...lot };
    org.places.delete(lotId);
    return undefined;
  });
  writeRows(org, "keys", writes, (keyId) => {
    const key = keys.get(keyId);
    return key && { ...key };
  });
  writeRows(org, "holds", writes, (requestId) => {
    const hold = holds.get(requestId);
    if (!hold) return undefined;
    const { keyId, writerEpoch, totalMicro, accounts, revision } = hold;
    return { requestId, keyId, writerEpoch, totalMicro, revision, accounts };
  });
}

function writeRows<T extends OrgTable>(
  org: OrgFold,
  table: T,
  writes: AccountsWrite[],
  valueFor: (id: string) => Extract<AccountsRow, { table: T }>["value"] | undefined,
): void {
  const { changed, stored } = rowsOf(org)[table];
  for (const id of changed) {
    const value = valueFor(id);
    const key = `${org.accounts.orgId}/${id}`;
    if (value !== undefined) {
      stored.add(id);
      writes.push({ table, key, value } as AccountsWrite);
    } else if (stored.delete(id)) {
      writes.push({ table, key, value: null });
    }
  }
  changed.clear();
}

/** The organization that rows describe; where there are none nothing was heard of it yet. */
function load(orgId: string, rows: Iterable<AccountsRow>): OrgFold {
  const org = emptyFold(orgId);
  let [isNamed, isThere] = [false, false];
  for (const row of rows) {
    if (row.table === "writers" || orgIn(row.key) !== orgId) throw rowOfNobody(row.key);
    isThere = true;
    isNamed ||= row.table === "orgs";
    loadRow(org, row);
  }
  if (isThere && !isNamed) throw rowOfNobody(orgId);
  const { accounts, places } = org;
  const placeOf = (lot: Lot) => places.get(lot.lotId) ?? 0;
  const lots = [...accounts.lots.values()].sort((one, other) => placeOf(one) - placeOf(other));
  accounts.lots.clear();
  for (const lot of lots) accounts.lots.set(lot.lotId, lot);
  return org;
}

function loadRow(org: OrgFold, row: Exclude<AccountsRow, { table: "writers" }>): void {
  const { accounts } = org;
  if (row.table === "orgs") {
    const { lotsMade, position, fault, ...figures } = row.value;
    org.lotsMade = lotsMade;
    Object.assign(accounts, figures);
    accounts.position = position === "start" ? "start" : BigInt(position);
    accounts.fault = fault;
  } else if (row.table === "lots") {
    const { place, ...lot } = row.value;
    org.places.set(lot.lotId, place);
    accounts.lots.set(lot.lotId, lot);
  } else if (row.table === "keys") {
    accounts.keys.set(row.value.keyId, row.value);
  } else {
    const hold = row.value;
    accounts.holds.set(hold.requestId, { ...hold, state: "open" });
  }
}
