import { journalEpoch, streams, type RecordedEvent } from "#domain/events/events.ts";
import type { EventStore } from "#services/ports.ts";
import { allWriters, type Author } from "#services/writers.ts";

/** So many of our own signs of life without one of a writer's, and it is taken as dead. */
const MISSED_MAX = 6;

/** Who has been heard of, counted in the ledger's own signs of life: no clock of anybody is compared. */
export interface SilenceWatch {
  see(event: RecordedEvent): void;
  /** The writers that have fallen silent since the last call. */
  silent(): number[];
}

/** Starts with every writer that is registered; those sealed long ago fall out when they are sealed "again". */
export async function createSilenceWatch(
  parts: { store: EventStore; author: Author },
  ownEpoch: number,
): Promise<SilenceWatch> {
  let ownCount = 0;
  const lastHeard = new Map<number, number>();
  for (const { writerEpoch } of await allWriters(parts.store, parts.author.region))
    lastHeard.set(writerEpoch, 0);
  const writers = streams.writers(parts.author.region);
  return {
    see(event) {
      if (event.stream === writers) {
        if (event.type === "WriterStarted.v1") lastHeard.set(Number(event.revision), ownCount);
        return;
      }
      const writerEpoch = journalEpoch(event.stream);
      if (writerEpoch === undefined) return;
      if (event.type === "JournalSealed.v1") lastHeard.delete(writerEpoch);
      // Marks that others put into a journal are no sign of its writer's life.
      else if (event.type !== "OwnerFenced.v1" && event.type !== "RequestExpired.v1") {
        if (lastHeard.has(writerEpoch)) lastHeard.set(writerEpoch, ownCount);
      }
      if (writerEpoch === ownEpoch && event.type === "WriterAlive.v1") ownCount += 1;
    },
    silent() {
      const silent: number[] = [];
      for (const [writerEpoch, heard] of lastHeard) {
        if (writerEpoch !== ownEpoch && ownCount - heard >= MISSED_MAX) {
          silent.push(writerEpoch);
          lastHeard.delete(writerEpoch);
        }
      }
      return silent;
    },
  };
}
