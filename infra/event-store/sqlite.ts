import { setImmediate as nextTurn } from "node:timers/promises";
import type { Worker } from "node:worker_threads";
import type { RecordedEvent } from "#domain/events/events.ts";
import type { Clock, EventStore } from "#services/ports.ts";
import { createAppendQueue, type Waiting } from "./append-queue.ts";
import { ANY_REVISION, expectedNumber, recordedFrom, rowsOf, toOutcome } from "./append-request.ts";
import { createFollowers } from "./followers.ts";
import { openSqliteReadOnly, type Pragma } from "./sqlite-file.ts";
import { openReads } from "./sqlite-reads.ts";
import { startWriterThread, superviseWriter } from "./sqlite-thread.ts";

export interface SqliteEventStoreOptions {
  /** The file; made if it is not there. Its folder must be there, on a local disk, and used by one process. */
  readonly path: string;
  readonly clock: Clock;
  /** Appends that wait or are being written hold at most this much; what is more is `refused: queue_full`. */
  readonly queueEventsMax?: number;
  readonly queueBytesMax?: number;
  /** The longest wait for an outcome: after it, it is `unknown`. */
  readonly answerMsMax?: number;
  /** A follower that has this many events before it goes back to reading the file. */
  readonly followEventsMax?: number;
  /** Starts a writer thread. Tests that kill the thread keep hold of it here. */
  readonly startWriter?: (path: string) => Worker;
}

export interface SqliteEventStore extends EventStore {
  /** Reads a setting of the writer's own connection, after changing it if a value is given. For diagnosis and tests. */
  pragma(name: Pragma, value?: number): Promise<string | number>;
  /** Takes no more appends, waits for those it has, ends all followers and closes the file. */
  close(): Promise<void>;
}

/**
 * Opens the embedded event store: a SQLite file with one writer thread. Appends are gathered while the thread waits
 * for the disk and go into the next transaction together (group commit); each is answered once it is on the disk.
 * @throws when the file cannot be opened, is no event store, or was written by another version.
 */
export async function openSqliteEventStore(
  options: SqliteEventStoreOptions,
): Promise<SqliteEventStore> {
  const { path, clock, startWriter = startWriterThread, answerMsMax = 10_000 } = options;
  const writer = superviseWriter(() => startWriter(path), clock);
  // The first order starts the thread, which makes the file: only then can it be opened for reading.
  await writer.pragma("journal_mode");
  const db = openSqliteReadOnly(path);
  const { reads, after } = openReads(db, nextTurn);
  const followers = createFollowers({
    after,
    pause: nextTurn,
    bufferEventsMax: options.followEventsMax,
  });
  const queue = createAppendQueue({
    clock,
    eventsMax: options.queueEventsMax ?? 20_000,
    bytesMax: options.queueBytesMax ?? 64 * 1024 * 1024,
    answerMsMax,
    write,
  });
  let closing: Promise<void> | undefined;

  async function write(batch: readonly Waiting[]): Promise<void> {
    const requests = batch.map(({ request }) => request);
    const { judged, recordedAt } = await writer.append(requests, clock.now()).catch((error) => {
      // Nobody knows whether it was written, so neither do those who follow.
      followers.lookAgain();
      throw error;
    });
    const fresh: RecordedEvent[] = [];
    const followed = followers.any();
    for (const [at, { request, events, answer }] of batch.entries()) {
      const judgement = judged[at];
      if (!judgement) continue;
      if (followed) fresh.push(...recordedFrom(request.stream, events, judgement, recordedAt));
      answer(toOutcome(judgement));
    }
    followers.handOver(fresh);
  }

  async function shut(): Promise<void> {
    await queue.close();
    followers.end();
    // The writer closes last: the last connection carries the log back into the file, and a reader could not.
    db.close();
    await writer.close(answerMsMax);
  }

  return {
    append: async (stream, events, expected) => {
      if (events.length === 0) throw new TypeError("an append needs at least one event");
      const request = { stream, expected: expectedNumber(expected), rows: rowsOf(events) };
      return queue.add(request, events);
    },
    async fence(stream, event) {
      const request = { stream, expected: ANY_REVISION, rows: rowsOf([event]) };
      const cause = await queue.add(request, [event]);
      if (cause.outcome === "appended") return cause.position;
      throw new Error(`the fence of ${stream} was not written: ${cause.outcome}`, { cause });
    },
    ...reads,
    follow: followers.follow,
    pragma: writer.pragma,
    close: () => (closing ??= shut()),
  };
}
