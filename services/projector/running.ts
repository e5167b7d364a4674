import { UnreadableEvent, type RecordedEvent } from "#domain/events/events.ts";
import { PROJECTIONS } from "#projections/all.ts";
import type { Projection } from "#projections/projection.ts";
import type { Clock, EventStore, ProjectorState, ReadModels, Telemetry } from "#services/ports.ts";
import { backOffMs, sleep } from "#services/waiting.ts";
import {
  earlier,
  foldInto,
  NotRead,
  openLane,
  save,
  type KnownStore,
  type Lane,
  type Place,
} from "./lane.ts";
import { createWaiters } from "./waiters.ts";

export interface ProjectorParts {
  readonly store: Pick<EventStore, "follow"> & KnownStore;
  readonly readModels: ReadModels;
  readonly clock: Clock;
  /** All of them, unless these are named. */
  readonly projections?: readonly Projection[];
  /** What was folded is stored after this long, or after so many events. */
  readonly batchMs?: number;
  readonly batchEventsMax?: number;
  /** How long `rows` waits while its read model does not move. */
  readonly stillMsMax?: number;
  /** Stops everything where it stands, as a crash would: nothing more is stored. */
  readonly signal: AbortSignal;
  readonly onAlarm: Telemetry["alarm"];
}

const RETRY_MS_FIRST = 100;
const RETRY_MS_MAX = 5_000;
/** A read model that cannot be read holds the others up: for half a minute, then it stands still alone. */
const READ_AGAIN_MS_MAX = 1_000;
const READS_MAX = 30;

/** A projector at work: its lanes, and what may be done to them, one thing after the other. */
export type Running = Awaited<ReturnType<typeof createRunning>>;

/** Opens the lanes. Nothing is read from the store before `feed` is called. */
export async function createRunning(parts: ProjectorParts) {
  const { clock, onAlarm } = parts;
  const { batchMs = 250, batchEventsMax = 10_000, stillMsMax = 30_000 } = parts;
  const stopping = new AbortController();
  const signal = AbortSignal.any([stopping.signal, parts.signal]);
  const lanes: Lane[] = [];
  for (const projection of parts.projections ?? PROJECTIONS)
    lanes.push(await openLane(projection, parts.readModels, parts.store, onAlarm));
  const waiters = createWaiters(clock, stillMsMax);
  let seen: Place = lanes.map((lane) => lane.committed).reduce(earlier);
  let inHand: readonly RecordedEvent[] = [];
  let pending = 0;
  let failures = 0;
  let cancelTimer: (() => void) | undefined;
  let onSaved: (() => void) | undefined;
  let last: Promise<unknown> = Promise.resolve();

  /** Runs one piece of work after the other. */
  function turn<T>(work: () => Promise<T>): Promise<T> {
    const done = last.then(work);
    last = done.catch(() => undefined);
    return done;
  }

  function commitIn(delayMs: number): void {
    cancelTimer = clock.timer(delayMs, () => {
      cancelTimer = undefined;
      void turn(commitAll);
    });
  }

  /** Stores every lane. Those that fail are tried again later; it never throws. */
  async function commitAll(): Promise<void> {
    if (signal.aborted) return;
    cancelTimer?.();
    cancelTimer = undefined;
    pending = 0;
    let failed = false;
    for (const lane of lanes) {
      try {
        await save(lane);
      } catch (error) {
        failed = true;
        const facts = { projection: lane.projection.name, position: String(lane.folded) };
        onAlarm("read_model_not_stored", { ...facts, reason: messageOf(error) });
      }
      if (signal.aborted) return;
      await waiters.serve(lane);
    }
    if (failed) commitIn(backOffMs(failures++, RETRY_MS_FIRST, RETRY_MS_MAX));
    else failures = 0;
    releaseIfSaved();
  }

  /** To be called when a lane's unsaved writes are stored, or have become void. */
  function releaseIfSaved(): void {
    if (signal.aborted || !lanes.some((lane) => lane.unsaved)) onSaved?.();
  }

  function fail(lane: Lane, error: Error): void {
    lane.failure ??= error;
    waiters.fail(lane, lane.failure);
  }

  /** False where a read model could not be read: what it lacks of them is to be folded again, unless it is given up. */
  function foldAll(events: readonly RecordedEvent[], givesUp: boolean): boolean {
    let isFolded = true;
    for (const lane of lanes) {
      if (lane.failure) continue;
      const { name } = lane.projection;
      try {
        foldInto(lane, events);
      } catch (error) {
        const reason = messageOf(error instanceof NotRead ? error.cause : error);
        if (error instanceof NotRead && !givesUp) {
          isFolded = false;
          onAlarm("read_model_not_read", { projection: name, reason });
          continue;
        }
        onAlarm("projection_stopped", { projection: name, reason });
        fail(lane, new Error(`the projection ${name} stands still: ${reason}`, { cause: error }));
      }
    }
    return isFolded;
  }

  function standStill(): void {
    cancelTimer?.();
    for (const lane of lanes) fail(lane, new Error("the projector was stopped"));
    releaseIfSaved();
  }
  if (signal.aborted) standStill();
  else signal.addEventListener("abort", standStill, { once: true });

  return {
    parts: { ...parts, batchEventsMax },
    lanes,
    waiters,
    /** Aborted when the projector stops, by whichever way. */
    signal,
    stop: () => stopping.abort(),
    seen: () => seen,
    /** What the store handed over last; nothing when it is folded and the next is asked for. */
    handed: (events: readonly RecordedEvent[]) => void (inHand = events),
    state(): ProjectorState {
      const [oldest] = inHand;
      const ms = oldest ? Math.max(0, clock.now() - oldest.recordedAt) : 0;
      const stopped = lanes
        .filter(({ failure }) => failure)
        .map(({ projection }) => projection.name);
      return { lag: { events: inHand.length, ms }, stopped };
    },
    turn,
    commitAll,
    /**
     * Folds a batch; stores when it is time, or when somebody waits for what is folded now. False where it has to be given
     * again: a read model could not be read, or what was folded before is not stored yet and so could not be read either.
     */
    async take(events: readonly RecordedEvent[], givesUp = false): Promise<boolean> {
      if (signal.aborted) return true;
      if (lanes.some(({ unsaved }) => unsaved)) return false;
      const isFolded = foldAll(events, givesUp);
      const newest = events.at(-1);
      if (newest && isFolded) seen = newest.position;
      pending += events.length;
      if (pending >= batchEventsMax || lanes.some(waiters.isDue)) await commitAll();
      else if (!cancelTimer) commitIn(batchMs);
      return isFolded;
    },
    /** Waits while a read model cannot be stored, so that no more than one batch is ever kept for it. */
    async saved(): Promise<void> {
      const { promise, resolve } = Promise.withResolvers<void>();
      onSaved = resolve;
      releaseIfSaved();
      await promise;
    },
    releaseIfSaved,
    /** Every projection stands still from here on, once what it has folded is stored. */
    async failAll(error: Error): Promise<void> {
      await commitAll();
      for (const lane of lanes) fail(lane, error);
    },
    fail,
  };
}

/** Reads the store until told to stop. A store that fails is followed again from the last event that was folded. */
export async function feed(running: Running): Promise<void> {
  const { parts, signal } = running;
  for (let attempt = 0; !signal.aborted; attempt += 1) {
    try {
      for await (const events of parts.store.follow({ after: running.seen(), signal })) {
        attempt = 0;
        running.handed(events);
        for (let tries = 0; ; tries += 1) {
          const givesUp = tries >= READS_MAX;
          if (await running.turn(() => running.take(events, givesUp))) break;
          await sleep(parts.clock, backOffMs(tries, RETRY_MS_FIRST, READ_AGAIN_MS_MAX));
        }
        await running.saved();
        running.handed([]);
      }
      if (signal.aborted) return;
      await running.turn(() => running.failAll(new Error("the event store was closed")));
      return;
    } catch (error) {
      if (signal.aborted) return;
      const reason = messageOf(error);
      const facts = { position: String(running.seen()), reason };
      if (error instanceof UnreadableEvent) {
        parts.onAlarm("event_unreadable", facts);
        const failure = new Error(`the projections stand still: ${reason}`, { cause: error });
        await running.turn(() => running.failAll(failure));
        return;
      }
      parts.onAlarm("event_store_not_followed", facts);
      await sleep(parts.clock, backOffMs(attempt, RETRY_MS_FIRST, RETRY_MS_MAX));
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
