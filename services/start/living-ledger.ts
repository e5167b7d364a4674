import type { WorkerProjector } from "#infra/read-models/worker-projector.ts";
import { keepAlive, openJournal } from "#services/journal.ts";
import type { Filled } from "#services/ledger/filling.ts";
import { startLedger, type Ledger } from "#services/ledger/ledger.ts";
import { standBy } from "#services/ledger/stand-by.ts";
import { backOffMs, sleep } from "#services/waiting.ts";
import { registerWriter, type Author } from "#services/writers.ts";
import type { Base } from "./base.ts";
import { endOr, NOT_SEALED } from "./stopping.ts";

const RETRY_MS_MAX = 5_000;
const LOOK_EVERY_MS = 20;

/**
 * Serves as the region's ledger while it owns the admission store, and stands by while another does: so there may be two,
 * and either may be killed or replaced. Once a newer version has recorded what this one cannot read it serves no more, nor
 * claims: it waits to be replaced.
 */
export function liveAsLedger(base: Base, projector: WorkerProjector, first: "stand by" | "claim") {
  const { region, clock, telemetry, instance, events: store } = base;
  const author: Author = { region, actor: "ledger" };
  const stopping = new AbortController();
  const { signal } = stopping;
  const stopped = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
  let serving: Ledger | undefined;
  let isStandingBy = false;
  let hasJournal = false;
  let isOutdated = false;
  void projector.outdated.then(() => {
    isOutdated = true;
  });

  async function live(life: number): Promise<void> {
    let over: number | undefined;
    if (life > 1 || first === "stand by") {
      isStandingBy = true;
      over = await standBy({ store, clock, region }, signal);
      isStandingBy = false;
    }
    if (signal.aborted || isOutdated) return;
    // Rejects where it cannot read all that is recorded: then its claim would only be in the way of one that can.
    await projector.rows("accounts", await store.head(), []);
    const started = { process: "ledger", instance: `${instance}/ledger-${life}` } as const;
    const writerEpoch = await registerWriter(store, clock, author, started);
    hasJournal = true;
    const journal = await openJournal({ store, clock, telemetry, author, writerEpoch });
    // Its own signs of life are what a ledger counts the others' silence by.
    const stopBeats = keepAlive(journal, clock, author);
    try {
      serving = await startLedger({
        store,
        clock,
        telemetry,
        author,
        admission: base.admission,
        directory: base.directory,
        projector,
        writerEpoch,
        ...(over === undefined ? {} : { over }),
        death: { by: "silence" },
        onApplied: (...told) => void base.progress?.tell(...told).catch(() => {}),
      });
      const { superseded } = serving;
      await Promise.race([superseded, journal.sealedByOther, projector.outdated, stopped]);
      await serving.stop();
    } finally {
      serving = undefined;
      stopBeats();
      await journal.seal();
      hasJournal = false;
    }
  }

  async function liveOn(): Promise<void> {
    for (let life = 1, failures = 0; !signal.aborted && !isOutdated; life += 1) {
      try {
        await live(life);
        failures = 0;
      } catch (error) {
        if (isOutdated) return;
        telemetry.alarm("ledger_start_failed", { error: String(error) });
        await sleep(clock, backOffMs(failures++, 100, RETRY_MS_MAX));
      }
    }
  }

  const ended = liveOn();
  return {
    isServing: () => serving?.isReady() ?? false,
    waiting: () => serving?.waiting() ?? 0,
    isReady: () => !isOutdated && (isStandingBy || (serving?.isReady() ?? false)),
    isStopping: () => signal.aborted,
    /** As a ledger's own; also false where none serves here before `limitMs` passed. */
    async filled(what: keyof Filled, limitMs: number): Promise<boolean> {
      const dueMs = clock.elapsed() + limitMs;
      while (!serving && clock.elapsed() < dueMs) await sleep(clock, LOOK_EVERY_MS);
      return serving?.filled(what, Math.max(0, dueMs - clock.elapsed())) ?? false;
    },
    /** Ends it, and gives what is left undone after the limit: whoever owns next goes on where the events stand. */
    stop(limitMs: number): Promise<string | undefined> {
      stopping.abort();
      return endOr(clock, limitMs, ended, () => (hasJournal ? NOT_SEALED : undefined));
    },
  };
}
