import { afterAll } from "vitest";
import { startServer } from "#infra/backing/find.ts";
import type { StoreHarness } from "#test/conformance/event-store/event-store-suite.ts";
import { EVENT_STORE_SOURCE, openStore } from "#test/worlds/event-store-world.ts";
import { startStandIn } from "./server.ts";

/** A real server for the file of tests that loads this, where there is one: what holds the stand-in to the truth. */
const realServer =
  EVENT_STORE_SOURCE.from === "nowhere"
    ? undefined
    : await startServer("eventstore", EVENT_STORE_SOURCE);
if (realServer) afterAll(() => realServer.stop());

export const realServerUrl = realServer?.url;
export const serverUnderTest = realServer === undefined ? "stand-in" : "real server";
export const NEEDS_FAULTS =
  "a real server is tried, and this needs faults that only the stand-in has";

const NOT_OURS = "a server has no such trouble that a client could make and end";

/** The adapter over a real socket: to the real server where there is one, else to a stand-in of its own. */
export async function kurrentHarness(): Promise<StoreHarness> {
  const standIn = realServerUrl === undefined ? await startStandIn() : undefined;
  const url = realServerUrl ?? standIn?.url() ?? "";
  return {
    open: (options) => openStore(url, options),
    survivesClosing: true,
    isItsOwn: standIn ? true : "a real server is one for all of these, so its store has a past",
    keepsOurTime: "a server dates events by its own clock",
    givesWholeAppends: "a server sends events one by one",
    trouble: { disk_full: NOT_OURS, read_only: NOT_OURS },
    remove: async () => standIn?.close(),
  };
}
