import { effectsOf, orgOf } from "#domain/accounts/effects.ts";
import type { AccountsItem } from "#domain/accounts/types.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import { directoryRowOf } from "#projections/key-directory.ts";
import type { AdmissionStore, Clock, KeyDirectory } from "#services/ports.ts";
import { backOffMs, sleep } from "#services/waiting.ts";
import type { Adoption } from "./adoption.ts";

export interface CarryParts {
  readonly admission: AdmissionStore;
  readonly directory: KeyDirectory;
  readonly clock: Clock;
}

/** So many organizations' events are carried in at once; those of one go one after the other. */
const APPLIED_AT_ONCE = 50;
/** An organization whose state does not catch up for this long is taken as lost, and everything is adopted anew. */
const APPLY_MS_MAX = 5000;

/**
 * One batch of events into admission and the key directory, under an owner. An organization that is not in yet is adopted
 * first, and how long that takes counts for nothing: so no event behind the claim ever passes one by.
 */
export async function carry(
  parts: CarryParts,
  ownerEpoch: number,
  adoption: Adoption,
  batch: readonly RecordedEvent[],
): Promise<"carried" | "lost" | "superseded"> {
  const events = new Map<string, RecordedEvent[]>();
  for (const event of batch) {
    if (event.type === "OwnerChanged.v1" && event.data.ownerEpoch > ownerEpoch) return "superseded";
    const orgId = orgOf(event);
    if (orgId === undefined || effectsOf(event).length === 0) continue;
    const list = events.get(orgId);
    if (list) list.push(event);
    else events.set(orgId, [event]);
  }
  const created = [...events].filter(([, [first]]) => first?.type === "OrganizationCreated.v1");
  await Promise.all(created.map(([orgId]) => adoption.adoptNew(orgId)));
  await adoption.wantAll([...events.keys()]);
  const all = [...events];
  for (let at = 0; at < all.length; at += APPLIED_AT_ONCE) {
    const some = all.slice(at, at + APPLIED_AT_ONCE).map(async ([orgId, list]) => {
      const items = itemsBehind(adoption.orgs.get(orgId) ?? "start", list);
      const last = items.at(-1);
      if (!last) return "applied";
      const applied = await applyAll(parts, { orgId, ownerEpoch, items });
      if (applied === "applied") adoption.moved(orgId, last.position);
      return applied;
    });
    if ((await Promise.all(some)).includes("lost")) return "lost";
  }
  // After the accounts know a key, the directory does; so a key that is found can also be admitted.
  const keys = batch.flatMap((event) => directoryRowOf(event) ?? []);
  if (keys.length > 0) await parts.directory.put(keys.map(({ key, value }) => [key, value]));
  return "carried";
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

/** Applies one organization's items; repeats until answered, and gives up as lost when it does not catch up in time. */
async function applyAll(
  parts: CarryParts,
  ask: Parameters<AdmissionStore["apply"]>[0],
): Promise<"applied" | "lost"> {
  const begun = parts.clock.elapsed();
  for (let attempt = 0; ; attempt++) {
    const answer = await parts.admission.apply(ask).catch(() => undefined);
    if (answer?.outcome === "applied") return "applied";
    if (answer?.outcome === "fenced") {
      // A faulted organization stays closed; the fault was told when it happened, and the others go on.
      return answer.fenced === "fault" ? "applied" : "lost";
    }
    if (parts.clock.elapsed() - begun > APPLY_MS_MAX) return "lost";
    await sleep(parts.clock, backOffMs(attempt, 20, 500));
  }
}
