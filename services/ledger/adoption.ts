import { emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
import type { OrgSnapshot } from "#domain/accounts/types.ts";
import { ORG_TABLES, orgSnapshots } from "#projections/accounts-rows.ts";
import type { AdmissionStore, Projector } from "#services/ports.ts";
import type { Ownership } from "./owner.ts";

/** So many organizations are read at once in the background. */
const ORGS_AT_ONCE = 500;
/** And so many of them are adopted at once: whoever is served or wanted stands behind no more than these. */
const ADOPTED_AT_ONCE = 100;
/** So many that somebody wants are read at once, each by itself. */
const WANTED_AT_ONCE = 50;

export type Adoption = ReturnType<typeof createAdoption>;

/**
 * Puts organizations in place under one owner epoch: those that somebody wants, those that an event is to be carried into,
 * and the others a slice at a time. Each once: what may have been lost after it was adopted, or was sent and not answered,
 * is adopted under the next owner, never again under this one. Where an adoption was certainly not sent, because its server
 * is away, the organization stays out and may be adopted later.
 *
 * An organization comes in as it stands in the accounts when it is read, anywhere at or behind the position that the claim
 * folded to. That is always right: every taking under an older owner is in there; under this one nothing is taken before
 * it is in; and of the events behind that position those that its rows contain are left out, and the others join on (see
 * carry.ts). An event that passes by one that is out moves that position on, so its rows contain that one too.
 *
 * `onLost` is told each time that an organization needs another owner, `onSuperseded` that there is one.
 */
export function createAdoption(
  parts: { readonly admission: AdmissionStore; readonly projector: Projector },
  { ownerEpoch, servers, position }: Ownership,
  { onLost, onSuperseded }: { onLost(): void; onSuperseded(): void },
) {
  /** How far each organization has come that is in. */
  const orgs = new Map<string, bigint | "start">();
  /** Those on their way: nobody begins one a second time. */
  const begun = new Map<string, Promise<boolean>>();
  /** Those that are not adopted under this owner, or not again. */
  const lost = new Set<string>();
  /** Those whose server was away when it was their turn, longest ago first. */
  const out = new Set<string>();
  /** Events up to here passed by organizations that were out. */
  let passedTo = position;
  let after = "";

  const isStale = (asOf: bigint | "start") =>
    passedTo !== "start" && (asOf === "start" || asOf < passedTo);

  function lose(orgId: string): void {
    orgs.delete(orgId);
    out.delete(orgId);
    lost.add(orgId);
    onLost();
  }

  async function read(orgId: string) {
    const slice = { of: orgId };
    const found = await parts.projector.rows("accounts", passedTo, ORG_TABLES, slice);
    const [state] = orgSnapshots(found.rows);
    return state && { state, asOf: found.position };
  }

  /** True when it is in. `asOf`: where the rows stand that the state is from; undefined for one that has no events yet. */
  async function put(state: OrgSnapshot, asOf: bigint | "start" | undefined): Promise<boolean> {
    const { orgId } = state;
    const fresh = asOf === undefined || !isStale(asOf) ? { state } : await read(orgId);
    if (!fresh) return false;
    const ask = { ownerEpoch, servers, state: fresh.state };
    const answer = await parts.admission.adopt(ask).catch(() => undefined);
    if (answer?.outcome === "adopted") {
      orgs.set(orgId, ask.state.position === "start" ? "start" : BigInt(ask.state.position));
      return true;
    }
    if (answer?.fenced === "older") onSuperseded();
    if (answer?.fenced !== "away") lose(orgId);
    return false;
  }

  /** The one place where an adoption begins. */
  async function adopt(state: OrgSnapshot, asOf: bigint | "start" | undefined): Promise<boolean> {
    const { orgId } = state;
    if (orgs.has(orgId) || lost.has(orgId)) return orgs.has(orgId);
    let adopting = begun.get(orgId);
    if (!adopting) {
      adopting = put(state, asOf).finally(() => begun.delete(orgId));
      begun.set(orgId, adopting);
    }
    return adopting;
  }

  /** Adopts one that exists as far as the accounts are folded; of any other nothing happens. True when it is in. */
  async function want(orgId: string): Promise<boolean> {
    if (orgs.has(orgId) || lost.has(orgId)) return orgs.has(orgId);
    const adopting = begun.get(orgId);
    if (adopting) return adopting;
    const found = await read(orgId);
    return found ? adopt(found.state, found.asOf) : false;
  }

  return {
    orgs: orgs as ReadonlyMap<string, bigint | "start">,
    want,
    async wantAll(orgIds: readonly string[]): Promise<void> {
      const missing = orgIds.filter((orgId) => !orgs.has(orgId));
      for (let at = 0; at < missing.length; at += WANTED_AT_ONCE)
        await Promise.all(missing.slice(at, at + WANTED_AT_ONCE).map(want));
    },
    /** Adopts one whose first event comes now, and which therefore has nothing yet. */
    adoptNew: (orgId: string) => adopt(toSnapshot(emptyAccounts(orgId)), undefined),
    /** Adopts the next ones that nobody has asked for. False when there are no more: then all had their turn. */
    async adoptNext(): Promise<boolean> {
      const slice = { in: "orgs", after, max: ORGS_AT_ONCE };
      const found = await parts.projector.rows("accounts", passedTo, ORG_TABLES, slice);
      const states = [...orgSnapshots(found.rows)];
      const left = states.values();
      const adoptLeft = async () => {
        for (const state of left)
          if (!(await adopt(state, found.position)) && !lost.has(state.orgId)) out.add(state.orgId);
      };
      await Promise.all(Array.from({ length: ADOPTED_AT_ONCE }, adoptLeft));
      after = states.at(-1)?.orgId ?? after;
      return states.length > 0;
    },
    /** Adopts some of those that were out when it was their turn, and others as long as any of them come in. */
    async adoptOut(): Promise<void> {
      let isBack: boolean;
      const turn = async (orgId: string) => {
        const isIn = await want(orgId);
        out.delete(orgId);
        isBack ||= isIn;
        // Behind the others: those of another server may be back.
        if (!isIn && !lost.has(orgId)) out.add(orgId);
      };
      do {
        isBack = false;
        await Promise.all([...out.values().take(WANTED_AT_ONCE)].map(turn));
      } while (isBack);
    },
    isAnyOut: () => out.size > 0,
    /**
     * Says that an organization's events up to a position pass it by, because it is out. False when it is in after all, or
     * on its way: then it must have them.
     */
    passBy(orgId: string, to: bigint): boolean {
      if (orgs.has(orgId) || begun.has(orgId)) return false;
      if (!lost.has(orgId)) out.add(orgId);
      if (passedTo === "start" || to > passedTo) passedTo = to;
      return true;
    },
    /** Says how far an organization has come, after its events were applied. */
    moved: (orgId: string, to: bigint) => void orgs.set(orgId, to),
    /** Says that one which was in is not there any more as it was. */
    lose,
  };
}
