import { UnreadableEvent } from "#domain/events/events.ts";
import type { Telemetry } from "#services/ports.ts";
import { backOffMs, sleep, TIMED_OUT, within } from "#services/waiting.ts";
import { createAdoption, type Adoption } from "./adoption.ts";
import { createCarrying, type Carrying } from "./carry.ts";
import { fill, type Filled } from "./filling.ts";
import { createKeys } from "./keys.ts";
import { claimOwnership, type OwnerParts, type Ownership } from "./owner.ts";
import { createSilenceWatch, sealSilent, type SilenceWatch } from "./silence.ts";
import { createSweeping } from "./sweeping.ts";
import { lookAfterWanted } from "./wanted.ts";

/**
 * Of several servers one that has lost something costs a claim, and so everybody a moment. The first claim follows at once;
 * the next ones each after an ownership of twice as long, up to a limit, until one has lasted a while.
 */
const REST_MS = { first: 500, max: 30_000 };
const CALM_MS = 60_000;
/** Who waits for what a command did looks so often whether its organization is back. */
const LOOK_EVERY_MS = 50;

export type Ledger = Awaited<ReturnType<typeof startLedger>>;

export interface LedgerParts extends Omit<OwnerParts, "decide"> {
  readonly telemetry: Telemetry;
  /** Told how far recorded events have been carried in, each time that it is further, and under which epoch. */
  readonly onApplied?: (ownerEpoch: number, position: bigint) => void;
  /**
   * `lock`: the data folder's lock says who is dead: every writer that registered before `firstEpoch`, the first of the
   * process that has the lock. Never silence.
   * `silence`: writers are separate processes; six WriterAlive of ours without one of theirs, and they are sealed.
   */
  readonly death: { readonly by: "lock"; readonly firstEpoch: number } | { readonly by: "silence" };
}

/**
 * The ledger process: it owns the region's admission store, carries recorded events into it, keeps the key directory,
 * and seals the journals of writers that fell silent. Claims, and then serves until stopped; organizations come in as they
 * are wanted, and all others behind them. Resolves when the first claim is complete; throws when it fails.
 */
export async function startLedger(parts: LedgerParts) {
  const stopping = new AbortController();
  const ownerParts: OwnerParts = {
    ...parts,
    decide: (epoch) =>
      parts.death.by === "lock" && epoch < parts.death.firstEpoch ? "seal" : "fence",
  };
  const waiters = new Set<{ readonly position: bigint; readonly resolve: () => void }>();
  let appliedTo: bigint | "start" = "start";
  let ready = false;
  let present: Present | undefined;
  const superseded = Promise.withResolvers<void>();
  const full = { keys: Promise.withResolvers<void>(), all: Promise.withResolvers<void>() };

  function reached(ownerEpoch: number, position: bigint | "start"): void {
    appliedTo = position;
    if (position === "start") return;
    parts.onApplied?.(ownerEpoch, position);
    for (const waiter of waiters) if (waiter.position <= position) waiter.resolve();
  }

  /** Owns and serves, again and again, until stopped or superseded. */
  async function own(first: Ownership): Promise<void> {
    let ownership: Ownership | "superseded" | undefined = first;
    let [attempt, losses] = [0, 0];
    while (!stopping.signal.aborted) {
      if (ownership && ownership !== "superseded") {
        const { ownerEpoch } = ownership;
        ready = true;
        reached(ownerEpoch, ownership.position);
        const begunMs = parts.clock.elapsed();
        const areSeveral = ownership.servers.length > 1;
        const { first: firstMs, max } = REST_MS;
        const restMs = areSeveral && losses > 0 ? backOffMs(losses - 1, firstMs, max) : 0;
        const end = await serve(parts, ownership, restMs, stopping.signal, {
          began: (of) => void (present = of),
          reached: (position) => reached(ownerEpoch, position),
          filled(what) {
            full[what].resolve();
            // What it served with was whole: its end is no failure like those before.
            if (what === "all") attempt = 0;
          },
        });
        ready = false;
        if (end === "stopped") return;
        losses = parts.clock.elapsed() - begunMs < CALM_MS ? losses + 1 : 0;
        // While it rested the others were served; to wait once more would be for nothing.
        if (areSeveral) attempt = 0;
        ownership = end === "superseded" ? end : undefined;
      }
      if (ownership === "superseded") return superseded.resolve();
      await sleep(parts.clock, backOffMs(attempt++, 50, 5000));
      if (stopping.signal.aborted) return;
      // After a claim that failed half-way the old ownership may be over by our own mark: only a new claim will do. What
      // was lost may be lost to another owner, which this process, stopped for a while, has not heard of yet.
      const again = { ...ownerParts, over: first.ownerEpoch };
      ownership = await claimOwnership(again).catch((error: unknown) => {
        parts.telemetry.alarm("ledger_claim_failed", { error: String(error) });
        return undefined;
      });
    }
  }

  const first = await claimOwnership(ownerParts);
  const running = first === "superseded" ? superseded.resolve() : own(first);
  return {
    /** Resolves when another process has taken over; this one then does nothing any more. */
    superseded: superseded.promise,
    /** True while this process owns the admission store and follows the events. */
    isReady: () => ready,
    /** How many recorded events wait for a server that is away. */
    waiting: () => (ready ? (present?.waiting() ?? 0) : 0),
    /**
     * Waits until everything of an organization up to a position can be seen in admission; false when `limitMs` passed
     * first.
     */
    async applied(orgId: string, position: bigint, limitMs: number): Promise<boolean> {
      const { clock } = parts;
      const dueMs = clock.elapsed() + limitMs;
      const isCarried = () => appliedTo !== "start" && appliedTo >= position;
      const isIn = () => present?.hasAll(orgId) ?? false;
      if (isCarried() && isIn()) return true;
      const waiter = { position, ...Promise.withResolvers<void>() };
      waiters.add(waiter);
      if (isCarried()) waiter.resolve();
      const seen = waiter.promise.then(async () => {
        await present?.adoption.want(orgId);
        while (!isIn() && clock.elapsed() < dueMs) await sleep(clock, LOOK_EVERY_MS);
      });
      await within(clock, limitMs, seen).catch(() => TIMED_OUT);
      waiters.delete(waiter);
      return isCarried() && isIn();
    },
    /** Waits until every key, or every key and organization, was in once; false when `limitMs` passed first. */
    async filled(what: keyof Filled, limitMs: number): Promise<boolean> {
      return (await within(parts.clock, limitMs, full[what].promise)) !== TIMED_OUT;
    },
    async stop(): Promise<void> {
      stopping.abort();
      await running;
    },
  };
}

type ServeEnd = "stopped" | "lost" | "superseded";

/** Who is in under the present owner, and has all that is carried. */
interface Present extends Pick<Carrying, "hasAll" | "waiting"> {
  readonly adoption: Adoption;
}

/** What is told of an ownership while it goes on. */
interface Told {
  began(present: Present): void;
  reached(position: bigint): void;
  filled(what: keyof Filled): void;
}

/**
 * Follows the store and carries what comes, fills what is empty, and looks after who is wanted, until this ownership ends.
 * Where something is lost it ends once it has lasted `restMs`; the others are served meanwhile.
 */
async function serve(
  parts: LedgerParts,
  ownership: Ownership,
  restMs: number,
  stop: AbortSignal,
  told: Told,
): Promise<ServeEnd> {
  const { clock } = parts;
  const ending = new AbortController();
  const ends = AbortSignal.any([stop, ending.signal]);
  const { ownerEpoch } = ownership;
  const filled: Filled = { keys: false, all: false };
  const restedMs = clock.elapsed() + restMs;
  let end: ServeEnd = "stopped";
  let after = ownership.position;
  let watch: SilenceWatch | undefined;
  let sealing: Promise<void> | undefined;
  let cancelEnd: (() => void) | undefined;
  function endAs(why: "lost" | "superseded"): void {
    if (!ends.aborted) end = why;
    ending.abort();
  }
  function onLost(): void {
    const leftMs = restedMs - clock.elapsed();
    if (leftMs <= 0) endAs("lost");
    else cancelEnd ??= clock.timer(leftMs, () => endAs("lost"));
  }
  const onSuperseded = () => endAs("superseded");
  const adoption = createAdoption(parts, ownership, { onLost, onSuperseded });
  const keys = createKeys(parts, ownership);
  const carrying = createCarrying(parts, ownerEpoch, adoption, keys, ends);
  told.began({ adoption, ...carrying });
  const fillAgain = fill(parts, keys, adoption, ends, (what) => {
    filled[what] = true;
    told.filled(what);
  });
  const sweep = createSweeping(parts, ownerEpoch, adoption.orgs, carrying.hasAll, ends);
  const cancelLooks = lookAfterWanted({
    parts,
    ownership,
    adoption,
    keys,
    filled,
    carriedTo: () => after,
    hasAll: carrying.hasAll,
    async catchUp() {
      fillAgain();
      await carrying.catchUp();
    },
    onLost,
    onMissed: carrying.lose,
  });
  try {
    for (let attempt = 0; !ends.aborted; attempt++) {
      try {
        if (parts.death.by === "silence")
          watch ??= await createSilenceWatch(parts, parts.writerEpoch, after);
        for await (const batch of parts.store.follow({ after, signal: ends })) {
          for (const event of batch) watch?.see(event);
          if ((await carrying.carry(batch)) === "superseded") return "superseded";
          sweep(batch);
          // Beside the carrying: however many are dead, and however slow their journals, those that live do not wait.
          if (watch)
            sealing ??= sealSilent(parts, watch, ends).finally(() => (sealing = undefined));
          const last = batch.at(-1);
          if (!last) continue;
          after = last.position;
          attempt = 0;
          told.reached(last.position);
        }
        if (!ends.aborted) throw new Error("the event store was closed");
      } catch (error) {
        // Behind an event that it cannot read it would carry in what rests on that: a newer version goes on from there. The
        // projector reads the same and says so.
        if (ends.aborted || error instanceof UnreadableEvent) return end;
        parts.telemetry.alarm("ledger_follow_failed", { error: String(error) });
        await sleep(clock, backOffMs(attempt, 50, 5000));
      }
    }
    return end;
  } finally {
    ending.abort();
    cancelEnd?.();
    cancelLooks();
    await sealing;
  }
}
