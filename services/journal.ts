import { newEvent, streams, UnreadableEvent, type NewEvent } from "#domain/events/events.ts";
import {
  APPEND_BYTES_MAX,
  APPEND_EVENTS_MAX,
  type AppendOutcome,
  type Clock,
  type EventStore,
  type ExpectedRevision,
  type RefusedAppend,
  type Telemetry,
} from "./ports.ts";
import { backOffMs, sleep, TIMED_OUT, within } from "./waiting.ts";
import { bytesOf, eventsForward, metadataOf, type Author } from "./writers.ts";

/**
 * What became of events given to the journal. `dropped`, `too_large` and `sealed` are certainly not written.
 * `dropped: fenced` — the taking rests on an owner epoch that is over; `dropped: refused` — the store does not take it.
 * `too_large` — no append can carry it, now or later: a fault, with an alarm. It must not be given again.
 */
export type RecordOutcome =
  | { readonly outcome: "recorded"; readonly position: bigint }
  | { readonly outcome: "dropped"; readonly why: "fenced" | "refused" }
  | { readonly outcome: "too_large" }
  | { readonly outcome: "sealed" };

/** Events that are recorded together or not at all. */
export interface JournalEntry {
  readonly events: readonly NewEvent[];
  /** The owner epoch under which the entry takes money; undefined for one that takes none and so outlives every fence. */
  readonly takingUnder?: number;
}

/**
 * The stream of one running process, of which it is the only writer (but for marks: fences and the seal). One append is
 * in flight at a time; all that waits meanwhile forms the next one.
 */
export type Journal = Awaited<ReturnType<typeof openJournal>>;

/** How many requests may have a place in a journal at once. */
const PLACES_MAX = 20_000;
/** A store that has not answered for this long gets no new requests. */
const STUCK_MS_MAX = 5000;
/** After this long without a written event the tail is read before anything is taken; the read may take so long. */
const FRESH_MS_MAX = 30_000;
const LOOK_MS_MAX = 1000;

/** Refusals that the store itself gives, after a look at what it has. */
function hasLooked(reason: RefusedAppend): boolean {
  return reason === "disk_full" || reason === "read_only" || reason === "too_large";
}

interface Waiting {
  readonly entry: JournalEntry;
  readonly bytes: number;
  readonly settle: (outcome: RecordOutcome) => void;
}

export interface JournalOptions {
  store: EventStore;
  clock: Clock;
  telemetry: Pick<Telemetry, "alarm">;
  author: Author;
  writerEpoch: number;
  placesMax?: number;
  /** Told of the owner epoch that a fence names, as soon as it is read. */
  onFenced?: (ownerEpoch: number) => void;
}

/** Opens a writer's journal: reads the marks that already stand in it, then it is ready. */
export async function openJournal(options: JournalOptions) {
  const { store, clock, telemetry, author, writerEpoch } = options;
  const placesMax = options.placesMax ?? PLACES_MAX;
  const stream = streams.journal(author.region, writerEpoch);
  const queue: Waiting[] = [];
  let places = 0;
  let revision: ExpectedRevision = "no_stream";
  /** The newest owner epoch that a fence in this journal names; takings under older ones are not appended. */
  let fencedBelow = 0;
  let sealed = false;
  let isUnreadable = false;
  let pumping = false;
  /** When the store was given what it has not taken yet; undefined while nothing waits for it. */
  let stuckSince: number | undefined;
  let refusals = 0;
  /** How many entries at the head of the queue go one by one: together they were more than the store takes. */
  let alone = 0;
  let closing = false;
  /** When we last asked the store something whose answer says that there was no seal. */
  let unsealedAt = clock.elapsed();
  let looking: Promise<boolean> | undefined;
  const idle: (() => void)[] = [];
  const { promise: sealedByOther, resolve: tellSealed } = Promise.withResolvers<void>();

  /** Reads what others have put behind a revision, fences and the seal, and gives the last one that is there. */
  async function readBehind(known: ExpectedRevision): Promise<ExpectedRevision> {
    const from: bigint | "start" = known === "no_stream" ? "start" : known + 1n;
    for await (const event of eventsForward(store, stream, from)) {
      known = event.revision;
      if (event.type === "OwnerFenced.v1" && event.data.ownerEpoch > fencedBelow) {
        fencedBelow = event.data.ownerEpoch;
        options.onFenced?.(fencedBelow);
      }
      if (event.type === "JournalSealed.v1") {
        sealed = true;
        tellSealed();
      }
    }
    return known;
  }

  /** Says once that a newer version has put a mark there that this one does not know: what it forbids nobody here can tell. */
  function tellUnreadable(error: unknown): undefined {
    if (!(error instanceof UnreadableEvent) || isUnreadable) return;
    isUnreadable = true;
    telemetry.alarm("event_unreadable", { stream, reason: error.message });
  }

  /** Reads the marks behind our last revision until it has them, and goes on from there. */
  async function readMarks(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const known = await readBehind(revision).catch(tellUnreadable);
      if (known !== undefined) {
        revision = known;
        return;
      }
      await sleep(clock, backOffMs(attempt, 20, 1000));
    }
  }

  /** Only looks: our own revision stays where it is, because an append that is on its way must be repeated as it was. */
  async function lookBehind(): Promise<boolean> {
    const begunMs = clock.elapsed();
    const known = await within(clock, LOOK_MS_MAX, readBehind(revision)).catch(() => TIMED_OUT);
    if (known === TIMED_OUT) return false;
    if (!sealed) unsealedAt = Math.max(unsealedAt, begunMs);
    return !sealed;
  }

  const isStuck = () => stuckSince !== undefined && clock.elapsed() - stuckSince > STUCK_MS_MAX;

  const isOver = (entry: JournalEntry) =>
    entry.takingUnder !== undefined && entry.takingUnder < fencedBelow;

  /** Takes the next append's entries off the queue, dropping takings whose owner is over. */
  function nextBatch(): Waiting[] {
    const batch: Waiting[] = [];
    let events = 0;
    let bytes = 0;
    for (;;) {
      const first = queue[0];
      if (!first) return batch;
      if (isOver(first.entry)) {
        queue.shift();
        first.settle({ outcome: "dropped", why: "fenced" });
        continue;
      }
      events += first.entry.events.length;
      bytes += first.bytes;
      if (batch.length > 0 && (events > APPEND_EVENTS_MAX || bytes > APPEND_BYTES_MAX))
        return batch;
      queue.shift();
      batch.push(first);
      if (alone > 0) {
        alone -= 1;
        return batch;
      }
    }
  }

  /**
   * The store takes no append of this size. Several entries go again one by one; one that is too large by itself would
   * be refused for ever, so it ends here, and whoever waits behind it goes on.
   */
  function cutOrGiveUp(batch: readonly Waiting[]): void {
    const [only, ...others] = batch;
    if (!only) return;
    if (others.length > 0) {
      alone = batch.length;
      queue.unshift(...batch);
      return;
    }
    const [event] = only.entry.events;
    const requestId = event?.metadata.$correlationId ?? "";
    telemetry.alarm("entry_too_large", { stream, requestId, bytes: only.bytes });
    only.settle({ outcome: "too_large" });
  }

  /** Appends one batch to its end: appended, dropped, or back in the queue behind a mark that was read. */
  async function appendBatch(batch: readonly Waiting[]): Promise<void> {
    const events = batch.flatMap((waiting) => waiting.entry.events);
    let mayBeWritten = false;
    // What is written was not sealed when it was first sent; the answer, or a repeat, may be read long after.
    const begunMs = clock.elapsed();
    stuckSince ??= begunMs;
    for (let attempt = 0; ; attempt++) {
      const answer = await store
        .append(stream, events, revision)
        .catch((): AppendOutcome => ({ outcome: "unknown", reason: "the call failed" }));
      if (answer.outcome === "appended") {
        revision = answer.revision;
        unsealedAt = Math.max(unsealedAt, begunMs);
        stuckSince = undefined;
        refusals = 0;
        for (const waiting of batch)
          waiting.settle({ outcome: "recorded", position: answer.position });
        return;
      }
      if (answer.outcome === "conflict") {
        // Certainly not written. Whoever was faster left a mark; what it does not forbid is cut into a new batch.
        const before = revision;
        await readMarks();
        if (revision === before) await sleep(clock, backOffMs(refusals++, 20, 1000));
        queue.unshift(...batch);
        return;
      }
      // A queue that is full has not looked at the events: it says nothing of an earlier call that went unanswered.
      const isCertain = !mayBeWritten || (answer.outcome === "refused" && hasLooked(answer.reason));
      if (answer.outcome === "refused" && answer.reason === "too_large") return cutOrGiveUp(batch);
      if (answer.outcome === "refused" && isCertain) {
        const kept = batch.filter((waiting) => {
          if (waiting.entry.takingUnder === undefined) return true;
          waiting.settle({ outcome: "dropped", why: "refused" });
          return false;
        });
        queue.unshift(...kept);
        await sleep(clock, backOffMs(refusals++, 20, 1000));
        return;
      }
      // Unknown: the identical call again, never another cut, or one fact could be written twice.
      mayBeWritten = true;
      await sleep(clock, backOffMs(attempt, 20, 1000));
    }
  }

  async function pump(): Promise<void> {
    if (pumping) return;
    pumping = true;
    try {
      while (!sealed && queue.length > 0) {
        // All requests that this turn of the event loop serves share one append: it costs a commit, however many they are.
        await sleep(clock, 0);
        const batch = nextBatch();
        if (batch.length > 0) await appendBatch(batch);
      }
      if (sealed) for (const waiting of queue.splice(0)) waiting.settle({ outcome: "sealed" });
    } finally {
      pumping = false;
      // Nothing waits, so nothing is stuck: the next request finds out whether the store takes events again.
      stuckSince = undefined;
    }
    for (const wake of idle.splice(0)) wake();
  }

  function enqueue(entry: JournalEntry): Promise<RecordOutcome> {
    return new Promise((settle) => {
      let bytes = 0;
      for (const event of entry.events) bytes += bytesOf(event);
      queue.push({ entry, bytes, settle });
      void pump();
    });
  }

  await readMarks();
  return {
    stream,
    writerEpoch,
    /** Resolves when the journal is sealed by somebody else. */
    sealedByOther,
    /** True once somebody, or this process itself, has sealed it: nothing more can be recorded here. */
    isSealed: () => sealed,
    /**
     * Takes a place in the bounded queue for one request, before anything is taken for it; false when there is none, or
     * when the store has not answered for so long that nothing new should wait for it.
     */
    reserve(): boolean {
      if (sealed || closing || isStuck() || places >= placesMax) return false;
      places += 1;
      return true;
    },
    /** What was given to the store has had no outcome for so long that nothing new should wait for it. */
    isStuck,
    /** How many requests have a place. */
    placesTaken: () => places,
    /** Every place is taken: this process has as much to do as it can. */
    isFull: () => places >= placesMax,
    /**
     * True when it is known of the last half minute that the journal was not sealed: an event of ours was written then.
     * A process that was stopped for longer may be taken as dead, and takes nothing before it has looked.
     */
    isFresh: () => clock.elapsed() - unsealedAt <= FRESH_MS_MAX,
    /**
     * Reads the journal's tail, unless it is being read: true when it is not sealed. False also when the store does not
     * say so within a second.
     */
    look(): Promise<boolean> {
      looking ??= lookBehind().finally(() => {
        looking = undefined;
      });
      return looking;
    },
    release(): void {
      places -= 1;
    },
    /** Never rejects. Waits as long as the store needs: callers set their own limit. */
    record(entry: JournalEntry): Promise<RecordOutcome> {
      if (sealed || closing) return Promise.resolve({ outcome: "sealed" });
      if (isOver(entry)) return Promise.resolve({ outcome: "dropped", why: "fenced" });
      return enqueue(entry);
    },
    /** Ends it cleanly after everything that waits is in; takes no new events from then on. */
    async seal(): Promise<void> {
      const isBusy = () => !sealed && (pumping || queue.length > 0);
      while (isBusy()) await new Promise<void>((resolve) => idle.push(resolve));
      if (sealed || closing) return;
      closing = true;
      const metadata = metadataOf(clock, author, stream);
      const event = newEvent(stream, "sealed", "JournalSealed.v1", { by: "writer" }, metadata);
      await enqueue({ events: [event] });
      sealed = true;
    },
  };
}

/** Every writer writes at least this often while it lives, where writers are separate processes. */
export const ALIVE_EVERY_MS = 10_000;

/** Writes a sign of life into a journal every {@link ALIVE_EVERY_MS}, until stopped or sealed. `onBeat` is told of each. */
export function keepAlive(
  journal: Journal,
  clock: Clock,
  author: Author,
  onBeat = () => {},
): () => void {
  let cancel = () => {};
  let stopped = false;
  let count = 0;
  function arm(): void {
    if (stopped) return;
    cancel = clock.timer(ALIVE_EVERY_MS, () => {
      if (journal.isSealed()) return;
      const metadata = metadataOf(clock, author, journal.stream);
      const event = newEvent(journal.stream, `alive:${count++}`, "WriterAlive.v1", {}, metadata);
      void journal.record({ events: [event] }).then(arm);
      onBeat();
    });
  }
  arm();
  return () => {
    stopped = true;
    cancel();
  };
}
