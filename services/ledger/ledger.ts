import { effectsOf, orgOf } from "#domain/accounts/effects.ts";
import type { AccountsItem } from "#domain/accounts/types.ts";
import { emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
import { type RecordedEvent, journalEpoch } from "#domain/events/events.ts";
import { directoryRowOf } from "#projections/key-directory.ts";
import type { Telemetry } from "#services/ports.ts";
import { backOffMs, sleep, TIMED_OUT, within } from "#services/waiting.ts";
import { claimOwnership, type OwnerParts, type Ownership } from "./owner.ts";
import { createSilenceWatch, type SilenceWatch } from "./silence.ts";
import { sealJournals } from "./retire.ts";
import { lookAfterWanted } from "./wanted.ts";

export type Ledger = Awaited<ReturnType<typeof startLedger>>;

export interface LedgerParts extends Omit<OwnerParts, "decide"> {
  readonly telemetry: Telemetry;
  /** Told how far recorded events have been carried in, each time that it is further. */
  readonly onApplied?: (position: bigint | "start") => void;
  /**
   * `lock`: the data folder's lock says who is dead: every writer that registered before `firstEpoch`, the first of the
   * process that has the lock. Never silence.
   * `silence`: writers are separate processes; six WriterAlive of ours without one of theirs, and they are sealed.
   */
  readonly death: { readonly by: "lock"; readonly firstEpoch: number } | { readonly by: "silence" };
}

/** An organization whose state does not catch up for this long is taken as lost, and everything is adopted anew. */
const APPLY_MS_MAX = 5000;

/**
 * The ledger process: it owns the region's admission store, carries recorded events into it, keeps the key directory,
 * and seals the journals of writers that fell silent. Claims, adopts, and then serves until stopped. Resolves when the
 * first adoption is complete; throws when it fails.
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
  const superseded = Promise.withResolvers<void>();

  function reached(position: bigint | "start"): void {
    appliedTo = position;
    parts.onApplied?.(position);
    if (position === "start") return;
    for (const waiter of waiters) if (waiter.position <= position) waiter.resolve();
  }

  /** Owns and serves, again and again, until stopped or superseded. */
  async function own(first: Ownership): Promise<void> {
    let ownership: Ownership | "superseded" | undefined = first;
    for (let attempt = 0; !stopping.signal.aborted;) {
      if (ownership && ownership !== "superseded") {
        ready = true;
        reached(ownership.position);
        const end = await serve(parts, ownership, stopping.signal, reached);
        ready = false;
        if (end === "stopped") return;
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
    /** Waits until everything up to a position can be seen in admission; false when `limitMs` passed first. */
    async applied(position: bigint, limitMs: number): Promise<boolean> {
      if (appliedTo !== "start" && appliedTo >= position) return true;
      const waiter = { position, ...Promise.withResolvers<void>() };
      waiters.add(waiter);
      const answer = await within(parts.clock, limitMs, waiter.promise);
      waiters.delete(waiter);
      return answer !== TIMED_OUT;
    },
    async stop(): Promise<void> {
      stopping.abort();
      await running;
    },
  };
}

type ServeEnd = "stopped" | "lost" | "superseded";

/** Follows the store and applies what comes, until this ownership ends. */
async function serve(
  parts: LedgerParts,
  ownership: Ownership,
  stop: AbortSignal,
  reached: (position: bigint) => void,
): Promise<ServeEnd> {
  const ending = new AbortController();
  const ends = AbortSignal.any([stop, ending.signal]);
  let end: ServeEnd = "stopped";
  let after = ownership.position;
  let watch: SilenceWatch | undefined;
  const cancelLooks = lookAfterWanted({
    parts,
    ownership,
    carriedTo: () => after,
    onLost() {
      end = "lost";
      ending.abort();
    },
  });
  try {
    for (let attempt = 0; !ends.aborted; attempt++) {
      try {
        if (parts.death.by === "silence")
          watch ??= await createSilenceWatch(parts, parts.writerEpoch);
        for await (const batch of parts.store.follow({ after, signal: ends })) {
          const ended = await carry(parts, ownership, batch, watch);
          if (ended) return ended;
          const last = batch.at(-1);
          if (!last) continue;
          after = last.position;
          attempt = 0;
          reached(last.position);
        }
        if (!ends.aborted) throw new Error("the event store was closed");
      } catch (error) {
        parts.telemetry.alarm("ledger_follow_failed", { error: String(error) });
        await sleep(parts.clock, backOffMs(attempt, 50, 5000));
      }
    }
    return end;
  } finally {
    cancelLooks();
  }
}

/** One batch into admission and the key directory; then what its seals and silences ask for. */
async function carry(
  parts: LedgerParts,
  ownership: Ownership,
  batch: readonly RecordedEvent[],
  watch: SilenceWatch | undefined,
): Promise<ServeEnd | undefined> {
  const { ownerEpoch } = ownership;
  const items = new Map<string, AccountsItem[]>();
  const sealed: number[] = [];
  for (const event of batch) {
    watch?.see(event);
    if (event.type === "OwnerChanged.v1" && event.data.ownerEpoch > ownership.ownerEpoch)
      return "superseded";
    if (event.type === "JournalSealed.v1") sealed.push(journalEpoch(event.stream) ?? -1);
    const orgId = orgOf(event);
    const effects = orgId === undefined ? [] : effectsOf(event);
    if (orgId === undefined || effects.length === 0) continue;
    let list = items.get(orgId);
    if (!list) items.set(orgId, (list = []));
    const prev = list.at(-1)?.position ?? ownership.orgs.get(orgId) ?? "start";
    list.push({ prev, position: event.position, effects });
    if (event.type === "OrganizationCreated.v1") {
      const state = toSnapshot(emptyAccounts(orgId));
      await parts.admission.adopt({ ownerEpoch, servers: ownership.servers, state });
    }
  }
  for (const [orgId, list] of items) {
    if ((await applyAll(parts, ownership, orgId, list)) === "lost") return "lost";
    ownership.orgs.set(orgId, list.at(-1)?.position ?? "start");
  }
  for (const event of batch) {
    // After the accounts know a key, the directory does; so a key that is found can also be admitted.
    const row = directoryRowOf(event);
    if (row) await parts.directory.put(row.key, row.value);
  }
  for (const writerEpoch of sealed)
    for (const orgId of ownership.orgs.keys())
      await parts.admission.sweep({ orgId, ownerEpoch, writerEpoch });
  const silent = watch?.silent() ?? [];
  if (silent.length > 0) watch?.forget((await sealJournals(parts, silent, "leave")).complete);
  return undefined;
}

/** Applies one organization's items; repeats until answered, and gives up as lost when it does not catch up in time. */
async function applyAll(
  parts: LedgerParts,
  ownership: Ownership,
  orgId: string,
  items: readonly AccountsItem[],
): Promise<"applied" | "lost"> {
  const { ownerEpoch } = ownership;
  const begun = parts.clock.elapsed();
  for (let attempt = 0; ; attempt++) {
    const answer = await parts.admission.apply({ orgId, ownerEpoch, items }).catch(() => undefined);
    if (answer?.outcome === "applied") return "applied";
    if (answer?.outcome === "fenced") {
      // A faulted organization stays closed; the fault was told when it happened, and the others go on.
      return answer.fenced === "fault" ? "applied" : "lost";
    }
    if (parts.clock.elapsed() - begun > APPLY_MS_MAX) return "lost";
    await sleep(parts.clock, backOffMs(attempt, 20, 500));
  }
}
