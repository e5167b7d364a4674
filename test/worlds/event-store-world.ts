import { startServer, type Server } from "#infra/backing/find.ts";
import { systemClock } from "#infra/clock.ts";
import {
  openKurrentEventStore,
  type KurrentEventStoreOptions,
} from "#infra/event-store/kurrent/store.ts";
import { systemRandom } from "#infra/random.ts";
import { startStandInProcess } from "#test/faults/processes.ts";
import { findForTests } from "#test/servers/found-servers.ts";

/** Where this machine has an event store server for tests. Where it has none, the stand-in takes its place. */
export const EVENT_STORE_SOURCE = await findForTests("eventstore", process.env);

/** The adapter over a real socket. */
export function openStore(url: string, options: Partial<KurrentEventStoreOptions> = {}) {
  const parts = { clock: systemClock(), random: systemRandom(), insecure: true };
  return openKurrentEventStore({ url, ...parts, ...options });
}

/**
 * A server for a region of its own, which outlives every kill of the region's processes: a real one that is started for it,
 * else the stand-in as a process. One that somebody named is not for that: it may have a region of the same name.
 */
export async function eventStoreForRegion(): Promise<Server> {
  const { from } = EVENT_STORE_SOURCE;
  if (from === "program" || from === "container")
    return startServer("eventstore", EVENT_STORE_SOURCE);
  const standIn = startStandInProcess();
  let isStopping = false;
  void standIn.ended.then((how) => {
    // Whatever fails then, this is why.
    if (!isStopping) process.stdout.write(`the stand-in ended with ${how}: ${standIn.stderr()}\n`);
  });
  return {
    url: await standIn.ready,
    async stop() {
      isStopping = true;
      standIn.kill("SIGKILL");
      await standIn.ended;
    },
  };
}
