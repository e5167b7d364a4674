import { streams } from "#domain/events/events.ts";
import { ALIVE_EVERY_MS } from "#services/journal.ts";
import type { Clock, EventStore } from "#services/ports.ts";
import { sleep } from "#services/waiting.ts";
import { newestOwner } from "#services/writers.ts";
import { readTail } from "./retire.ts";
import { MISSED_MAX } from "./silence.ts";

const LOOK_EVERY_MS = 1_000;
/** A little longer than the owner itself would wait for another: of two ledgers that both live, the one that serves stays. */
const SILENT_MS = (MISSED_MAX + 1) * ALIVE_EVERY_MS;

/**
 * Waits while another process owns the region's admission store: comes back when nobody does, when the owner has sealed its
 * journal, or when it has written nothing into it for as long as silence is death, on our own clock. The claim that follows
 * is safe whatever this says; it only keeps two ledgers from claiming against each other. Ends early when stopped.
 *
 * Gives the epoch of the owner that is over, 0 where there was none: who waits here with us may be faster, and is then not
 * to be claimed against.
 */
export async function standBy(
  parts: { readonly store: EventStore; readonly clock: Clock; readonly region: string },
  stop: AbortSignal,
): Promise<number> {
  const { store, clock, region } = parts;
  let heard: Word | undefined;
  let heardMs = clock.elapsed();
  while (!stop.aborted) {
    // The answer may be read long after it was given, by a process that was stopped: it tells of no silence since.
    const askedMs = clock.elapsed();
    const word = await lastWord(store, region).catch(() => undefined);
    if (word?.isOver) return word.ownerEpoch;
    // A store that cannot be read says nothing of anybody's silence.
    if (!word || word.ownerEpoch !== heard?.ownerEpoch || word.revision !== heard.revision) {
      heard = word;
      heardMs = clock.elapsed();
    }
    if (word && askedMs - heardMs > SILENT_MS) return word.ownerEpoch;
    await sleep(clock, LOOK_EVERY_MS);
  }
  return heard?.ownerEpoch ?? 0;
}

/** What was last heard of the owner: the newest event of its journal. It is over where nobody owns or that is sealed. */
interface Word {
  readonly ownerEpoch: number;
  readonly isOver: boolean;
  readonly revision?: bigint | undefined;
}

async function lastWord(store: EventStore, region: string): Promise<Word> {
  const owner = await newestOwner(store, region);
  if (!owner) return { ownerEpoch: 0, isOver: true };
  const { ownerEpoch, writerEpoch } = owner;
  const { last, isSealed } = await readTail(store, streams.journal(region, writerEpoch));
  return { ownerEpoch, isOver: isSealed, revision: last?.revision };
}
