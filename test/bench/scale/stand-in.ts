import { announce } from "#test/bench/child.ts";
import { startStandIn } from "#test/kurrent-stand-in/server.ts";
import { history } from "./history.ts";

/** The event store's stand-in as a process of its own, with a long history in it: `stand-in.ts <organizations> <events>`. */

const HISTORY_MS = 21 * 86_400_000;

await announce(async () => {
  const [orgs = 0, events = 0] = process.argv.slice(2).map(Number);
  const endedAt = Date.now();
  let recordedAt: number | undefined;
  const standIn = await startStandIn({ now: () => recordedAt ?? Date.now() });
  const { log } = standIn;
  for (const { stream, events: news } of history({ orgs, events })) {
    recordedAt = Math.floor(endedAt - HISTORY_MS * (1 - Math.min(1, log.all.length / events)));
    const proposed = news.map(({ id, type, dataJson, metadataJson }) => ({
      id,
      type,
      contentType: "application/json",
      data: Buffer.from(dataJson),
      metadata: Buffer.from(metadataJson),
    }));
    log.append(stream, proposed, "any");
  }
  log.forget();
  recordedAt = undefined;
  return { url: standIn.url() };
});
