import { TOKEN_CLASSES, type Tokens } from "#domain/prices.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import { buildCatalogue } from "#domain/catalogue/build.ts";
import { auditAll } from "#domain/invariants.ts";
import { systemClock } from "#infra/clock.ts";
import { openSqliteEventReader } from "#infra/event-store/sqlite-reader.ts";
import type { EventStore } from "#services/ports.ts";
import type { BookCall } from "#services/simulator/book.ts";
import type { Seen } from "./clients.ts";

const CATALOGUE = buildCatalogue({
  openai: { processingArea: "us", pinsServiceTier: false },
  simulator: true,
  processingArea: "us",
});

/** Every event of a store's file, in order. The store may be open elsewhere. */
export async function readEvents(path: string): Promise<RecordedEvent[]> {
  const reader = openSqliteEventReader({ path, clock: systemClock(), pollMs: 5 });
  try {
    return await eventsIn(reader);
  } finally {
    await reader.close();
  }
}

/** Every event of a store, in order. */
export async function eventsIn(
  store: Pick<EventStore, "head" | "follow">,
): Promise<RecordedEvent[]> {
  const head = await store.head();
  const events: RecordedEvent[] = [];
  if (head === "start") return events;
  const { signal } = new AbortController();
  for await (const batch of store.follow({ after: "start", signal })) {
    events.push(...batch);
    if ((events.at(-1)?.position ?? 0n) >= head) break;
  }
  return events;
}

type Admitted = Extract<RecordedEvent, { type: "RequestAdmitted.v1" }>;
export type Terminal = Extract<
  RecordedEvent,
  { type: "UsageRecorded.v1" | "RequestReleased.v1" | "RequestExpired.v1" }
>;

/** The ledger by request: what was admitted, and every end of it. */
export interface Ledger {
  readonly events: readonly RecordedEvent[];
  readonly admitted: ReadonlyMap<string, Admitted>;
  readonly ends: ReadonlyMap<string, readonly Terminal[]>;
  readonly undelivered: ReadonlySet<string>;
  readonly chargedMicro: number;
}

export function ledgerOf(events: readonly RecordedEvent[]): Ledger {
  const admitted = new Map<string, Admitted>();
  const ends = new Map<string, Terminal[]>();
  const undelivered = new Set<string>();
  let chargedMicro = 0;
  for (const event of events) {
    if (event.type === "RequestAdmitted.v1") admitted.set(event.data.requestId, event);
    else if (isTerminal(event)) {
      ends.set(event.data.requestId, [...(ends.get(event.data.requestId) ?? []), event]);
      if (event.type === "UsageRecorded.v1") chargedMicro += event.data.chargedMicro;
    } else if (event.type === "UsageUndelivered.v1") undelivered.add(event.data.requestId);
  }
  return { events, admitted, ends, undelivered, chargedMicro };
}

function isTerminal(event: RecordedEvent): event is Terminal {
  return (
    event.type === "UsageRecorded.v1" ||
    event.type === "RequestReleased.v1" ||
    event.type === "RequestExpired.v1"
  );
}

/**
 * Holds the ledger against the upstream's own book and against what clients saw, and says in sentences what is wrong:
 * each call in the book has exactly one outcome (usage with the book's tokens, or an expiry, or, where the caller had
 * gone by the book or by its own word, a release, either with the admitted cost as unbilled); every answer that was seen whole is recorded as used;
 * nothing is charged that the book does not know; the invariants of the books hold.
 */
export function compare(
  ledger: Ledger,
  book: readonly BookCall[],
  seen: readonly Seen[],
  left: ReadonlySet<string> = new Set(),
): string[] {
  const found: string[] = [];
  const booked = new Set<string>();
  for (const call of book) {
    const requestId = call.requestId ?? "";
    if (booked.has(requestId)) found.push(`${requestId} reached the upstream twice`);
    booked.add(requestId);
    const wrong = wrongOutcome(ledger, call, requestId, left);
    if (wrong !== undefined) found.push(`${requestId} ${wrong}`);
  }
  for (const [requestId, ends] of ledger.ends)
    if (ends.some((end) => end.type === "UsageRecorded.v1") && !booked.has(requestId))
      found.push(`${requestId} is charged and is not in the upstream's book`);
  for (const requestId of ledger.admitted.keys())
    if (ledger.ends.get(requestId)?.length !== 1)
      found.push(
        `${requestId} was admitted and has ${ledger.ends.get(requestId)?.length ?? 0} ends`,
      );
  for (const { requestId, complete } of seen)
    if (complete && ledger.ends.get(requestId ?? "")?.[0]?.type !== "UsageRecorded.v1")
      found.push(`${requestId} was seen whole and is not recorded as used`);
  for (const { invariant, position, sentence } of auditAll(ledger.events, CATALOGUE))
    found.push(`${invariant} at ${position}: ${sentence}`);
  return found;
}

/** What is wrong with the outcome of one call in the book; undefined when it is as it must be. */
function wrongOutcome(
  ledger: Ledger,
  call: BookCall,
  requestId: string,
  left: ReadonlySet<string>,
): string | undefined {
  const admitted = ledger.admitted.get(requestId);
  if (!admitted) return "reached the upstream and was never admitted";
  const ends = ledger.ends.get(requestId) ?? [];
  const [end] = ends;
  if (!end || ends.length > 1) return `has ${ends.length} outcomes`;
  if (end.position <= admitted.position) return "ended before it was admitted";
  if (end.type === "UsageRecorded.v1") {
    const { tokens, billedBy } = end.data;
    if (billedBy !== "provider") return "was estimated although the book has its usage";
    const told = JSON.stringify(byClass(call.tokens));
    const recorded = JSON.stringify(byClass(tokens));
    return told === recorded ? undefined : `is recorded with ${recorded} and was ${told}`;
  }
  if (end.data.unbilledMicro !== admitted.data.holdCostMicro)
    return `leaves ${end.data.unbilledMicro} unbilled of ${admitted.data.holdCostMicro}`;
  const hasLeft = call.clientGone || left.has(admitted.data.clientRequestId ?? "");
  if (end.type === "RequestReleased.v1" && !hasLeft)
    return `was released (${end.data.reason}) and the book knows of no client that left`;
  return undefined;
}

function byClass(tokens: { readonly [Name in keyof Tokens]?: number | undefined }): number[] {
  return TOKEN_CLASSES.map((name) => tokens[name] ?? 0);
}
