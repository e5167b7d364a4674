import type { Admission, AdmissionOrg } from "./admission.ts";
import type { Wanted } from "./admission-types.ts";

/**
 * Holds that are provisional for longer than any append takes. Their writer may have died behind the sweep of its
 * journal, or the admission may have come behind it; then nobody else would ever end them. Whoever comes upon one marks
 * its organization as wanted, and the ledger looks who took it. Being old never ends a hold: it only makes it looked at.
 */
export const OLD_MS = 30_000;

/** At most this many organizations are remembered as wanted; more ask again. */
export const WANTED_MAX = 10_000;

/** A taking from ahead of this time is old too: the clock went back, and would not come to it for as long. */
const isOld = (takenMs: number, nowMs: number) => Math.abs(nowMs - takenMs) > OLD_MS;

/** Marks an organization as wanted if its oldest provisional hold is old. Looks at no other, so that any request can. */
export function wantIfOld(admission: Admission, org: AdmissionOrg, nowMs: number): void {
  const [oldestMs = nowMs] = org.provisional.values();
  if (isOld(oldestMs, nowMs)) want(admission, org.accounts.orgId);
}

/** Remembers that somebody needs the ledger to look at this organization. */
export function want(admission: Admission, orgId: string): void {
  if (admission.wanted.size < WANTED_MAX) admission.wanted.add(orgId);
}

/** Whom the ledger should look at, each with the writers of its old provisional holds; forgotten with this answer. */
export function takeWanted(admission: Admission, nowMs: number): Wanted[] {
  const found: Wanted[] = [];
  for (const orgId of admission.wanted) {
    const writerEpochs = new Set<number>();
    const org = admission.orgs.get(orgId);
    for (const [requestId, takenMs] of org?.provisional ?? []) {
      const hold = org?.accounts.holds.get(requestId);
      if (hold && isOld(takenMs, nowMs)) writerEpochs.add(hold.writerEpoch);
    }
    found.push({ orgId, writerEpochs: [...writerEpochs] });
  }
  admission.wanted.clear();
  return found;
}
