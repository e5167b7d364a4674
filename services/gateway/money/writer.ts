import { keepAlive, openJournal, type Journal } from "#services/journal.ts";
import type { AdmissionStore, Clock, EventStore, Telemetry } from "#services/ports.ts";
import { backOffMs, sleep } from "#services/waiting.ts";
import { newestOwner, registerWriter, type Author } from "#services/writers.ts";

/** One life of a gateway as a writer: its journal, and a signal that ends what runs when somebody seals it. */
export interface WriterLife {
  readonly journal: Journal;
  readonly over: AbortSignal;
}

/** Those who can wait read the newest owner at most so often; half as often each time that nothing new was found. */
const LOOK_MS_FIRST = 250;
const LOOK_MS_MAX = 1000;

export type Writer = Awaited<ReturnType<typeof openWriter>>;

export interface WriterParts {
  readonly store: EventStore;
  readonly admission: Pick<AdmissionStore, "seek">;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly author: Author;
  readonly instance: string;
  /** True where silence seals: then signs of life are written. */
  readonly beats: boolean;
}

/** Registers the first life; {@link openWriter} goes on from there once the region has an owner. */
export function registerGateway(parts: WriterParts, life = 0): Promise<number> {
  return registerWriter(parts.store, parts.clock, parts.author, {
    process: "gateway",
    instance: life === 0 ? parts.instance : `${parts.instance}/${life}`,
  });
}

/**
 * A gateway as a writer. It registers, then reads the newest owner, then serves; when its journal is sealed under it
 * (it seemed dead), what runs is ended and it registers anew. Opens the journal of a registered gateway.
 */
export async function openWriter(parts: WriterParts, firstEpoch: number) {
  const { store, admission, clock, telemetry, author } = parts;
  let ownerEpoch = 0;
  let present: WriterLife | undefined;
  let stopped = false;
  let lives = 0;
  let stopBeats = () => {};
  let reading: Promise<void> | undefined;
  let renewing: Promise<void> | undefined;
  let lookAgainMs = 0;
  let looksInVain = 0;

  async function readOwner(): Promise<void> {
    const owner = await newestOwner(store, author.region);
    if (!owner) return;
    ownerEpoch = Math.max(ownerEpoch, owner.ownerEpoch);
    // Where the owner's server is not found the next one that is fenced, or gets no answer, has it looked for again.
    await admission.seek(owner.servers).catch(() => {});
  }

  /** Reads the newest owner again, and goes to its server; calls at the same time share one read. */
  async function refreshOwner(): Promise<void> {
    reading ??= readOwner().finally(() => {
      reading = undefined;
    });
    await reading;
  }

  /**
   * As {@link refreshOwner}, for whoever can wait for it or be anybody: however many ask, the store is read no more often
   * than every so many milliseconds.
   */
  async function lookForOwner(): Promise<void> {
    const nowMs = clock.elapsed();
    if (nowMs < lookAgainMs) return;
    if (nowMs - lookAgainMs > LOOK_MS_MAX) looksInVain = 0;
    lookAgainMs = nowMs + backOffMs(looksInVain++, LOOK_MS_FIRST, LOOK_MS_MAX);
    const before = ownerEpoch;
    await refreshOwner();
    if (ownerEpoch > before) looksInVain = 0;
  }

  async function begin(writerEpoch: number): Promise<void> {
    // A read that began before this life was registered may miss the owner that did not see it to fence it.
    await reading?.catch(() => {});
    await refreshOwner();
    const over = new AbortController();
    // Who takes nothing and only gives signs of life learns by them that there is another owner, on another server perhaps.
    const onFenced = (epoch: number) => {
      if (epoch > ownerEpoch) void refreshOwner().catch(() => {});
    };
    const journal = await openJournal({ store, clock, telemetry, author, writerEpoch, onFenced });
    present = { journal, over: over.signal };
    // With each of them the server is looked at too: of one that nobody asks anything, nobody else would say that it is gone.
    const look = () => void lookForOwner().catch(() => {});
    if (parts.beats) stopBeats = keepAlive(journal, clock, author, look);
    void journal.sealedByOther.then(() => {
      stopBeats();
      if (stopped) return;
      present = undefined;
      over.abort();
      telemetry.alarm("journal_sealed_under_us", { writerEpoch });
      renewing = beginAnew();
    });
  }

  async function beginAnew(): Promise<void> {
    for (let attempt = 0; !stopped; attempt++) {
      lives += 1;
      try {
        await begin(await registerGateway(parts, lives));
        return;
      } catch (error) {
        telemetry.alarm("writer_registration_failed", { error: String(error) });
        await sleep(clock, backOffMs(attempt, 100, 5000));
      }
    }
  }

  await begin(firstEpoch);
  return {
    /** The present life, or undefined while there is none. */
    life: () => present,
    /** The owner epoch that takings are made under. */
    ownerEpoch: () => ownerEpoch,
    refreshOwner,
    lookForOwner,
    /** Seals the journal. Nothing may be running any more. */
    async stop(): Promise<void> {
      stopped = true;
      await renewing;
      stopBeats();
      await present?.journal.seal();
    },
  };
}
