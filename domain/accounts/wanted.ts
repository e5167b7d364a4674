import type { Admission, AdmissionOrg } from "./admission.ts";
import type { Wanted } from "./admission-types.ts";

/**
 * Holds that are provisional for longer than any append takes. Their writer may have died behind the sweep of its
 * journal, or the admission may have come behind it; then nobody else would ever end them. Whoever comes upon one marks
 * its organization as wanted, and the ledger looks who took it. Being old never ends a hold: it only makes it looked at.
 */
const OLD_MS = 30_000;

/** At most this many organizations are remembered as wanted; more ask again. */
const WANTED_MAX = 10_000;

/** At so many entries those of holds that are provisional no more are cleared out from behind one that stays. */
const CLEARED_AT_LEAST = 64;

/** A provisional hold, when it was taken. */
export interface Taken {
  readonly requestId: string;
  readonly atMs: number;
}

/** A taking from ahead of this time is old too: the clock went back, and would not come to it for as long. */
const isOld = (taken: Taken, nowMs: number) => Math.abs(nowMs - taken.atMs) > OLD_MS;

const isProvisional = ({ accounts }: AdmissionOrg, taken: Taken) =>
  accounts.holds.get(taken.requestId)?.state === "provisional";

/** Puts a hold that was just taken behind the others. Costs the same however many there are. */
export function noteTaken(org: AdmissionOrg, requestId: string, nowMs: number): void {
  org.taken.push({ requestId, atMs: nowMs });
  if (org.taken.length < org.clearTakenAt) return;
  org.taken = org.taken.filter((taken) => isProvisional(org, taken));
  org.clearTakenAt = Math.max(CLEARED_AT_LEAST, 2 * org.taken.length);
}

/** Marks an organization as wanted if its oldest provisional hold is old. Looks at no other, so that any request can. */
export function wantIfOld(admission: Admission, org: AdmissionOrg, nowMs: number): void {
  for (;;) {
    const oldest = org.taken[0];
    if (oldest === undefined) return;
    if (isProvisional(org, oldest)) {
      if (isOld(oldest, nowMs)) want(admission, org.accounts.orgId);
      return;
    }
    org.taken.shift();
  }
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
    for (const taken of org?.taken ?? []) {
      const hold = org?.accounts.holds.get(taken.requestId);
      if (hold?.state === "provisional" && isOld(taken, nowMs)) writerEpochs.add(hold.writerEpoch);
    }
    found.push({ orgId, writerEpochs: [...writerEpochs] });
  }
  admission.wanted.clear();
  return found;
}
