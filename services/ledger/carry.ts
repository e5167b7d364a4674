import { effectsOf, orgOf } from "#domain/accounts/effects.ts";
import type { AccountsItem } from "#domain/accounts/types.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import { directoryRowOf } from "#projections/key-directory.ts";
import type { AdmissionStore, Clock } from "#services/ports.ts";
import { backOffMs, sleep } from "#services/waiting.ts";
import type { Adoption } from "./adoption.ts";
import type { Keys } from "./keys.ts";

export interface CarryParts {
  readonly admission: AdmissionStore;
  readonly clock: Clock;
}

/** So many organizations' events are carried in at once; those of one go one after the other. */
const APPLIED_AT_ONCE = 50;
/** An organization whose state does not catch up for this long is taken as lost, and adopted anew. */
const APPLY_MS_MAX = 5000;
/** So many events wait for servers that are away; beyond, whose they are is adopted anew. */
const WAITING_MAX = 10_000;
/** A revocation waits no longer: gateways may reach a server that the ledger does not, and only another owner fences them. */
const REVOCATION_WAITS_MS_MAX = 5_000;
/** So many of those that waited are applied at once. */
const ITEMS_AT_ONCE = 200;

export type Carrying = ReturnType<typeof createCarrying>;

/**
 * Carries events into admission and the key directory, under an owner. An organization that is not in yet is adopted first,
 * and how long that takes counts for nothing: so no event behind the claim ever misses one. Nobody waits for an
 * organization whose server is away: one that is out is passed by, and comes in with the event (adoption.ts); of one that
 * is in the events wait, until {@link Carrying.catchUp} finds the server back.
 */
export function createCarrying(
  parts: CarryParts,
  ownerEpoch: number,
  adoption: Pick<Adoption, "orgs" | "adoptNew" | "wantAll" | "want" | "passBy" | "moved" | "lose">,
  keys: Pick<Keys, "put">,
  signal: AbortSignal,
) {
  /** What organizations that are in, and whose server is away, have yet to get. */
  const waiting = new Map<string, AccountsItem[]>();
  let waitingCount = 0;
  /** Until when those may wait that a revocation waits for. */
  const dueMs = new Map<string, number>();
  let catchingUp: Promise<void> | undefined;

  function wait(orgId: string, items: readonly AccountsItem[]): void {
    waitingCount += items.length;
    const before = waiting.get(orgId);
    if (before) before.push(...items);
    else waiting.set(orgId, [...items]);
    const isRevocation = items.some(({ effects }) =>
      effects.some(({ effect }) => effect === "key_revoked"),
    );
    if (isRevocation && !dueMs.has(orgId))
      dueMs.set(orgId, parts.clock.elapsed() + REVOCATION_WAITS_MS_MAX);
    if (waitingCount > WAITING_MAX) lose(orgId);
  }

  function lose(orgId: string): void {
    waitingCount -= waiting.get(orgId)?.length ?? 0;
    waiting.delete(orgId);
    dueMs.delete(orgId);
    adoption.lose(orgId);
  }

  /**
   * Applies one organization's items; repeats until answered, and gives up as lost when it does not catch up in time, or
   * when the ownership is over: the next one waits for this.
   */
  async function applyAll(orgId: string, items: readonly AccountsItem[]) {
    const begun = parts.clock.elapsed();
    for (let attempt = 0; ; attempt++) {
      const answer = await parts.admission
        .apply({ orgId, ownerEpoch, items })
        .catch(() => undefined);
      if (answer?.outcome === "applied") return "applied";
      if (answer?.outcome === "fenced") {
        // A faulted organization stays closed; the fault was told when it happened, and the others go on.
        if (answer.fenced === "fault") return "applied";
        return answer.fenced === "away" ? "away" : "lost";
      }
      if (signal.aborted || parts.clock.elapsed() - begun > APPLY_MS_MAX) return "lost";
      await sleep(parts.clock, backOffMs(attempt, 20, 500));
    }
  }

  /** What is recorded of one organization. */
  async function carryOne(orgId: string, events: readonly RecordedEvent[]): Promise<void> {
    const to = events.at(-1)?.position ?? 0n;
    while (!(await adoption.want(orgId))) if (adoption.passBy(orgId, to)) return;
    const items = itemsBehind(adoption.orgs.get(orgId) ?? "start", events);
    if (items.length === 0) return;
    const applied = waiting.has(orgId) ? "away" : await applyAll(orgId, items);
    if (applied === "lost") return lose(orgId);
    // Somebody may have missed it meanwhile.
    if (!adoption.orgs.has(orgId)) return;
    adoption.moved(orgId, to);
    if (applied === "away") wait(orgId, items);
  }

  /** Gives an organization what waits for it, as far as its server takes it. */
  async function catchUpOne(orgId: string, items: AccountsItem[]): Promise<void> {
    while (items.length > 0) {
      const some = items.slice(0, ITEMS_AT_ONCE);
      const ask = { orgId, ownerEpoch, items: some };
      const answer = await parts.admission.apply(ask).catch(() => undefined);
      if (waiting.get(orgId) !== items) return;
      const isAway = !answer || (answer.outcome === "fenced" && answer.fenced === "away");
      if (isAway) return;
      const isFault = answer.outcome === "fenced" && answer.fenced === "fault";
      if (answer.outcome !== "applied" && !isFault) return lose(orgId);
      waitingCount -= items.splice(0, some.length).length;
    }
    waiting.delete(orgId);
    dueMs.delete(orgId);
  }

  async function catchUpAll(): Promise<void> {
    await Promise.all([...waiting].map(([orgId, items]) => catchUpOne(orgId, items)));
    for (const [orgId, atMs] of dueMs) if (parts.clock.elapsed() >= atMs) lose(orgId);
  }

  return {
    async carry(batch: readonly RecordedEvent[]): Promise<"carried" | "superseded"> {
      const events = new Map<string, RecordedEvent[]>();
      for (const event of batch) {
        if (event.type === "OwnerChanged.v1" && event.data.ownerEpoch > ownerEpoch)
          return "superseded";
        const orgId = orgOf(event);
        if (orgId === undefined || effectsOf(event).length === 0) continue;
        const list = events.get(orgId);
        if (list) list.push(event);
        else events.set(orgId, [event]);
      }
      const created = [...events].filter(([, [first]]) => first?.type === "OrganizationCreated.v1");
      await Promise.all(created.map(([orgId]) => adoption.adoptNew(orgId)));
      const all = [...events];
      for (let at = 0; at < all.length; at += APPLIED_AT_ONCE) {
        const some = all.slice(at, at + APPLIED_AT_ONCE);
        signal.throwIfAborted();
        await adoption.wantAll(some.map(([orgId]) => orgId));
        await allDone(some.map((one) => carryOne(...one)));
      }
      // After the accounts know a key, the directory does; so a key that is found can also be admitted.
      const rows = batch.flatMap((event) => directoryRowOf(event) ?? []);
      const last = batch.at(-1);
      if (last && rows.length > 0)
        await keys.put(
          rows.map(({ key, value }) => [key, value]),
          last.position,
          signal,
        );
      return "carried";
    },
    /** Whether an organization is in and has all that was carried. */
    hasAll: (orgId: string) => adoption.orgs.has(orgId) && !waiting.has(orgId),
    /** How many recorded events wait for a server that is away. */
    waiting: () => waitingCount,
    /** Applies what waits, where the server is back. Who asks while it goes on waits for that. */
    catchUp(): Promise<void> {
      catchingUp ??= catchUpAll().finally(() => {
        catchingUp = undefined;
      });
      return catchingUp;
    },
    /** Says that one which was in is not there any more as it was. */
    lose,
  };
}

/** Waits for all of them, also where one has failed already: what is begun again must not meet what still runs. */
async function allDone(works: readonly Promise<void>[]): Promise<void> {
  for (const done of await Promise.allSettled(works))
    if (done.status === "rejected") throw done.reason;
}

/** One organization's events behind a position, each with the one before it. */
function itemsBehind(
  reached: bigint | "start",
  events: readonly RecordedEvent[],
): readonly AccountsItem[] {
  const items: AccountsItem[] = [];
  for (const event of events) {
    const { position } = event;
    if (reached !== "start" && position <= reached) continue;
    items.push({ prev: reached, position, effects: effectsOf(event) });
    reached = position;
  }
  return items;
}
