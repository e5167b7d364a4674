import { newEvent, streams, type NewEvent, type RecordedEvent } from "#domain/events/events.ts";
import type { EventData, EventMetadata } from "#domain/events/schemas.ts";
import type { AppendOutcome, Clock, EventStore, ExpectedRevision } from "./ports.ts";
import { backOffMs, sleep } from "./waiting.ts";

/** Who appends: what stands in the metadata of every event of one process. */
export interface Author {
  readonly region: string;
  readonly actor: string;
}

/** The store could not be reached, or refuses, for longer than the start of a process may wait. */
export class StoreUnavailable extends Error {
  override readonly name = "StoreUnavailable";
}

const ATTEMPTS_MAX = 30;

/**
 * Metadata of an event now: the writer's clock, its author, the request or command that it belongs to, and the id of
 * the event that led to it, if one did.
 */
export function metadataOf(
  clock: Clock,
  author: Author,
  correlationId: string,
  causationId?: string,
): EventMetadata {
  return {
    at: clock.now(),
    region: author.region,
    actor: author.actor,
    $correlationId: correlationId,
    ...(causationId === undefined ? {} : { $causationId: causationId }),
    schema: 1,
  };
}

/** What an event counts towards the limit of an append: its id, type, data and metadata in UTF-8. */
export function bytesOf({ id, type, dataJson, metadataJson }: NewEvent): number {
  return id.length + type.length + Buffer.byteLength(dataJson) + Buffer.byteLength(metadataJson);
}

/**
 * Appends events, repeating the identical call while its outcome is unknown. Answers a conflict with the revision that
 * the stream has; throws {@link StoreUnavailable} after a bounded number of refusals or unknown outcomes.
 */
export async function appendOnce(
  store: EventStore,
  clock: Clock,
  stream: string,
  events: readonly NewEvent[],
  expected: ExpectedRevision,
): Promise<Extract<AppendOutcome, { outcome: "appended" | "conflict" }>> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const answer = await store
      .append(stream, events, expected)
      .catch((): AppendOutcome => ({ outcome: "unknown", reason: "the call failed" }));
    if (answer.outcome === "appended" || answer.outcome === "conflict") return answer;
    if (answer.outcome === "refused" && answer.reason !== "queue_full") {
      throw new StoreUnavailable(`the event store refuses to write (${answer.reason})`);
    }
    await sleep(clock, backOffMs(attempt, 20, 1000));
  }
  throw new StoreUnavailable("the event store does not answer");
}

/** The revision to expect for the next event of a stream. */
export async function tailRevision(store: EventStore, stream: string): Promise<ExpectedRevision> {
  const [last] = await store.read(stream, { from: "end", direction: "backward", max: 1 });
  return last ? last.revision : "no_stream";
}

/**
 * Registers a process as a writer: the revision of its WriterStarted in `writers-<region>` is its epoch.
 * `instance` must be new for every start (it makes the event's id).
 */
export async function registerWriter(
  store: EventStore,
  clock: Clock,
  author: Author,
  data: EventData<"WriterStarted.v1">,
): Promise<number> {
  const stream = streams.writers(author.region);
  const metadata = metadataOf(clock, author, data.instance);
  const event = newEvent(stream, `started:${data.instance}`, "WriterStarted.v1", data, metadata);
  for (;;) {
    const expected = await tailRevision(store, stream);
    const answer = await appendOnce(store, clock, stream, [event], expected);
    if (answer.outcome === "appended") return Number(answer.revision);
  }
}

/** The newest owner of the region's admission store, or undefined before the first. */
export async function newestOwner(
  store: EventStore,
  region: string,
): Promise<EventData<"OwnerChanged.v1"> | undefined> {
  for await (const event of eventsBackward(store, streams.writers(region)))
    if (event.type === "OwnerChanged.v1") return event.data;
  return undefined;
}

const PAGE_EVENTS = 500;

/** The events of a stream from a revision on, to its end, read in pages; an unknown stream has none. */
export async function* eventsForward(
  store: Pick<EventStore, "read">,
  stream: string,
  from: bigint | "start",
): AsyncGenerator<RecordedEvent> {
  for (;;) {
    const page = await store.read(stream, { from, direction: "forward", max: PAGE_EVENTS });
    yield* page;
    const last = page.at(-1);
    if (!last || page.length < PAGE_EVENTS) return;
    from = last.revision + 1n;
  }
}

/** The events of a stream from its end back to its first: in small pages, as who reads backward mostly needs the last. */
export async function* eventsBackward(
  store: Pick<EventStore, "read">,
  stream: string,
): AsyncGenerator<RecordedEvent> {
  let from: bigint | "end" = "end";
  for (;;) {
    const page = await store.read(stream, { from, direction: "backward", max: 64 });
    yield* page;
    const oldest = page.at(-1);
    if (!oldest || oldest.revision === 0n) return;
    from = oldest.revision - 1n;
  }
}
