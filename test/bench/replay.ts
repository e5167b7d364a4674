import { join } from "node:path";
import { systemClock } from "#infra/clock.ts";
import { openSqliteEventReader } from "#infra/event-store/sqlite-reader.ts";
import { openSqliteEventStore } from "#infra/event-store/sqlite.ts";
import { openSqliteReadModels } from "#infra/read-models/sqlite.ts";
import { accountsProjection } from "#projections/accounts.ts";
import { startProjector } from "#services/projector/projector.ts";
import { endWithHarness, tell } from "./child.ts";
import { type Append, history } from "./replay-events.ts";

/** How fast the accounts projection goes over a store of its own making. Runs as a process, in a folder that it fills. */

/** What the measurement needs of the product. */
interface ReplaySubject {
  /** Writes to the store. */
  append(batch: Append): Promise<void>;
  /** Reads the store from its beginning through a fresh accounts projection; resolves to the number of events. */
  replay(): Promise<number>;
}

export type ReplayResult =
  | { readonly events: number; readonly seconds: number; readonly bytesPerPair: number }
  | { readonly skipped: string };

/** Fills a store with `count` events of requests and times the replay of all of it. */
async function measureReplay(subject: ReplaySubject, count: number): Promise<ReplayResult> {
  let bytes = 0;
  for (const batch of history(count)) {
    await subject.append(batch);
    for (const event of batch.events) bytes += event.dataJson.length + event.metadataJson.length;
  }
  const startMs = performance.now();
  const events = await subject.replay();
  const seconds = (performance.now() - startMs) / 1000;
  if (events < count) throw new Error(`the replay saw ${events} of ${count} events`);
  return { events, seconds, bytesPerPair: Math.round((2 * bytes) / count) };
}

/** The product's store and accounts projection, on a folder; no other projection runs beside the rebuild. */
async function openSubject(folder: string): Promise<ReplaySubject> {
  const clock = systemClock();
  const path = join(folder, "events.sqlite");
  const store = await openSqliteEventStore({ path, clock });
  const revisions = new Map<string, bigint>();
  return {
    async append({ stream, events }) {
      const appended = await store.append(stream, events, revisions.get(stream) ?? "no_stream");
      if (appended.outcome !== "appended") throw new Error(`the append was ${appended.outcome}`);
      revisions.set(stream, appended.revision);
    },
    async replay() {
      const head = await store.head();
      const projector = await startProjector({
        store: openSqliteEventReader({ path, clock, pollMs: 100 }),
        readModels: openSqliteReadModels({
          folder: join(folder, "read-models"),
          onDropped: () => {},
        }),
        clock,
        projections: [accountsProjection],
        signal: new AbortController().signal,
        onAlarm(what) {
          throw new Error(what);
        },
      });
      const { position } = await projector.rows("accounts", head);
      return Number(position);
    },
  };
}

endWithHarness();
const [folder = ".", count = "400000"] = process.argv.slice(2);
tell(await measureReplay(await openSubject(folder), Number(count)));
