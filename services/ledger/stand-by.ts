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
 */
export async function standBy(
  parts: { readonly store: EventStore; readonly clock: Clock; readonly region: string },
  stop: AbortSignal,
): Promise<void> {
  const { store, clock, region } = parts;
  let heard = "";
  let heardMs = clock.elapsed();
  while (!stop.aborted) {
    const word = await lastWord(store, region).catch(() => "unreadable");
    if (word === "over") return;
    // A store that cannot be read says nothing of anybody's silence.
    if (word !== heard || word === "unreadable") {
      heard = word;
      heardMs = clock.elapsed();
    }
    if (clock.elapsed() - heardMs > SILENT_MS) return;
    await sleep(clock, LOOK_EVERY_MS);
  }
}

/** Names the owner and the last event of its journal; `over` where nobody owns or its journal is sealed. */
async function lastWord(store: EventStore, region: string): Promise<string> {
  const owner = await newestOwner(store, region);
  if (!owner) return "over";
  const { last, isSealed } = await readTail(store, streams.journal(region, owner.writerEpoch));
  return isSealed ? "over" : `${owner.ownerEpoch}:${last?.revision}`;
}
