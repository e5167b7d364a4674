import { systemClock } from "#infra/clock.ts";
import {
  openKurrentEventStore,
  type KurrentEventStoreOptions,
} from "#infra/event-store/kurrent/store.ts";
import { systemRandom } from "#infra/random.ts";
import type { StoreHarness } from "#test/conformance/event-store-suite.ts";
import { startStandIn } from "./server.ts";

/** A server that somebody named for the tests: what holds the stand-in to the truth. */
export const realServerUrl = process.env["RELAI_TEST_EVENTSTORE_URL"];
export const serverUnderTest = realServerUrl === undefined ? "stand-in" : "real server";
export const NEEDS_FAULTS =
  "RELAI_TEST_EVENTSTORE_URL names a real server, and this needs faults that only the stand-in has";

export function openStore(url: string, options: Partial<KurrentEventStoreOptions> = {}) {
  const parts = { clock: systemClock(), random: systemRandom(), insecure: true };
  return openKurrentEventStore({ url, ...parts, ...options });
}

const NOT_OURS = "a server has no such trouble that a client could make and end";

/** The adapter over a real socket: to the real server where there is one, else to a stand-in of its own. */
export async function kurrentHarness(): Promise<StoreHarness> {
  const standIn = realServerUrl === undefined ? await startStandIn() : undefined;
  const url = realServerUrl ?? standIn?.url() ?? "";
  return {
    open: (options) => openStore(url, options),
    survivesClosing: true,
    isItsOwn: standIn ? true : "RELAI_TEST_EVENTSTORE_URL names one server, whose store has a past",
    keepsOurTime: "a server dates events by its own clock",
    givesWholeAppends: "a server sends events one by one",
    trouble: { disk_full: NOT_OURS, read_only: NOT_OURS },
    remove: async () => standIn?.close(),
  };
}
