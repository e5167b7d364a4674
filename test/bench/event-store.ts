import { startStandIn } from "#test/kurrent-stand-in/server.ts";
import { announce, tell } from "./child.ts";
import type { Appended } from "./processes.ts";

/** The event store's stand-in as a process of its own. Whatever message it gets, it tells what it was sent so far. */
await announce(async () => {
  const { url, appends, log } = await startStandIn();
  process.on("message", () => {
    tell({ appends: appends(), events: log.all.length } satisfies Appended);
  });
  return { url: url() };
});
