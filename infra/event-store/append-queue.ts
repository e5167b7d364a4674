import type { NewEvent } from "#domain/events/events.ts";
import type { AppendOutcome, Clock, RefusedAppend } from "#services/ports.ts";
import { bytesOfRows, isTooLarge, type AppendRequest } from "./append-request.ts";

/** An append that waits for its outcome. */
export interface Waiting {
  readonly request: AppendRequest;
  readonly events: readonly NewEvent[];
  readonly bytes: number;
  readonly answer: (outcome: AppendOutcome) => void;
}

/**
 * The bounded queue before the writer thread: one transaction at a time is with the thread, and what comes in the
 * meantime makes up the next one. `write` gives a transaction over and answers its appends when it is written; it
 * rejects when nobody knows whether it was.
 */
export function createAppendQueue(options: {
  clock: Clock;
  eventsMax: number;
  bytesMax: number;
  answerMsMax: number;
  write: (batch: readonly Waiting[]) => Promise<void>;
}) {
  const { clock, eventsMax, bytesMax, answerMsMax, write } = options;
  let queue: Waiting[] = [];
  let heldEvents = 0;
  let heldBytes = 0;
  let closed = false;
  let writing: Promise<void> | undefined;

  /** Takes an append and answers when its outcome is known, at the latest after the longest wait. */
  function add(request: AppendRequest, events: readonly NewEvent[]): Promise<AppendOutcome> {
    const refused = (reason: RefusedAppend) =>
      Promise.resolve({ outcome: "refused" as const, reason });
    if (closed) return refused("closed");
    if (isTooLarge(request.rows)) return refused("too_large");
    const bytes = bytesOfRows(request.rows);
    if (heldEvents + events.length > eventsMax || heldBytes + bytes > bytesMax)
      return refused("queue_full");
    heldEvents += events.length;
    heldBytes += bytes;
    return new Promise((answer) => {
      queue.push({ request, events, bytes, answer });
      writing ??= writeQueue();
    });
  }

  async function writeQueue(): Promise<void> {
    // Appends that are made in the same turn belong together.
    await Promise.resolve();
    while (queue.length > 0) {
      const batch = queue;
      queue = [];
      await writeBatch(batch);
      release(batch);
    }
    writing = undefined;
  }

  async function writeBatch(batch: readonly Waiting[]): Promise<void> {
    let cancel = clock.timer(answerMsMax, giveUp);
    function giveUp(): void {
      const late = queue;
      queue = [];
      answerUnknown([...batch, ...late], "the disk did not answer in time");
      release(late);
      cancel = clock.timer(answerMsMax, giveUp);
    }
    try {
      await write(batch);
    } catch (error) {
      answerUnknown(batch, error instanceof Error ? error.message : "the writer thread is gone");
    } finally {
      cancel();
    }
  }

  function release(batch: readonly Waiting[]): void {
    for (const { events, bytes } of batch) {
      heldEvents -= events.length;
      heldBytes -= bytes;
    }
  }

  return {
    add,
    /** Takes no more, and resolves when everything that was taken is settled. */
    close(): Promise<void> {
      closed = true;
      return writing ?? Promise.resolve();
    },
  };
}

function answerUnknown(batch: readonly Waiting[], reason: string): void {
  for (const { answer } of batch) answer({ outcome: "unknown", reason });
}
