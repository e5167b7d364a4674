import { journalEpoch, streams, type RecordedEvent } from "#domain/events/events.ts";
import { openHolds, unsealedWriters, WRITER_TABLES } from "#projections/accounts-rows.ts";
import type { Telemetry } from "#services/ports.ts";
import { sealJournals, type RetireParts } from "./retire.ts";

/** So many of our own signs of life without one of a writer's, and it is taken as dead. */
export const MISSED_MAX = 6;

const MARKS: ReadonlySet<string> = new Set([
  "OwnerFenced.v1",
  "JournalSealed.v1",
  "RequestExpired.v1",
]);

export type SilenceWatch = Awaited<ReturnType<typeof createSilenceWatch>>;

/**
 * Who has been heard of, counted in the ledger's own signs of life: no clock of anybody is compared. It starts with the
 * writers that the accounts, folded at least to `after`, do not know as sealed with every hold ended; retire.ts says why
 * that leaves nobody out. Whoever registers behind `after` is to be seen. One that another ledger process seals stays: that
 * process may have died before it had expired the open holds.
 */
export async function createSilenceWatch(
  parts: Pick<RetireParts, "projector" | "author">,
  ownEpoch: number,
  after: bigint | "start",
) {
  const { rows } = await parts.projector.rows("accounts", after, WRITER_TABLES);
  let ownCount = 0;
  let seenTo = -1n;
  const lastHeard = new Map<number, number>();
  for (const writerEpoch of [...openHolds(rows).keys(), ...unsealedWriters(rows)])
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
    /**
     * The writers that have fallen silent, each as it stands when it is asked for; it is named again after as long a
     * silence, until it is forgotten.
     */
    *silent(): Generator<number> {
      for (const [writerEpoch, heard] of lastHeard) {
        if (writerEpoch === ownEpoch || ownCount - heard < MISSED_MAX) continue;
        lastHeard.set(writerEpoch, ownCount);
        yield writerEpoch;
      }
    },
    /** Their journals are sealed and hold no open hold. */
    forget(writerEpochs: readonly number[]): void {
      for (const writerEpoch of writerEpochs) lastHeard.delete(writerEpoch);
    },
  };
}

/** Seals the journals of those that have fallen silent, one after the other, until `ends`. What fails is done again later. */
export async function sealSilent(
  parts: RetireParts & { readonly telemetry: Pick<Telemetry, "alarm"> },
  watch: SilenceWatch,
  ends: AbortSignal,
): Promise<void> {
  for (const writerEpoch of watch.silent()) {
    if (ends.aborted) return;
    try {
      watch.forget((await sealJournals(parts, [writerEpoch], "leave")).complete);
    } catch (error) {
      parts.telemetry.alarm("ledger_seal_failed", { writerEpoch, error: String(error) });
    }
  }
}
