import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { HOLD_TABLE, type HoldVerb } from "#domain/accounts/holds.ts";
import type { HoldState } from "#domain/accounts/types.ts";
import type { AdmissionStore } from "#services/ports.ts";
import { FUNDED, ORG } from "#test/worlds/accounts-world.ts";
import {
  ask,
  carry,
  CHARGE,
  closed,
  everyVerb,
  extended,
  fenced,
  fund,
  heldAndSpent,
  HOLD,
  moneyOf,
  opened,
  OTHER,
  own,
  under,
  watched,
  type AdmissionStoreUnderTest,
} from "./admission-store-suite.ts";
import { HOLD_CELLS } from "#test/samples/hold-cells.ts";

const REACH: Record<HoldState, (store: AdmissionStore) => Promise<unknown>> = {
  absent: async () => undefined,
  provisional: (store) => store.admit(ask({ holdMicro: HOLD })),
  open: async (store) => [await REACH.provisional(store), await carry(store, opened)],
  closed: async (store) => [
    await REACH.provisional(store),
    await store.close({ ...under, chargedMicro: CHARGE }),
  ],
  tombstone: async (store) => [await REACH.provisional(store), await store.drop(under)],
};

const SAY: Record<HoldVerb, (store: AdmissionStore) => Promise<{ outcome: string }>> = {
  admit: (store) => store.admit(ask()),
  extend: (store) => store.extend({ ...under, totalMicro: 130 }),
  drop: (store) => store.drop(under),
  close: (store) => store.close({ ...under, chargedMicro: CHARGE }),
  apply_open: (store) => carry(store, opened),
  apply_extended: (store) => carry(store, extended),
  apply_close: (store) => carry(store, closed),
  sweep: (store) => store.sweep({ ...own, writerEpoch: 7 }),
};

/** Finds out by verbs where the hold stands; it is of no use afterwards. */
async function stateOf(store: AdmissionStore): Promise<HoldState> {
  const before = await moneyOf(store);
  if ((await store.admit(ask({ holdMicro: 1 }))).outcome === "admitted") return "absent";
  if (before.outcome === "figures" && before.balance.heldMicro > 0) {
    await store.sweep({ ...own, writerEpoch: 7 });
    const after = await moneyOf(store);
    return after.outcome === "figures" && after.balance.heldMicro === 0 ? "provisional" : "open";
  }
  return (await carry(store, opened)).outcome === "applied" ? "closed" : "tombstone";
}

/** The life of a hold, every cell of its table, through the port alone: the second half of what every adapter is held to. */
export function admissionHoldsSuite(
  name: string,
  make: () => Promise<AdmissionStoreUnderTest>,
): void {
  describe(`admission store: ${name}: holds`, () => {
    let made: AdmissionStoreUnderTest;
    let store: AdmissionStore;
    beforeEach(async () => {
      made = await make();
      store = watched(made.store);
    });
    afterEach(() => made.cleanUp());

    test.each(HOLD_CELLS)("a hold that is %s meets %s: %s", async (state, verb, cell) => {
      await fund(store, ORG, OTHER);
      await REACH[state](store);
      const answer = await SAY[verb](store);
      expect(HOLD_TABLE[state][verb] === "fault").toBe(cell === "fault");
      if (cell !== "fault") {
        const [outcome, after, held, spent] = cell;
        expect(answer.outcome).toBe(outcome);
        expect(await moneyOf(store)).toMatchObject(heldAndSpent(held, spent));
        expect(await stateOf(store)).toBe(after);
        return;
      }
      // Closed to every verb from now on, and no other organization with it.
      expect(answer).toEqual(fenced("fault"));
      for (const say of Object.values(everyVerb(store, own)))
        expect(await say()).toEqual(fenced("fault"));
      expect(await moneyOf(store)).toEqual(fenced("fault"));
      expect(await store.admit(ask({ orgId: OTHER, holdMicro: FUNDED }))).toMatchObject({
        outcome: "admitted",
      });
    });
  });
}
