import { Worker } from "node:worker_threads";
import type { Clock } from "#services/ports.ts";
import type { WriterAnswer, WriterOrder } from "./sqlite-writer.ts";

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
  let starting: Promise<Worker> | undefined;
  let deaths = 0;
  const waiting: PromiseWithResolvers<WriterAnswer>[] = [];

  function launch(): Promise<Worker> {
    const up = Promise.withResolvers<Worker>();
    const thread = start();
    let cause: unknown;
    thread.on("message", (message: WriterAnswer) => {
      if (message.answer === "ready") {
        current = thread;
        up.resolve(thread);
        return;
      }
      if (message.answer === "written") deaths = 0;
      waiting.shift()?.resolve(message);
    });
    thread.on("error", (error) => {
      cause = error;
    });
    thread.on("exit", () => {
      deaths += 1;
      const why = cause instanceof Error ? cause.message : "it ended";
      const gone = new Error(`the event store's writer thread is gone: ${why}`, { cause });
      if (current === thread) current = undefined;
      up.reject(gone);
      for (const order of waiting.splice(0)) order.reject(gone);
    });
    return up.promise;
  }

  async function restart(): Promise<Worker> {
    if (deaths > 0) {
      const pauseMs = Math.min(RESTART_MS_MAX, RESTART_MS_MIN * 2 ** Math.min(deaths - 1, 20));
      await new Promise<void>((resolve) => clock.timer(pauseMs, resolve));
    }
    return launch();
  }

  const thread = () =>
    (starting ??= restart().finally(() => {
      starting = undefined;
    }));

  return {
    /**
     * Gives an order and waits for its answer; orders are answered one after the other.
     * Rejects when the thread died before it answered, or could not be started.
     */
    async ask(order: Exclude<WriterOrder, { order: "close" }>): Promise<WriterAnswer> {
      const worker = current ?? (await thread());
      const answer = Promise.withResolvers<WriterAnswer>();
      waiting.push(answer);
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is no window, it has no origin
      worker.postMessage(order);
      return answer.promise;
    },
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
