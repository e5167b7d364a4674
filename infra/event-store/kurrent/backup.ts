import type { RecordedEvent } from "#domain/events/events.ts";
import { intoNewFile, makeCopy, type StoreCopy } from "#infra/event-store/backup.ts";
import { openSqliteFile } from "#infra/event-store/sqlite-file.ts";
import type { EventStore } from "#services/ports.ts";

/** Told how much is done, and how far that is, from 0 to 1. */
export type OnProgress = (events: number, fraction: number) => void;

/**
 * Writes every event that a store on a server has when this is called, and perhaps some later ones, into the file `to`,
 * which must not exist yet, also while others write to the store; see {@link intoNewFile}. The file is one of the
 * embedded event store, and counts positions from 1. What cannot be done is thrown as an error of one sentence.
 */
export function backUpServer(
  store: Pick<EventStore, "head" | "follow">,
  to: string,
  onProgress: OnProgress,
): Promise<StoreCopy> {
  return intoNewFile(to, (part) =>
    makeCopy("the event store", part, () => writeEvents(store, part, onProgress)),
  );
}

async function writeEvents(
  store: Pick<EventStore, "head" | "follow">,
  path: string,
  onProgress: OnProgress,
): Promise<void> {
  using db = openSqliteFile(path);
  // All of it is synced when it is whole; until then it is nobody's.
  db.exec("PRAGMA synchronous = OFF");
  const addStream = db.prepare("INSERT INTO streams (stream, name) VALUES (?, ?)");
  const insert = db.prepare(
    `INSERT INTO events (position, stream, revision, recorded_at, id, type, data, metadata)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const streams = new Map<string, { readonly number: number; next: bigint }>();
  let position = 0;

  function write(event: RecordedEvent): void {
    let stream = streams.get(event.stream);
    if (!stream) {
      stream = { number: streams.size + 1, next: 0n };
      streams.set(event.stream, stream);
      addStream.run(stream.number, event.stream);
    }
    if (event.revision !== stream.next)
      throw new Error(`the event store has lost event ${stream.next} of ${event.stream}`);
    stream.next += 1n;
    position += 1;
    const { revision, recordedAt, id, type, data, metadata } = event;
    const texts = [id, type, JSON.stringify(data), JSON.stringify(asWritten(metadata))];
    insert.run(position, stream.number, revision, recordedAt, ...texts);
  }

  const head = await store.head();
  if (head === "start") return;
  const { signal } = new AbortController();
  for await (const batch of store.follow({ after: "start", signal })) {
    db.exec("BEGIN");
    for (const event of batch) write(event);
    db.exec("COMMIT");
    const reached = batch.at(-1)?.position ?? 0n;
    onProgress(position, Number(reached) / Number(head));
    if (reached >= head) return;
  }
  throw new Error("the event store was closed");
}

/** Metadata without what a restore has added to it. */
function asWritten(metadata: object): object {
  const { recordedAt: _, ...written } = metadata as { recordedAt?: unknown };
  return written;
}
