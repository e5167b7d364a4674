import { describe, expect, test } from "vitest";
import { emptyAccounts, toSnapshot, type Accounts } from "#domain/accounts/accounts.ts";
import { effectsOf, orgOf } from "#domain/accounts/effects.ts";
import { applyEffect } from "#domain/accounts/holds.ts";
import type { OrgSnapshot } from "#domain/accounts/types.ts";
import { journalEpoch, newEvent, streams, type RecordedEvent } from "#domain/events/events.ts";
import {
  id,
  org,
  other,
  key,
  lot,
  metadata,
  topUp,
  issued,
  common,
  admitted,
  used,
  expired,
} from "#test/samples/account-appends.ts";
import { histories, recorded, type Append } from "#test/samples/histories.ts";
import { packRows } from "#test/samples/pack-rows.ts";
import { openHolds, orgSnapshots, unsealedWriters, type AccountsRow } from "./accounts-rows.ts";
import { accountsProjection, openFold } from "./accounts.ts";
import type { OnFault, Stored } from "./projection.ts";
import type { ReadModelWrite } from "./rows.ts";

/** Rows as a read model keeps them: by table and key, values as JSON. */
function store(
  rows: Map<string, AccountsRow>,
  writes: readonly ReadModelWrite<AccountsRow>[],
): void {
  for (const write of writes) {
    const place = `${write.table}\n${write.key}`;
    if (write.value === null) rows.delete(place);
    else rows.set(place, JSON.parse(JSON.stringify(write)) as AccountsRow);
  }
}

const rowsIn = (rows: Map<string, AccountsRow>) =>
  [...rows].sort(([one], [two]) => (one < two ? -1 : 1)).map(([, row]) => row);

/** As a fold reads them again. */
const storedIn =
  (rows: Map<string, AccountsRow>): Stored<AccountsRow> =>
  (tables, key) =>
    rowsIn(rows).filter(
      (row) => tables.includes(row.table) && (row.key === key || row.key.startsWith(`${key}/`)),
    );

/** Folds events in batches of `size`, with a restart after every `restart` batches, and so many organizations in memory. */
function folded(events: readonly RecordedEvent[], size: number, restart = Infinity, orgsMax = 100) {
  const rows = new Map<string, AccountsRow>();
  const faults: string[] = [];
  let reads = 0;
  const stored: Stored<AccountsRow> = (tables, key) => {
    reads += 1;
    return storedIn(rows)(tables, key);
  };
  const onFault: OnFault = (what, facts) =>
    faults.push(`${what} ${facts["orgId"]} ${facts["position"]}: ${facts["rule"]}`);
  const open = () => openFold(stored, onFault, orgsMax);
  let fold = open();
  let writes = 0;
  for (let at = 0, batch = 1; at < events.length; at += size, batch += 1) {
    for (const event of events.slice(at, at + size))
      if (accountsProjection.handles.has(event.type)) fold.apply(event);
    const taken = fold.takeWrites();
    writes += taken.length;
    store(rows, taken);
    if (batch % restart === 0) fold = open();
  }
  return { rows: rowsIn(rows), faults, writes, reads };
}

/** The same accounts by the domain's own functions, without rows. */
function byDomain(events: readonly RecordedEvent[]): OrgSnapshot[] {
  const orgs = new Map<string, Accounts>();
  for (const event of events) {
    const orgId = orgOf(event);
    const effects = effectsOf(event);
    if (orgId === undefined || effects.length === 0) continue;
    const accounts = orgs.get(orgId) ?? emptyAccounts(orgId);
    orgs.set(orgId, accounts);
    for (const effect of effects) applyEffect(accounts, effect);
    accounts.position = event.position;
  }
  return [...orgs.values()].map(toSnapshot).map(ordered).sort(byOrg);
}

const byOrg = (one: OrgSnapshot, two: OrgSnapshot) => (one.orgId < two.orgId ? -1 : 1);

/** Keys and holds have no order that matters; lots do, and stay as they are. */
function ordered(snapshot: OrgSnapshot): OrgSnapshot {
  return {
    ...snapshot,
    keys: snapshot.keys.toSorted((one, two) => (one.keyId < two.keyId ? -1 : 1)),
    holds: snapshot.holds.toSorted((one, two) => (one.requestId < two.requestId ? -1 : 1)),
  };
}

const events = recorded(histories(11, 3_000));

test("handles every event that moves an account or begins or ends a journal, and no other", () => {
  const journals = new Set<string>(["WriterStarted.v1", "JournalSealed.v1"]);
  for (const { type } of events)
    if (journals.has(type)) expect(accountsProjection.handles.has(type)).toBe(true);
  for (const event of events)
    if (!journals.has(event.type))
      expect(accountsProjection.handles.has(event.type)).toBe(effectsOf(event).length > 0);
  expect(new Set(events.map((event) => event.type)).size).toBeGreaterThan(10);
});

test("the rows hold what the domain's accounts hold", () => {
  const { rows, faults } = folded(events, 100);
  expect(faults).toEqual([]);
  expect([...orgSnapshots(packRows(rows))].map(ordered).sort(byOrg)).toEqual(byDomain(events));
});

test.for([
  [1, 1, 100],
  [7, 3, 100],
  [100, 1, 100],
  [1_000, Infinity, 100],
  [1, Infinity, 1],
  [10, Infinity, 2],
  [50, 9, 3],
] as const)(
  "batches of %s with a restart every %s and %s organizations in memory give the same rows",
  ([size, restart, orgsMax]) => {
    const one = folded(events, events.length);
    const { rows, reads } = folded(events, size, restart, orgsMax);
    expect(JSON.stringify(rows)).toBe(JSON.stringify(one.rows));
    // Nothing is read of an organization that is created, nor of one that is in memory.
    expect(one.reads).toBe(0);
    expect(reads > 0).toBe(restart !== Infinity || orgsMax < 100);
  },
);

test("rows that belong to no organization stop the fold at the first event for it", () => {
  const value = { place: 0, lotId: lot, pot: "paid", fundedMicro: 5, availableMicro: 5 } as const;
  const row = { table: "lots", key: `${org}/${lot}`, value: { ...value, heldMicro: 0 } } as const;
  const fold = openFold(
    () => [row],
    () => undefined,
    100,
  );
  const [event] = recorded([topUp(org, id("lot", 2), 5)]);
  expect(() => event && fold.apply(event)).toThrow(`belong to ${org}, which has no row`);
});

test("openHolds lists exactly the holds of a writer that no event has ended, oldest first", () => {
  const { rows } = folded(events, 100);
  for (const epoch of [0, 1, 2]) {
    const open = new Map<string, number>();
    for (const event of events) {
      if (journalEpoch(event.stream) !== epoch) continue;
      if (event.type === "RequestAdmitted.v1" || event.type === "HoldExtended.v1")
        open.set(event.data.requestId, Number(event.revision));
      else if ("requestId" in event.data) open.delete(event.data.requestId);
    }
    expect(open.size).toBeGreaterThan(0);
    const expected = [...open].sort(([, one], [, two]) => one - two);
    expect(
      openHolds(packRows(rows))
        .get(epoch)
        ?.map((hold) => [hold.requestId, hold.revision]),
    ).toEqual(expected);
  }
});

test("unsealedWriters lists the writers from their start to their seal, oldest first", () => {
  const stream = streams.writers("us");
  const history: Append[] = Array.from({ length: 12 }, (_, at) => ({
    stream,
    events: [
      newEvent(
        stream,
        `${at}`,
        "WriterStarted.v1",
        { process: "gateway", instance: `${at}` },
        metadata,
      ),
    ],
  }));
  for (const epoch of [0, 3, 10]) {
    const journal = streams.journal("us", epoch);
    const sealed = newEvent(journal, "sealed", "JournalSealed.v1", { by: "writer" }, metadata);
    const fenced = newEvent(journal, "fenced", "OwnerFenced.v1", { ownerEpoch: 9 }, metadata);
    history.push({ stream: journal, events: [sealed, fenced] });
  }
  for (const [size, restart] of [
    [100, Infinity],
    [1, 1],
    [5, 2],
  ] as const)
    expect(unsealedWriters(packRows(folded(recorded(history), size, restart).rows))).toEqual([
      1, 2, 4, 5, 6, 7, 8, 9, 11,
    ]);
});

describe("writes", () => {
  const before = [topUp(org, lot, 1_000), issued(org, key)];
  const [request, second] = [id("req", 1), id("req", 2)];

  test("a hold that opened and ended within a batch writes its organization and its lot, nothing else", () => {
    const fold = accountsProjection.open(
      () => [],
      () => undefined,
    );
    const all = recorded([...before, admitted(request, 300), expired(request, 300)]);
    for (const event of all.slice(0, 2)) fold.apply(event);
    expect(fold.takeWrites().map((write) => write.table)).toEqual(["orgs", "lots", "keys"]);
    for (const event of all.slice(2)) fold.apply(event);
    expect(fold.takeWrites().map((write) => [write.table, write.value === null])).toEqual([
      ["orgs", false],
      ["lots", false],
    ]);
    expect(fold.takeWrites()).toEqual([]);
  });

  test("a lot that was paid in and spent within a batch is not written; one that was stored is removed", () => {
    const spending = [...before, admitted(request, 1_000), used(request, 1_000)];
    const lotsOf = (batches: readonly (readonly RecordedEvent[])[]) => {
      const fold = accountsProjection.open(
        () => [],
        () => undefined,
      );
      const writes = batches.flatMap((batch) => {
        for (const event of batch) fold.apply(event);
        return fold.takeWrites();
      });
      return writes.filter((write) => write.table === "lots").map((write) => write.value);
    };
    const all = recorded(spending);
    expect(lotsOf([all])).toEqual([]);
    const paidIn = { place: 0, lotId: lot, pot: "paid", fundedMicro: 1_000 };
    expect(lotsOf([all.slice(0, 2), all.slice(2)])).toEqual([
      { ...paidIn, availableMicro: 1_000, heldMicro: 0 },
      null,
    ]);
  });

  test("a hold that a read model has seen is removed when it ends, also after a restart", () => {
    const all = recorded([
      ...before,
      admitted(request, 300),
      admitted(second, 1),
      expired(request, 300),
    ]);
    const rows = new Map<string, AccountsRow>();
    const fold = accountsProjection.open(
      () => [],
      () => undefined,
    );
    for (const event of all.slice(0, 4)) fold.apply(event);
    store(rows, fold.takeWrites());
    const again = accountsProjection.open(storedIn(rows), () => undefined);
    for (const event of all.slice(4)) again.apply(event);
    const writes = again.takeWrites();
    expect(writes.filter((write) => write.table === "holds")).toEqual([
      { table: "holds", key: `${org}/${request}`, value: null },
    ]);
  });

  test("an extension that rests on other lots gives the first ones back, in their rows too", () => {
    const next = id("lot", 2);
    const data = {
      ...common(request, 400),
      accounts: [
        {
          account: `${org}/balance`,
          period: "total",
          micro: 400,
          lots: [{ lotId: next, pot: "paid" as const, micro: 400 }],
        },
      ],
      holdTotalMicro: 400,
      holdCostTotalMicro: 400,
    };
    const extended = newEvent("journal-us-4", "x", "HoldExtended.v1", data, metadata);
    const all = recorded([
      ...before,
      topUp(org, next, 1_000),
      admitted(request, 300),
      { stream: "journal-us-4", events: [extended] },
    ]);
    const [snapshot] = orgSnapshots(packRows(folded(all, 1, 1).rows));
    expect(snapshot?.lots.map((one) => [one.lotId, one.availableMicro, one.heldMicro])).toEqual([
      [lot, 1_000, 0],
      [next, 600, 400],
    ]);
    expect(snapshot?.holds).toMatchObject([{ requestId: request, totalMicro: 400, revision: 1 }]);
  });

  test("lots keep the order in which they were paid in, whatever their ids", () => {
    const late = id("lot", 0);
    const { rows } = folded(recorded([...before, topUp(org, late, 5)]), 1, 1);
    expect([...orgSnapshots(packRows(rows))][0]?.lots.map((one) => one.lotId)).toEqual([lot, late]);
  });
});

describe("an event that breaks a rule of the books", () => {
  const requests = [1, 2, 3].map((number) => id("req", number)) as [string, string, string];
  const history = recorded([
    topUp(org, lot, 1_000),
    issued(org, key),
    topUp(other, id("lot", 2), 50),
    admitted(requests[0], 300),
    admitted(requests[1], 900),
    topUp(other, id("lot", 3), 7),
    admitted(requests[2], 10),
    expired(requests[0], 300),
  ]);

  test("closes its organization, is told once, and leaves the others alone", () => {
    const { rows, faults } = folded(history, 2, 1);
    expect(faults).toEqual([`accounts_fault ${org} 5: the balance is never overspent`]);
    const [closed, open] = [...orgSnapshots(packRows(rows))];
    expect(closed).toMatchObject({
      orgId: org,
      fault: "the balance is never overspent",
      position: "4",
    });
    expect(open).toMatchObject({ orgId: other, fundedMicro: 57, position: "6" });
    expect(open).not.toHaveProperty("fault");
  });

  test("still follows which holds are open, so that each can be ended once", () => {
    expect(
      openHolds(packRows(folded(history, 3, 1).rows))
        .get(4)
        ?.map((hold) => hold.requestId),
    ).toEqual([requests[1], requests[2]]);
  });

  test("gives the same rows for any batch size", () => {
    const rows = JSON.stringify(folded(history, 100).rows);
    for (const size of [1, 2, 3, 5])
      expect(JSON.stringify(folded(history, size, 1).rows)).toBe(rows);
  });
});
