import { Worker } from "node:worker_threads";
import type { ProjectionName, RowsOf, TableOf } from "#projections/all.ts";
import type { Slice } from "#projections/rows.ts";
import type {
  Clock,
  Projector,
  ProjectorState,
  RebuildProgress,
  Telemetry,
} from "#services/ports.ts";

/** Where the events are: in a file, which must be there already, or on a server. */
export type EventsPlace =
  | { readonly path: string }
  | { readonly url: string; readonly insecure: boolean };

/** What the projector's thread is started with. */
export interface ProjectorThreadData {
  readonly events: EventsPlace;
  /** Where the read models' files lie. */
  readonly folder: string;
}

/** What is asked of the projector's thread. */
type Ask =
  | {
      readonly ask: "rows";
      readonly projection: ProjectionName;
      readonly atLeast: bigint | "start";
      readonly tables: readonly TableOf<ProjectionName>[] | undefined;
      readonly slice: Slice | undefined;
    }
  | { readonly ask: "rebuild"; readonly projection: ProjectionName }
  | { readonly ask: "state" }
  | { readonly ask: "close" };

/** An ask on its way; what is said to it carries the same id. */
export type ProjectorAsk = Ask & { readonly id: number };

/** What the projector's thread says. An answer is what its ask is for: rows with their position, its state, or the last progress. */
export type ProjectorSaid =
  | { readonly said: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly said: "progress"; readonly id: number; readonly progress: RebuildProgress }
  | { readonly said: "failed"; readonly id: number; readonly message: string }
  | {
      readonly said: "alarm";
      readonly what: string;
      readonly facts: Parameters<Telemetry["alarm"]>[1];
    };

export interface WorkerProjectorOptions extends ProjectorThreadData {
  /** The thread's program: services/projector/main.ts, as the main program that wires it names it. */
  readonly entry: URL;
  readonly clock: Clock;
  readonly onAlarm: Telemetry["alarm"];
  /** Told of each thread that is started. Tests that end the thread keep hold of it here. */
  readonly onStart?: (thread: Worker) => void;
}

export interface WorkerProjector extends Projector {
  /** Resolves when there is an event that this version cannot read; nothing is folded from there on. */
  readonly outdated: Promise<void>;
}

interface Asked {
  readonly answered: (answer: unknown) => void;
  readonly failed: (error: Error) => void;
  readonly onProgress: ((progress: RebuildProgress) => void) | undefined;
}

const ASKED_MAX = 1_000;
const CLOSE_MS_MAX = 10_000;
const RESTART_MS_FIRST = 100;
const RESTART_MS_MAX = 10_000;
/** A thread that lived this long before it died is started again at once. */
const LIVED_MS = 60_000;

/**
 * The projector in a thread of its own, as the main thread sees it. When the thread dies, what was asked of it is
 * rejected, an alarm is raised, and another one is started; what is asked in between is rejected too.
 */
export function openWorkerProjector(options: WorkerProjectorOptions): WorkerProjector {
  const { clock, onAlarm, entry, events, folder } = options;
  const asked = new Map<number, Asked>();
  const outdated = Promise.withResolvers<void>();
  let asks = 0;
  let deaths = 0;
  let thread: Worker | undefined;
  let cancelRestart: (() => void) | undefined;
  let closing: Promise<void> | undefined;

  function start(): void {
    const startedMs = clock.elapsed();
    const workerData: ProjectorThreadData = { events, folder };
    const started = new Worker(entry, { workerData, name: "projector" });
    let why = "it ended";
    started.on("message", heard);
    started.on("error", (error) => {
      why = error instanceof Error ? error.message : why;
    });
    started.on("exit", () => {
      thread = undefined;
      if (clock.elapsed() - startedMs > LIVED_MS) deaths = 0;
      died(why);
    });
    thread = started;
    options.onStart?.(started);
  }

  function died(why: string): void {
    const gone = new Error(`the projector's thread is gone: ${why}`);
    for (const one of asked.values()) one.failed(gone);
    asked.clear();
    if (closing) return;
    onAlarm("projector_thread_gone", { reason: why });
    const delayMs = Math.min(RESTART_MS_MAX, RESTART_MS_FIRST * 2 ** Math.min(deaths, 20));
    deaths += 1;
    cancelRestart = clock.timer(delayMs, start);
  }

  function heard(said: ProjectorSaid): void {
    if (said.said === "alarm") {
      if (said.what === "event_unreadable") outdated.resolve();
      return onAlarm(said.what, said.facts);
    }
    const one = asked.get(said.id);
    if (!one) return;
    if (said.said === "progress") return one.onProgress?.(said.progress);
    asked.delete(said.id);
    if (said.said === "failed") one.failed(new Error(said.message));
    else one.answered(said.answer);
  }

  async function ask(what: Ask, onProgress?: (progress: RebuildProgress) => void) {
    if (closing) throw new Error("the projector is closed");
    if (!thread) throw new Error("the projector's thread is being started again");
    if (asked.size >= ASKED_MAX) throw new Error("too much is asked of the projector at once");
    const { promise, resolve: answered, reject: failed } = Promise.withResolvers<unknown>();
    asks += 1;
    asked.set(asks, { answered, failed, onProgress });
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is no window, it has no origin
    thread.postMessage({ id: asks, ...what } satisfies ProjectorAsk);
    return promise;
  }

  /** Lets the thread store what it has folded, and ends it if that takes too long. */
  async function close(): Promise<void> {
    cancelRestart?.();
    const last = thread;
    if (!last) return;
    const exited = new Promise<void>((resolve) => last.once("exit", () => resolve()));
    const cancel = clock.timer(CLOSE_MS_MAX, () => void last.terminate());
    // A thread that cannot close is ended all the same: its read models are as of its last commit.
    await ask({ ask: "close" }).catch(() => last.terminate());
    await exited;
    cancel();
  }

  start();
  return {
    outdated: outdated.promise,
    async rows(projection, atLeast, tables, slice) {
      const answer = await ask({ ask: "rows", projection, atLeast, tables, slice });
      return answer as { position: bigint | "start"; rows: RowsOf<typeof projection> };
    },
    state: () => ask({ ask: "state" }) as Promise<ProjectorState>,
    rebuild: (projection, onProgress) =>
      ask({ ask: "rebuild", projection }, onProgress) as Promise<RebuildProgress>,
    close: () => (closing ??= close()),
  };
}
