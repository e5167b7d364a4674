import { journalEpoch, streams, type RecordedEvent } from "#domain/events/events.ts";
import type { EventStore } from "#services/ports.ts";
import { allWriters, type Author } from "#services/writers.ts";

/** So many of our own signs of life without one of a writer's, and it is taken as dead. */
export const MISSED_MAX = 6;

const MARKS: ReadonlySet<string> = new Set([
  "OwnerFenced.v1",
  "JournalSealed.v1",
  "RequestExpired.v1",
]);

export type SilenceWatch = Awaited<ReturnType<typeof createSilenceWatch>>;

/**
 * Who has been heard of, counted in the ledger's own signs of life: no clock of anybody is compared. It starts with every
 * writer that ever registered: to seal one again that was sealed long ago does nothing, and then it is forgotten. One
 * that another ledger process seals stays: that process may have died before it had expired the open holds.
 */
export async function createSilenceWatch(
  parts: { store: EventStore; author: Author },
  ownEpoch: number,
) {
  let ownCount = 0;
  let seenTo = -1n;
  const lastHeard = new Map<number, number>();
  for (const writerEpoch of await allWriters(parts.store, parts.author.region))
    lastHeard.set(writerEpoch, 0);
  const writers = streams.writers(parts.author.region);
  return {
    see(event: RecordedEvent): void {
      // After a failure a batch is carried once more; a sign of life counts once.
      if (event.position <= seenTo) return;
      seenTo = event.position;
      if (event.stream === writers) {
        if (event.type === "WriterStarted.v1") lastHeard.set(Number(event.revision), ownCount);
        return;
      }
      const writerEpoch = journalEpoch(event.stream);
      if (writerEpoch === undefined) return;
      if (event.type === "JournalSealed.v1" && event.data.by === "writer")
        lastHeard.delete(writerEpoch);
      // Marks that others put into a journal are no sign of its writer's life.
      else if (!MARKS.has(event.type) && lastHeard.has(writerEpoch))
        lastHeard.set(writerEpoch, ownCount);
      if (writerEpoch === ownEpoch && event.type === "WriterAlive.v1") ownCount += 1;
    },
    /** The writers that have fallen silent; each is named again after as long a silence, until it is forgotten. */
    silent(): number[] {
      const silent: number[] = [];
      for (const [writerEpoch, heard] of lastHeard) {
        if (writerEpoch !== ownEpoch && ownCount - heard >= MISSED_MAX) {
          silent.push(writerEpoch);
          lastHeard.set(writerEpoch, ownCount);
        }
      }
      return silent;
    },
    /** Their journals are sealed and hold no open hold. */
    forget(writerEpochs: readonly number[]): void {
      for (const writerEpoch of writerEpochs) lastHeard.delete(writerEpoch);
    },
  };
}
