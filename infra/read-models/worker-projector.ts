import { Worker } from "node:worker_threads";
import type { ProjectionName, RowsOf, TableOf } from "#projections/all.ts";
import type { PackedRows } from "#projections/rows.ts";
import type { Clock, Projector, RebuildProgress, Telemetry } from "#services/ports.ts";

/** What the projector's thread is started with. */
export interface ProjectorThreadData {
  /** The event store's file, which must be there already. */
  readonly eventStorePath: string;
  /** Where the read models' files lie. */
  readonly folder: string;
  /** How often the thread looks for new events, and how long it gathers them before it stores. */
  readonly pollMs: number;
  readonly batchMs: number;
}

/** What is asked of the projector's thread; the answer carries the same id. */
export type ProjectorAsk = { readonly id: number } & (
  | {
      readonly ask: "rows";
      readonly projection: ProjectionName;
      readonly atLeast: bigint | "start";
      readonly tables: readonly TableOf<ProjectionName>[] | undefined;
    }
  | { readonly ask: "rebuild"; readonly projection: ProjectionName }
  | { readonly ask: "close" }
);

/** What the projector's thread says. */
export type ProjectorSaid =
  | {
      readonly said: "rows";
      readonly id: number;
      readonly position: bigint | "start";
      readonly rows: PackedRows;
    }
  | { readonly said: "progress"; readonly id: number; readonly progress: RebuildProgress }
  | { readonly said: "rebuilt"; readonly id: number; readonly progress: RebuildProgress }
  | { readonly said: "closed"; readonly id: number }
  | { readonly said: "failed"; readonly id: number; readonly message: string }
  | {
      readonly said: "alarm";
      readonly what: string;
      readonly facts: Readonly<Record<string, string | number | boolean>>;
    };

export interface WorkerProjectorOptions
  extends
    Omit<ProjectorThreadData, "pollMs" | "batchMs">,
    Partial<Pick<ProjectorThreadData, "pollMs" | "batchMs">> {
  /** The thread's program: services/projector/main.ts, as the main program that wires it names it. */
  readonly entry: URL;
  readonly clock: Clock;
  readonly onAlarm: Telemetry["alarm"];
  /** Told of each thread that is started. Tests that end the thread keep hold of it here. */
  readonly onStart?: (thread: Worker) => void;
}

type Unsaid<T> = T extends unknown ? Omit<T, "id"> : never;

interface Asked {
  readonly answered: (said: ProjectorSaid) => void;
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
export function openWorkerProjector(options: WorkerProjectorOptions): Projector {
  const { clock, onAlarm, entry, eventStorePath, folder } = options;
  const { pollMs = 100, batchMs = 250 } = options;
  const asked = new Map<number, Asked>();
  let asks = 0;
  let deaths = 0;
  let thread: Worker | undefined;
  let cancelRestart: (() => void) | undefined;
  let closing: Promise<void> | undefined;

  function start(): void {
    const data: ProjectorThreadData = { eventStorePath, folder, pollMs, batchMs };
    const startedMs = clock.elapsed();
    const started = new Worker(entry, { workerData: data, name: "projector" });
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
    if (said.said === "alarm") return onAlarm(said.what, said.facts);
    const one = asked.get(said.id);
    if (!one) return;
    if (said.said === "progress") return one.onProgress?.(said.progress);
    asked.delete(said.id);
    if (said.said === "failed") one.failed(new Error(said.message));
    else one.answered(said);
  }

  function ask(
    what: Unsaid<ProjectorAsk>,
    onProgress?: (progress: RebuildProgress) => void,
  ): Promise<ProjectorSaid> {
    const to = thread;
    if (closing) return Promise.reject(new Error("the projector is closed"));
    if (!to) return Promise.reject(new Error("the projector's thread is being started again"));
    if (asked.size >= ASKED_MAX)
      return Promise.reject(new Error("too much is asked of the projector at once"));
    return new Promise((answered, failed) => {
      asks += 1;
      asked.set(asks, { answered, failed, onProgress });
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is no window, it has no origin
      to.postMessage({ id: asks, ...what } satisfies ProjectorAsk);
    });
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
    async rows(projection, atLeast, tables) {
      const said = await ask({ ask: "rows", projection, atLeast, tables });
      if (said.said !== "rows") throw new Error("the projector's thread gave another answer");
      // The thread answers with the rows of the read model that it was asked for.
      return { position: said.position, rows: said.rows as RowsOf<typeof projection> };
    },
    async rebuild(projection, onProgress) {
      const said = await ask({ ask: "rebuild", projection }, onProgress);
      if (said.said !== "rebuilt") throw new Error("the projector's thread gave another answer");
      return said.progress;
    },
    close: () => (closing ??= close()),
  };
}
