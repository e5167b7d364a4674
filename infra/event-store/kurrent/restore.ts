import type { DatabaseSync } from "node:sqlite";
import { setImmediate as nextTurn } from "node:timers/promises";
import { STREAM_PREFIXES, type RecordedEvent } from "#domain/events/events.ts";
import { openBackup, type StoreCopy } from "#infra/event-store/backup.ts";
import { openReads } from "#infra/event-store/sqlite-reads.ts";
import { APPEND_BYTES_MAX, APPEND_EVENTS_MAX, type Clock, type Random } from "#services/ports.ts";
import type { OnProgress } from "./backup.ts";
import { connectKurrent, type OutgoingEvent, type ServerEvent } from "./client.ts";
import { beginRestore, endRestore } from "./identity.ts";
import { newestOfOurs } from "./store.ts";
import { readKurrentUrl } from "./url.ts";
import { pause } from "./waits.ts";

const ANSWER_MS_MAX = 10_000;
const ATTEMPTS_MAX = 20;
const COMPARE_EVENTS = 1_000;

export interface ServerRestore {
  /** The backup's file. */
  readonly from: string;
  /** Of the event store's server; see {@link readKurrentUrl}. */
  readonly url: string;
  readonly insecure: boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly onProgress: OnProgress;
}

type Server = ReturnType<typeof connectKurrent>;

/**
 * Puts a backup into an event store on a server that holds no events of relai's, one append after the other, and compares
 * all of them with the backup. At its end the store has an identity of its own, because its history parts there from what
 * anybody has folded from another; before that nobody can open it. Called again with the same backup, it goes on where it
 * broke off. What cannot be done is thrown as an error of one sentence.
 */
export async function restoreToServer(options: ServerRestore): Promise<StoreCopy> {
  const { from, url, insecure, clock, random, onProgress } = options;
  const address = readKurrentUrl(url, insecure);
  const { db, copy } = openBackup(from);
  const closing = new AbortController();
  const { signal } = closing;
  const server = connectKurrent({ address, clock, answerMsMax: ANSWER_MS_MAX, closing: signal });
  try {
    // What this version cannot read it does not begin to write either.
    const mark = markOf(db);
    const newest = await newestOfOurs(server);
    const itself = { server, random, answerMsMax: ANSWER_MS_MAX };
    await beginRestore(itself, mark, newest === undefined);
    let done = newest === undefined ? 0 : await placeOf(db, newest);
    for (const batch of appendsOf(db, done)) {
      await append(server, batch, clock, signal);
      done += batch.length;
      onProgress(done, done / copy.events);
      // Others get their turn between two appends that are answered at once.
      await nextTurn();
    }
    await compare(server, db, signal);
    await endRestore(itself);
    return copy;
  } finally {
    closing.abort(new Error("the restore is over"));
    await server.close();
    db.close();
  }
}

/** The events behind a position, in order. Throws for one that this version cannot read. */
function* eventsOf(db: DatabaseSync, position = 0): Generator<RecordedEvent, undefined> {
  const { after } = openReads(db, nextTurn);
  for (let slice = after(position); ; slice = after(slice.position)) {
    yield* slice.events;
    if (slice.atEnd) return undefined;
  }
}

/** Tells a backup from every other: its first event is a start, whose id is of that start alone. Reads all of it. */
function markOf(db: DatabaseSync): string {
  let [first, last]: (RecordedEvent | undefined)[] = [];
  for (const event of eventsOf(db)) {
    first ??= event;
    last = event;
  }
  return `${first?.id}:${last?.id}:${last?.position}`;
}

/** Where an event of the store stands in the backup, which is how far an earlier restore has come. */
async function placeOf(db: DatabaseSync, newest: ServerEvent): Promise<number> {
  const { reads } = openReads(db, nextTurn);
  const range = { from: newest.revision, direction: "forward", max: 1 } as const;
  const [event] = await reads.read(newest.stream, range);
  if (event?.id !== newest.id) throw isOthers(newest);
  return Number(event.position);
}

const isOthers = ({ stream, revision }: Pick<ServerEvent, "stream" | "revision">) =>
  new Error(
    `event ${revision} of ${stream} is not the backup's: somebody else writes to the event store; empty it and begin anew`,
  );

/** The events behind a position, cut into appends: to one stream each, as many as stand together and fit. */
function* appendsOf(db: DatabaseSync, position: number): Generator<RecordedEvent[]> {
  let batch: RecordedEvent[] = [];
  let bytes = 0;
  for (const event of eventsOf(db, position)) {
    const { id, type, dataJson, metadataJson } = outgoing(event);
    const more = Buffer.byteLength(id + type + dataJson + metadataJson);
    const isOther = event.stream !== batch[0]?.stream;
    if (isOther || batch.length >= APPEND_EVENTS_MAX || bytes + more > APPEND_BYTES_MAX) {
      if (batch.length > 0) yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push(event);
    bytes += more;
  }
  if (batch.length > 0) yield batch;
}

/** Beside its data stands when it was recorded first: a server would date it anew. */
function outgoing({ id, type, data, metadata, recordedAt }: RecordedEvent): OutgoingEvent {
  const metadataJson = JSON.stringify({ ...metadata, recordedAt });
  return { id, type, dataJson: JSON.stringify(data), metadataJson };
}

/** One append at its own revision, the identical call again while its outcome is unknown. */
async function append(
  server: Server,
  batch: readonly RecordedEvent[],
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const [first] = batch;
  if (!first) return;
  const expected = first.revision === 0n ? "no_stream" : first.revision - 1n;
  const events = batch.map(outgoing);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    const answer = await server.append(first.stream, events, expected, ANSWER_MS_MAX);
    if (answer.outcome === "appended") return;
    if (answer.outcome === "conflict") throw isOthers(first);
    if (answer.outcome === "refused")
      throw new Error(`the event store refuses event ${first.revision} of ${first.stream}`);
    await pause(clock, Math.min(1_000, 20 * 2 ** attempt), signal);
  }
  throw new Error(
    "the event store does not answer: the same command again goes on where this one ended",
  );
}

/** Throws unless the store holds the backup's events in their order and nothing else of relai's. */
async function compare(server: Server, db: DatabaseSync, signal: AbortSignal): Promise<void> {
  const wanted = eventsOf(db);
  for await (const event of eventsOn(server, signal)) {
    const { value } = wanted.next();
    if (!value || textOf(event, event.createdMs) !== textOf(value, value.recordedAt))
      throw isOthers(event);
  }
  if (!wanted.next().done) throw new Error("the event store has lost what was restored into it");
}

/** The events of relai's that the store has now, in order. */
async function* eventsOn(server: Server, signal: AbortSignal): AsyncGenerator<ServerEvent> {
  const newest = await newestOfOurs(server);
  if (!newest) return;
  const place = { after: "start", prefixes: STREAM_PREFIXES, eventsMax: COMPARE_EVENTS } as const;
  for await (const batch of server.subscribe({ ...place, signal }, () => undefined))
    for (const event of batch) {
      yield event;
      if (event.position === newest.position) return;
    }
  throw new Error("the event store ended the subscription");
}

function textOf(event: RecordedEvent | ServerEvent, recordedAt: number): string {
  const { id, type, stream, revision, data } = event;
  const metadata = { ...(event.metadata as object), recordedAt };
  return JSON.stringify([id, type, stream, String(revision), data, metadata]);
}
