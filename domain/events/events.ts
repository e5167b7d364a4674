import { eventId } from "#domain/hash.ts";
import { EVENT_SCHEMAS, type EventData, type EventMetadata, type EventType } from "./schemas.ts";

/**
 * An event ready to append: validated in full and serialised once. Only {@link newEvent} makes one, so a store that
 * takes it need not look again.
 */
export interface NewEvent<T extends EventType = EventType> {
  readonly id: string;
  readonly type: T;
  readonly data: EventData<T>;
  readonly metadata: EventMetadata;
  readonly dataJson: string;
  readonly metadataJson: string;
  readonly validated: typeof VALIDATED;
}
const VALIDATED: unique symbol = Symbol("validated");

/** An event as a store gives it back. Positions grow along the store, revisions by one along a stream. */
export interface Recorded<T extends EventType = EventType> {
  readonly id: string;
  readonly type: T;
  readonly data: EventData<T>;
  readonly metadata: EventMetadata;
  readonly stream: string;
  readonly revision: bigint;
  readonly position: bigint;
  /** The store's own time, never decreasing along positions: booking dates rest on this one. Milliseconds. */
  readonly recordedAt: number;
}

/** A recorded event whose `type` tells its `data` apart. */
export type RecordedEvent = { [T in EventType]: Recorded<T> }[EventType];

/**
 * Makes an event. `key` names the fact within its stream (`admitted:req_…`); stream and key give the id.
 * Throws when the data breaks the event's schema: that is a defect of the caller, never of a client's input.
 */
export function newEvent<T extends EventType>(
  stream: string,
  key: string,
  type: T,
  data: EventData<T>,
  metadata: EventMetadata,
): NewEvent<T> {
  const checked = EVENT_SCHEMAS[type].safeParse(data);
  if (!checked.success) {
    const { path = ["?"], code = "unknown" } = checked.error.issues[0] ?? {};
    // The value is left out on purpose: it could be text of a caller's.
    throw new TypeError(`${type} is not valid at ${path.join(".")}: ${code}`);
  }
  return {
    id: eventId(stream, key),
    type,
    data,
    metadata,
    dataJson: JSON.stringify(data),
    metadataJson: JSON.stringify(metadata),
    validated: VALIDATED,
  };
}

/** What a store keeps beside an event's data and metadata. */
type StoredFacts = Omit<Recorded, "type" | "data" | "metadata"> & { readonly type: string };

/** A stored event that this version of relai cannot read: an unknown type, or a number that lost precision. */
export class UnreadableEvent extends Error {
  override readonly name = "UnreadableEvent";
}

/**
 * Reads an event back from its stored text. On replay the type with its version and the numbers are checked
 * (every number must be a safe integer); the full schema was checked when it was written. Unknown fields are kept.
 */
export function readEvent(
  stored: StoredFacts,
  dataJson: string,
  metadataJson: string,
): RecordedEvent {
  return readParsedEvent(stored, JSON.parse(dataJson), metadataJson);
}

/** As {@link readEvent}, for a store whose client has parsed the text already. */
export function readParsedEvent(
  stored: StoredFacts,
  data: unknown,
  metadata: EventMetadata | string,
): RecordedEvent {
  if (!Object.hasOwn(EVENT_SCHEMAS, stored.type)) {
    throw new UnreadableEvent(
      `event ${stored.type} at position ${stored.position} is of a type this version does not know; it was written by a newer relai, which is the one to run`,
    );
  }
  assertSafeNumbers(data, stored.position);
  const event = Object.assign(new StoredMetadata(metadata), stored, { data });
  return event as Recorded as RecordedEvent;
}

/** A fold looks at data, hardly ever at metadata: that is parsed when it is first asked for. */
class StoredMetadata {
  #metadata: EventMetadata | string;

  constructor(metadata: EventMetadata | string) {
    this.#metadata = metadata;
  }

  get metadata(): EventMetadata {
    if (typeof this.#metadata === "string")
      this.#metadata = JSON.parse(this.#metadata) as EventMetadata;
    return this.#metadata;
  }
}

/** Walks the parsed data: that is cheaper than looking for suspicious digits in its text. */
function assertSafeNumbers(value: unknown, position: bigint): void {
  if (typeof value === "number") {
    if (Number.isSafeInteger(value)) return;
    throw new UnreadableEvent(
      `an event at position ${position} holds a number that is not a safe integer`,
    );
  }
  if (typeof value !== "object" || value === null) return;
  const members = value as Record<string, unknown>;
  for (const name in members) {
    const member = members[name];
    if (typeof member !== "string") assertSafeNumbers(member, position);
  }
}

/** Names of streams, in one place. */
export const streams = {
  writers: (region: string) => `writers-${region}`,
  journal: (region: string, writerEpoch: number) => `journal-${region}-${writerEpoch}`,
  org: (orgId: string) => `org-${orgId}`,
  key: (keyId: string) => `key-${keyId}`,
} as const;

/** How the names of all those streams begin: what a server that others use too is asked for. */
export const STREAM_PREFIXES = ["writers-", "journal-", "org-", "key-"] as const;

/** The writer's epoch that a journal's name ends in, or undefined for any other stream. */
export function journalEpoch(stream: string): number | undefined {
  if (!stream.startsWith("journal-")) return undefined;
  const epoch = Number(stream.slice(stream.lastIndexOf("-") + 1));
  return Number.isSafeInteger(epoch) ? epoch : undefined;
}
