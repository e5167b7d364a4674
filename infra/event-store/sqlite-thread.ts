import { Worker } from "node:worker_threads";
import type { Clock } from "#services/ports.ts";
import type { AppendRequest, Written } from "./append-request.ts";
import type { Pragma } from "./sqlite-file.ts";
import type { WriterOrder } from "./sqlite-writer.ts";

const RESTART_MS_MIN = 20;
const RESTART_MS_MAX = 2_000;

/** Starts a thread for the store at a path. */
export function startWriterThread(path: string): Worker {
  const entry = new URL("./sqlite-writer.ts", import.meta.url);
  return new Worker(entry, { workerData: path, name: "event-store-writer" });
}

/**
 * The writer thread, kept alive: the first order starts it with `start`, and one that died is replaced when it is next
 * needed, after a pause that grows.
 */
export function superviseWriter(start: () => Worker, clock: Clock) {
  let current: Worker | undefined;
  let deaths = 0;
  const waiting: PromiseWithResolvers<unknown>[] = [];

  function launch(): Worker {
    const thread = start();
    let cause: unknown;
    thread.on("message", (answer: unknown) => {
      deaths = 0;
      waiting.shift()?.resolve(answer);
    });
    thread.on("error", (error) => {
      cause = error;
    });
    thread.on("exit", () => {
      deaths += 1;
      current = undefined;
      const why = cause instanceof Error ? cause.message : "it ended";
      const gone = new Error(`the event store's writer thread is gone: ${why}`, { cause });
      for (const order of waiting.splice(0)) order.reject(gone);
    });
    return thread;
  }

  async function ask(order: WriterOrder): Promise<unknown> {
    if (!current && deaths > 0) {
      const pauseMs = Math.min(RESTART_MS_MAX, RESTART_MS_MIN * 2 ** Math.min(deaths - 1, 20));
      await new Promise<void>((resolve) => clock.timer(pauseMs, resolve));
    }
    current ??= launch();
    const answer = Promise.withResolvers<unknown>();
    waiting.push(answer);
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is no window, it has no origin
    current.postMessage(order);
    return answer.promise;
  }

  // Orders are answered one after the other. Each rejects when the thread died before, or could not be started.
  return {
    /** Writes appends in one transaction, and answers when they are on the disk. */
    append: (requests: readonly AppendRequest[], nowMs: number) =>
      ask({ order: "append", requests, nowMs }) as Promise<Written>,
    /** Reads a setting of the thread's connection, after changing it if a value is given. */
    pragma: (name: Pragma, value?: number) =>
      ask({ order: "pragma", name, value }) as Promise<string | number>,
    /** Lets the thread close its file and waits for its end, at most `closeMsMax`. */
    async close(closeMsMax: number): Promise<void> {
      const worker = current;
      if (!worker) return;
      const ended = Promise.withResolvers<unknown>();
      worker.once("exit", ended.resolve);
      const cancel = clock.timer(closeMsMax, () => {
        // A thread that hangs in the disk cannot be ended before the disk answers: nobody waits for that.
        void worker.terminate();
        ended.resolve(undefined);
      });
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is no window, it has no origin
      worker.postMessage({ order: "close" } satisfies WriterOrder);
      await ended.promise;
      cancel();
    },
  };
}
