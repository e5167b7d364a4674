import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { streams, type NewEvent } from "#domain/events/events.ts";
import { openJournal, type Journal, type RecordOutcome } from "#services/journal.ts";
import type { AppendOutcome, EventStore } from "#services/ports.ts";
import { admitted, usage } from "#test/conformance/event-store/event-samples.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";

const EPOCH = 4;
export const STREAM = streams.journal("us", EPOCH);

/** What a store may do with an append: answer like this instead of writing, write and lose the answer, or hang. */
export type Script = AppendOutcome | "lose" | "reject" | "hang";

/** A real store in memory, whose appends can be told to fail, and that says what it was asked. */
export function scripted() {
  const clock = manualClock();
  const store = createMemoryEventStore({ clock });
  const scripts: Script[] = [];
  const appends: { ids: string[]; expected: unknown }[] = [];
  const alarms: [what: string, facts: object][] = [];
  let readsFail = 0;
  let failure = new Error("no answer");
  let readsHang = false;
  let reads = 0;
  let free = () => {};
  const wrapped: EventStore = {
    ...store,
    async append(stream, events, expected) {
      appends.push({ ids: events.map((event) => event.id), expected });
      const script = scripts.shift();
      if (script === "hang") await new Promise<void>((resolve) => (free = resolve));
      if (script === "reject") throw new Error("the connection is gone");
      if (script === "lose") {
        await store.append(stream, events, expected);
        return { outcome: "unknown", reason: "no answer" };
      }
      if (script && script !== "hang") return script;
      return store.append(stream, events, expected);
    },
    async read(stream, options) {
      reads += 1;
      if (readsHang) await new Promise(() => {});
      if (readsFail > 0) {
        readsFail -= 1;
        throw failure;
      }
      return store.read(stream, options);
    },
  };
  return {
    clock,
    store,
    scripts,
    appends,
    alarms,
    free: () => free(),
    failReads(count: number, error = failure) {
      readsFail = count;
      failure = error;
    },
    hangReads: (isHanging: boolean) => (readsHang = isHanging),
    /** How many reads there were since the last time that this was asked. */
    readsSince: () => [reads, (reads = 0)][0],
    open: (placesMax?: number) =>
      openJournal({
        store: wrapped,
        clock,
        telemetry: { alarm: (what, facts) => void alarms.push([what, facts]) },
        author: { region: "us", actor: "gateway" },
        writerEpoch: EPOCH,
        ...(placesMax === undefined ? {} : { placesMax }),
      }),
    ids: async () =>
      (await store.read(STREAM, { from: "start", direction: "forward", max: 5_000 })).map(
        (event) => event.id,
      ),
  };
}

export const taking = (number: number, takingUnder = 1) => ({
  events: [admitted(STREAM, number)],
  takingUnder,
});
export const ending = (number: number) => ({ events: [usage(STREAM, number)] });

/** Records and notes what became of it, in the order in which it became known. */
export function watcher(journal: Journal) {
  const told: string[] = [];
  return {
    told,
    give(
      name: string,
      entry: { events: readonly NewEvent[]; takingUnder?: number },
    ): Promise<RecordOutcome> {
      const recording = journal.record(entry);
      void recording.then((outcome) =>
        told.push(
          `${name} ${outcome.outcome}${outcome.outcome === "dropped" ? ` ${outcome.why}` : ""}`,
        ),
      );
      return recording;
    },
  };
}
