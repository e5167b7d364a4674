import { describe, expect, test } from "vitest";
import type { AccountTaking } from "#domain/events/schemas.ts";
import {
  accountsOf,
  expectTrueBooks,
  funded,
  FUNDED,
  itemsOf,
  KEY,
  ORG,
  START_MS,
} from "#test/worlds/accounts-world.ts";
import { admit, apply, close, drop, extend, figures, sweep, type Admission } from "./admission.ts";
import { UNSPENT_LOTS_MAX } from "#domain/organization.ts";
import { HOLD_TABLE, SHARES_MAX, type HoldVerb } from "./holds.ts";
import type { Effect, HoldState } from "./types.ts";
import { HOLD_CELLS } from "#test/samples/hold-cells.ts";

/** A hold of 120 (the whole first lot and 20 of the second), charged with 30 where it is charged. */
const requestId = "req_1";
const under = { orgId: ORG, ownerEpoch: 1, requestId };
const HOLD = 120;
const CHARGE = 30;

const takings = (second: number): AccountTaking[] => [
  {
    account: `${ORG}/balance`,
    period: "total",
    micro: 100 + second,
    lots: [
      { lotId: "lot_1", pot: "paid", micro: 100 },
      { lotId: "lot_2", pot: "paid", micro: second },
    ],
  },
];
const hold = { requestId, keyId: KEY, writerEpoch: 7, revision: 0 };
const opened: Effect = { ...hold, effect: "hold_opened", totalMicro: HOLD, accounts: takings(20) };
const extended: Effect = {
  ...hold,
  effect: "hold_extended",
  revision: 1,
  totalMicro: 125,
  accounts: takings(25),
};
const closed: Effect = { effect: "hold_closed", requestId, chargedMicro: CHARGE };

function carry(admission: Admission, effect: Effect) {
  const items = itemsOf([[effect]], accountsOf(admission).position);
  return apply(admission, { orgId: ORG, ownerEpoch: 1, items });
}

const admits = (admission: Admission, holdMicro: number) =>
  admit(admission, { ...under, writerEpoch: 7, keyId: KEY, holdMicro }, START_MS);

const REACH: Record<HoldState, (admission: Admission) => unknown> = {
  absent: () => undefined,
  provisional: (admission) => admits(admission, HOLD),
  open: (admission) => [admits(admission, HOLD), carry(admission, opened)],
  closed: (admission) => [
    admits(admission, HOLD),
    close(admission, { ...under, chargedMicro: CHARGE }),
  ],
  tombstone: (admission) => [admits(admission, HOLD), drop(admission, under, START_MS)],
};

const SAY: Record<HoldVerb, (admission: Admission) => { outcome: string }> = {
  admit: (admission) => admits(admission, 10),
  extend: (admission) => extend(admission, { ...under, totalMicro: 130 }),
  drop: (admission) => drop(admission, under, START_MS),
  close: (admission) => close(admission, { ...under, chargedMicro: CHARGE }),
  apply_open: (admission) => carry(admission, opened),
  apply_extended: (admission) => carry(admission, extended),
  apply_close: (admission) => carry(admission, closed),
  sweep: (admission) => sweep(admission, { orgId: ORG, ownerEpoch: 1, writerEpoch: 7 }),
};

describe.each(HOLD_CELLS)("a hold that is %s meets %s", (state, verb, cell) => {
  test(cell === "fault" ? "and closes the organization" : `and is ${cell[1]}`, () => {
    const told: string[] = [];
    const observe = (from: HoldState, by: HoldVerb) => told.push(`${from} ${by}`);
    const { admission, faults } = funded({ orgs: [ORG, "org_B"], observe });
    REACH[state](admission);
    const accounts = accountsOf(admission);
    const before = { held: accounts.heldMicro, spent: accounts.spentMicro };
    const answer = SAY[verb](admission);
    // A sweep goes through the holds that there are, so it never meets one that is absent.
    if (state !== "absent" || verb !== "sweep") expect(told.at(-1)).toBe(`${state} ${verb}`);
    expect(HOLD_TABLE[state][verb] === "fault").toBe(cell === "fault");
    if (cell === "fault") {
      expect(answer).toEqual({ outcome: "fenced", fenced: "fault" });
      expect({ held: accounts.heldMicro, spent: accounts.spentMicro }).toEqual(before);
      // Every verb finds it closed from now on, and it was told once.
      for (const say of Object.values(SAY)) expect(say(admission)).toEqual(answer);
      expect(figures(admission, { orgId: ORG }, START_MS)).toEqual(answer);
      expect(faults).toEqual([ORG]);
      const other = { ...under, orgId: "org_B", writerEpoch: 7, keyId: KEY, holdMicro: FUNDED };
      expect(admit(admission, other, START_MS)).toMatchObject({ outcome: "admitted" });
      return;
    }
    const [outcome, after, held, spent] = cell;
    expect(answer.outcome).toBe(outcome);
    expect(accounts.holds.get(requestId)?.state ?? "absent").toBe(after);
    expect([accounts.heldMicro, accounts.spentMicro]).toEqual([held, spent]);
    expectTrueBooks(accounts);
    expect(faults).toEqual([]);
  });
});

test("a charge eats the listed lots in their order, and the rest goes back to the same lots", () => {
  for (const [charge, first, second] of [
    [0, 100, 50],
    [30, 70, 50],
    [100, undefined, 50],
    [110, undefined, 40],
    [120, undefined, 30],
  ] as const) {
    const { admission } = funded();
    admits(admission, HOLD);
    close(admission, { ...under, chargedMicro: charge });
    const { lots } = accountsOf(admission);
    expect([lots.get("lot_1")?.availableMicro, lots.get("lot_2")?.availableMicro]).toEqual([
      first,
      second,
    ]);
  }
});

test("a hold is taken from the oldest lot on, and a raise goes on where it stopped", () => {
  const { admission } = funded();
  expect(admits(admission, 90)).toMatchObject({
    accounts: [{ micro: 90, lots: [{ lotId: "lot_1", micro: 90 }] }],
  });
  expect(extend(admission, { ...under, totalMicro: 97 })).toMatchObject({
    totalMicro: 97,
    accounts: [{ micro: 97, lots: [{ lotId: "lot_1", micro: 97 }] }],
  });
  expect(extend(admission, { ...under, totalMicro: 1_000 })).toMatchObject({
    totalMicro: FUNDED,
    accounts: [
      {
        lots: [
          { lotId: "lot_1", micro: 100 },
          { lotId: "lot_2", micro: 50 },
        ],
      },
    ],
  });
  // A total at or below the present one changes nothing.
  expect(extend(admission, { ...under, totalMicro: 5 })).toMatchObject({ totalMicro: FUNDED });
  expectTrueBooks(accountsOf(admission));
});

test("however often it is raised, a hold lists at most twice as many shares as there are unspent lots", () => {
  const { admission } = funded();
  const accounts = accountsOf(admission);
  const lots = Array.from({ length: UNSPENT_LOTS_MAX - 2 }, (_, at): Effect[] => [
    { effect: "credited", lotId: `lot_${at + 3}`, pot: "paid", micro: 10 },
  ]);
  apply(admission, { orgId: ORG, ownerEpoch: 1, items: itemsOf(lots, accounts.position) });
  expect(figures(admission, { orgId: ORG }, START_MS)).toMatchObject({
    unspentLots: UNSPENT_LOTS_MAX,
  });
  const by = { orgId: ORG, ownerEpoch: 1, writerEpoch: 7, keyId: KEY };
  admit(admission, { ...by, requestId: "req_0", holdMicro: FUNDED }, START_MS);
  // Two holds share every lot, step by step; the other ends, and the next one shares what it gives back.
  let mine = 0;
  for (const [round, share] of [5, 2, 1].entries()) {
    const other = { ...by, requestId: `req_other_${round}` };
    let others = 0;
    for (const [at] of lots.entries()) {
      mine += share;
      others += accounts.lots.get(`lot_${at + 3}`)?.availableMicro ?? 0;
      if (mine === share) admits(admission, mine);
      else extend(admission, { ...under, totalMicro: mine });
      others -= share;
      if (at === 0) admit(admission, { ...other, holdMicro: others }, START_MS);
      else extend(admission, { ...other, totalMicro: others });
    }
    const held = accounts.holds.get(requestId)?.accounts[0]?.lots;
    expect(held).toHaveLength(Math.min(SHARES_MAX, (round + 1) * lots.length));
    drop(admission, other, START_MS);
  }
  // What it was raised to is told as it is, so that nothing is charged beyond it.
  const held = accounts.holds.get(requestId);
  expect(held?.totalMicro).toBeLessThan(mine);
  expect(extend(admission, { ...under, totalMicro: mine })).toMatchObject({
    outcome: "raised",
    totalMicro: held?.totalMicro,
  });
  expectTrueBooks(accounts);
});

test("a raised total survives the event that opens the hold, and one below it changes nothing", () => {
  const { admission } = funded();
  admits(admission, HOLD);
  extend(admission, { ...under, totalMicro: 140 });
  carry(admission, opened);
  carry(admission, extended);
  expect(accountsOf(admission).holds.get(requestId)).toMatchObject({
    state: "open",
    totalMicro: 140,
    revision: 1,
  });
  carry(admission, closed);
  expect(figures(admission, { orgId: ORG }, START_MS)).toMatchObject({
    balance: { heldMicro: 0, spentMicro: CHARGE, availableMicro: FUNDED - CHARGE },
  });
});
