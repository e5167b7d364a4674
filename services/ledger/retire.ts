import { newEvent, streams, type NewEvent, type RecordedEvent } from "#domain/events/events.ts";
import {
  openHolds,
  unsealedWriters,
  WRITER_TABLES,
  type OpenHold,
} from "#projections/accounts-rows.ts";
import {
  APPEND_BYTES_MAX,
  APPEND_EVENTS_MAX,
  type Clock,
  type EventStore,
  type Projector,
} from "#services/ports.ts";
import { appendOnce, bytesOf, eventsBackward, metadataOf, type Author } from "#services/writers.ts";

/**
 * Retiring writers: a journal is sealed when its writer is known to be dead, else fenced. After that no taking of an
 * older owner can be recorded any more, so a fold past these marks holds every taking that ever will be.
 */
export interface RetireParts {
  readonly store: EventStore;
  readonly clock: Clock;
  readonly projector: Projector;
  readonly author: Author;
}

interface Tail {
  readonly last: RecordedEvent | undefined;
  readonly isSealed: boolean;
}

/** The end of a journal. Behind a seal only expiries follow, and fences that came late. */
export async function readTail(store: EventStore, stream: string): Promise<Tail> {
  let last: RecordedEvent | undefined;
  for await (const event of eventsBackward(store, stream)) {
    last ??= event;
    if (event.type === "JournalSealed.v1") return { last, isSealed: true };
    if (event.type !== "RequestExpired.v1" && event.type !== "OwnerFenced.v1") break;
  }
  return { last, isSealed: false };
}

/**
 * Retires every writer of the region: `decide` says of each whether it is known to be dead and so sealed, or only fenced.
 * Returns the position behind which every mark stands. To be called when the claim of `ownerEpoch` is recorded.
 *
 * Who is to be retired is read from the accounts, folded at least to the claim, so that the work of a start does not
 * grow with the starts before it. That leaves nobody out:
 * - A writer reads the newest owner after it has registered. One that registered behind the claim takes nothing under an
 *   older owner; every other is in the fold, and in its list unless its seal is in the fold too.
 * - A seal is final: behind it stand only expiries and fences that came late, never a taking. What stands before it was
 *   folded before it, so no hold of that journal is missing in the same rows. One with an open hold there is looked at
 *   again; one with none is done for ever, and its seal, as a mark, lies before the position of these rows.
 * Whatever was sealed behind that position is still in the list, and its journal is read.
 */
export async function retire(
  parts: RetireParts,
  ownerEpoch: number,
  decide: (writerEpoch: number) => "seal" | "fence",
): Promise<bigint | "start"> {
  const { store, clock, author } = parts;
  const claimed = await store.head();
  const { position, rows } = await parts.projector.rows("accounts", claimed, WRITER_TABLES);
  let mark = position;
  const dead: number[] = [];
  for (const writerEpoch of new Set([...openHolds(rows).keys(), ...unsealedWriters(rows)])) {
    if (decide(writerEpoch) === "seal") {
      dead.push(writerEpoch);
      continue;
    }
    const stream = streams.journal(author.region, writerEpoch);
    const { isSealed, last } = await readTail(store, stream);
    if (isSealed) {
      // The seal is this journal's mark: what stands before it may be newer than every fence.
      mark = later(mark, last?.position ?? "start");
      continue;
    }
    const metadata = metadataOf(clock, author, `owner:${ownerEpoch}`);
    const data = { ownerEpoch };
    const event = newEvent(stream, `fenced:${ownerEpoch}`, "OwnerFenced.v1", data, metadata);
    mark = later(mark, await store.fence(stream, event));
  }
  return later(mark, (await sealJournals(parts, dead, "again")).mark);
}

function later(a: bigint | "start", b: bigint | "start"): bigint | "start" {
  if (a === "start") return b;
  return b === "start" || b < a ? a : b;
}

/**
 * Seals the journals of dead writers and expires the holds that they left open; one that is sealed already but has
 * open holds is completed. Safe to run twice, and beside a writer that is only slow: then one of the two conflicts.
 * A conflict is met with another look (`again`: the writer is known to be dead), or the journal is left, because its
 * writer lives after all (`leave`). Gives the position behind the marks, and whose journals are sealed to their end.
 */
export async function sealJournals(
  parts: RetireParts,
  writerEpochs: readonly number[],
  onConflict: "again" | "leave",
): Promise<{ mark: bigint | "start"; complete: number[] }> {
  let mark: bigint | "start" = "start";
  const complete: number[] = [];
  let left = [...writerEpochs];
  while (left.length > 0) {
    const tails = new Map<number, Tail>();
    let folded: bigint | "start" = "start";
    for (const writerEpoch of left) {
      const tail = await readTail(parts.store, streams.journal(parts.author.region, writerEpoch));
      tails.set(writerEpoch, tail);
      folded = later(folded, tail.last?.position ?? "start");
    }
    const { rows } = await parts.projector.rows("accounts", folded, ["holds"]);
    const open = openHolds(rows);
    const again: number[] = [];
    for (const [writerEpoch, tail] of tails) {
      const sealed = await sealOne(parts, writerEpoch, tail, open.get(writerEpoch) ?? []);
      if (sealed === "conflict") {
        again.push(writerEpoch);
      } else {
        mark = later(mark, sealed);
        complete.push(writerEpoch);
      }
    }
    left = onConflict === "again" ? again : [];
  }
  return { mark, complete };
}

/**
 * The seal first, unless it is there, then an expiry for each open hold, in one append as far as it fits. Gives the
 * position of the journal's end.
 */
async function sealOne(
  parts: RetireParts,
  writerEpoch: number,
  tail: Tail,
  holds: readonly OpenHold[],
): Promise<bigint | "start" | "conflict"> {
  const { store, clock, author } = parts;
  const stream = streams.journal(author.region, writerEpoch);
  const events: NewEvent[] = [];
  if (!tail.isSealed) {
    const metadata = metadataOf(clock, author, stream);
    events.push(newEvent(stream, "sealed", "JournalSealed.v1", { by: "ledger" }, metadata));
  }
  for (const hold of holds) events.push(await expiryOf(parts, stream, hold));
  let revision = tail.last?.revision ?? ("no_stream" as const);
  let end = tail.last?.position ?? ("start" as const);
  for (const part of appendsOf(events)) {
    const answer = await appendOnce(store, clock, stream, part, revision);
    if (answer.outcome === "conflict") return "conflict";
    revision = answer.revision;
    end = answer.position;
  }
  return end;
}

/** Events cut into appends that a store takes. */
function appendsOf(events: readonly NewEvent[]): NewEvent[][] {
  const parts: NewEvent[][] = [];
  let bytes = 0;
  for (const event of events) {
    const part = parts.at(-1);
    const more = bytesOf(event);
    if (part && part.length < APPEND_EVENTS_MAX && bytes + more <= APPEND_BYTES_MAX) {
      part.push(event);
      bytes += more;
    } else {
      parts.push([event]);
      bytes = more;
    }
  }
  return parts;
}

/**
 * The end of a hold whose writer died: nothing is charged; what the provider may bill us is booked as the hold at cost
 * prices. Everything it says comes from the journal's own last word on the hold.
 */
async function expiryOf(parts: RetireParts, stream: string, hold: OpenHold): Promise<NewEvent> {
  const from = BigInt(hold.revision);
  const [event] = await parts.store.read(stream, { from, direction: "forward", max: 1 });
  if (event?.type !== "RequestAdmitted.v1" && event?.type !== "HoldExtended.v1") {
    throw new Error(`${stream} has no hold at revision ${hold.revision}`);
  }
  const { requestId, orgId, homeRegion, keyId, processingArea, ownerEpoch, accounts } = event.data;
  const whose = { requestId, orgId, homeRegion, keyId, processingArea, ownerEpoch, accounts };
  const [holdMicro, unbilledMicro] =
    event.type === "RequestAdmitted.v1"
      ? [event.data.holdMicro, event.data.holdCostMicro]
      : [event.data.holdTotalMicro, event.data.holdCostTotalMicro];
  const data = { ...whose, holdMicro, unbilledMicro };
  const metadata = metadataOf(parts.clock, parts.author, requestId, event.id);
  return newEvent(stream, `ended:${requestId}`, "RequestExpired.v1", data, metadata);
}
