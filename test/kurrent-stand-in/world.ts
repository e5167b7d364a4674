import { expect } from "vitest";
import type {
  KurrentEventStore,
  KurrentEventStoreOptions,
} from "#infra/event-store/kurrent/store.ts";
import { admissions } from "#test/conformance/event-store/event-samples.ts";
import { openStore } from "#test/worlds/event-store-world.ts";
import type { Proposed } from "./log.ts";
import { startStandIn, type StandIn, type StandInOptions } from "./server.ts";

/** Stand-ins and stores on them for the tests of faults. */

export const JOURNAL = "journal-us-1";

export type KurrentWorld = Awaited<ReturnType<typeof createKurrentWorld>>;

/** A stand-in, with more where a test wants them, and stores; `close` ends them all. */
export async function createKurrentWorld() {
  const standIns: StandIn[] = [];
  const stores: KurrentEventStore[] = [];

  async function start(options: StandInOptions = {}): Promise<StandIn> {
    const standIn = await startStandIn(options);
    standIns.push(standIn);
    return standIn;
  }
  const server = await start();

  return {
    server,
    start,
    async open(options: Partial<KurrentEventStoreOptions> = {}): Promise<KurrentEventStore> {
      const store = await openStore(options.url ?? server.url(), options);
      stores.push(store);
      return store;
    },
    /** Makes the server wait; the returned function lets it go on. */
    stall(): () => void {
      const { promise, resolve } = Promise.withResolvers<void>();
      server.faults.stall = promise;
      return () => {
        server.faults.stall = undefined;
        resolve();
      };
    },
    async close(): Promise<void> {
      await Promise.all(stores.map((store) => store.close()));
      await Promise.all(standIns.map((standIn) => standIn.close()));
    },
  };
}

/** Appends event number `at`, the identical call again while its outcome is unknown; says how often it was. */
export async function appendUntilIn(store: KurrentEventStore, at: number): Promise<number> {
  const expected = at === 0 ? "no_stream" : BigInt(at - 1);
  for (let unknown = 0; ; unknown += 1) {
    const { outcome } = await store.append(JOURNAL, admissions(JOURNAL, at, 1), expected);
    if (outcome === "appended") return unknown;
    expect(outcome).toBe("unknown");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** An event that relai did not write. */
export function foreign(type: string, json = "{}"): Proposed {
  const [id, data] = [crypto.randomUUID(), Buffer.from(json)];
  return { id, type, contentType: "application/json", data, metadata: Buffer.from("{}") };
}
