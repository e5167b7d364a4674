import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { AdmissionStore } from "#services/ports.ts";
import { ORG } from "#test/worlds/accounts-world.ts";
import {
  ask,
  carry,
  fund,
  HOLD,
  opened,
  OTHER,
  own,
  under,
  type AdmissionStoreUnderTest,
} from "./admission-store-suite.ts";

/**
 * What makes the ledger look: an organization that is missed, and provisional holds older than 30 s. The store is not
 * watched here, because whoever adds its money up comes upon old holds too.
 */
export function admissionWantedSuite(
  name: string,
  make: () => Promise<AdmissionStoreUnderTest>,
): void {
  describe(`admission store: ${name}: wanted`, () => {
    let made: AdmissionStoreUnderTest;
    beforeEach(async () => {
      made = await make();
    });
    afterEach(() => made.cleanUp());

    test("what was wanted is given once", async () => {
      const { store } = made;
      expect(await store.wanted()).toEqual([]);
      for (const orgId of [ORG, OTHER, ORG]) await store.want(orgId);
      const missed = [ORG, OTHER].map((orgId) => ({ orgId, writerEpochs: [] }));
      expect((await store.wanted()).sort((a, b) => (a.orgId < b.orgId ? -1 : 1))).toEqual(missed);
      expect(await store.wanted()).toEqual([]);
      await store.want(ORG);
      expect(await store.wanted()).toEqual([{ orgId: ORG, writerEpochs: [] }]);
    });

    // In a cluster the word of it is another server's, and nobody waits for that.
    const wanted = async (store: AdmissionStore) =>
      (await store.wanted()).map((each) => ({
        ...each,
        writerEpochs: [...each.writerEpochs].sort((one, other) => one - other),
      }));
    const meet: [string, (store: AdmissionStore) => Promise<unknown>][] = [
      ["figures", (store) => store.figures({ orgId: ORG })],
      ["admit", (store) => store.admit(ask({ requestId: "req_9", writerEpoch: 9 }))],
      ["a refused admit", (store) => store.admit(ask({ requestId: "req_9", holdMicro: 1_000 }))],
    ];

    test.for(meet)("%s names the writers of old ones, each time", async ([, look], context) => {
      const { clock, clockMoves } = made;
      if (clockMoves !== true) return context.skip(clockMoves);
      const { store } = made;
      await fund(store, ORG, OTHER);
      for (const [at, writerEpoch] of [7, 8, 7].entries())
        await store.admit(ask({ requestId: `req_${at}`, writerEpoch }));
      await store.admit(ask({ orgId: OTHER }));
      await clock.advance(30_000);
      await look(store);
      expect(await wanted(store)).toEqual([]);
      await clock.advance(1);
      // A young one behind the old ones is not named.
      await store.admit(ask({ orgId: OTHER, requestId: "req_8", writerEpoch: 8 }));
      const { writerEpoch } = ask();
      await expect
        .poll(() => wanted(store))
        .toEqual([{ orgId: OTHER, writerEpochs: [writerEpoch] }]);
      for (let time = 0; time < 2; time++) {
        await look(store);
        await expect.poll(() => wanted(store)).toEqual([{ orgId: ORG, writerEpochs: [7, 8] }]);
      }
      await store.sweep({ ...own, writerEpoch: 7 });
      await look(store);
      await expect.poll(() => wanted(store)).toEqual([{ orgId: ORG, writerEpochs: [8] }]);
      await store.sweep({ ...own, writerEpoch: 8 });
      await look(store);
      expect(await wanted(store)).toEqual([]);
    });

    test("neither recorded, closed nor dropped ones are named, however old", async (context) => {
      const { clock, clockMoves } = made;
      if (clockMoves !== true) return context.skip(clockMoves);
      const { store } = made;
      await fund(store, ORG);
      await store.admit(ask({ holdMicro: HOLD }));
      await store.admit(ask({ requestId: "req_2" }));
      await store.admit(ask({ requestId: "req_3" }));
      await carry(store, opened);
      await store.close({ ...under, requestId: "req_2", chargedMicro: 1 });
      await store.drop({ ...under, requestId: "req_3" });
      await clock.advance(3_600_000);
      await store.figures({ orgId: ORG });
      await store.admit(ask({ requestId: "req_4" }));
      expect(await store.wanted()).toEqual([]);
    });

    test("a clock that jumps hides none for longer: one taken ahead of the time is old too", async (context) => {
      const { clock, clockMoves } = made;
      if (clockMoves !== true) return context.skip(clockMoves);
      const { store } = made;
      await fund(store, ORG);
      clock.setBack(-3_600_000);
      await store.admit(ask());
      clock.setBack(3_600_000);
      await store.admit(ask({ requestId: "req_2", writerEpoch: 8 }));
      await store.figures({ orgId: ORG });
      await expect.poll(() => wanted(store)).toEqual([{ orgId: ORG, writerEpochs: [7] }]);
      await clock.advance(30_001);
      await store.figures({ orgId: ORG });
      await expect.poll(() => wanted(store)).toEqual([{ orgId: ORG, writerEpochs: [7, 8] }]);
    });
  });
}
