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
 * and the others a slice at a time. Each once, whatever comes of it: what a server may have lost after it was adopted is
 * adopted under the next owner, never again under this one.
 *
 * An organization comes in as it stands in the accounts when it is read, anywhere at or behind the position that the claim
 * folded to. That is always right: every taking under an older owner is in there; under this one nothing is taken before
 * it is in; and no event behind that position is carried past an organization that is not (see carry.ts), so of those that
 * come, the ones that its rows contain are left out and the others join on.
 *
 * `onEnd` is told when the ownership is over: an adoption of unknown outcome, or another server, is `lost`.
 */
export function createAdoption(
  parts: { readonly admission: AdmissionStore; readonly projector: Projector },
  { ownerEpoch, servers, position }: Ownership,
  onEnd: (end: "lost" | "superseded") => void,
) {
  /** How far each organization has come that is in. */
  const orgs = new Map<string, bigint | "start">();
  /** Those on their way; one that failed stays, so that nobody begins it again. */
  const begun = new Map<string, Promise<void>>();
  let after = "";
  let isWhole = false;

  async function put(state: OrgSnapshot): Promise<void> {
    const ask = { ownerEpoch, servers, state };
    const answer = await parts.admission.adopt(ask).catch(() => undefined);
    if (answer?.outcome !== "adopted") {
      onEnd(answer?.fenced === "older" ? "superseded" : "lost");
      throw new Error(`${state.orgId} was not adopted: ${answer?.fenced ?? "no answer"}`);
    }
    orgs.set(state.orgId, state.position === "start" ? "start" : BigInt(state.position));
    begun.delete(state.orgId);
  }

  /** The one place where an adoption begins. */
  async function adopt(state: OrgSnapshot): Promise<void> {
    if (orgs.has(state.orgId)) return;
    let adopting = begun.get(state.orgId);
    if (!adopting) begun.set(state.orgId, (adopting = put(state)));
    await adopting;
  }

  async function read(orgId: string): Promise<OrgSnapshot | undefined> {
    const slice = { of: orgId };
    const { rows } = await parts.projector.rows("accounts", position, ORG_TABLES, slice);
    return [...orgSnapshots(rows)][0];
  }

  /** Adopts one that exists as far as the accounts are folded; of any other nothing happens. */
  async function want(orgId: string): Promise<void> {
    if (orgs.has(orgId)) return;
    const adopting = begun.get(orgId);
    if (adopting) return adopting;
    const state = await read(orgId);
    if (state) await adopt(state);
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
    adoptNew: (orgId: string) => adopt(toSnapshot(emptyAccounts(orgId))),
    /** Adopts the next ones that nobody has asked for. False when there are no more: then all are in. */
    async adoptNext(): Promise<boolean> {
      const slice = { in: "orgs", after, max: ORGS_AT_ONCE };
      const { rows } = await parts.projector.rows("accounts", position, ORG_TABLES, slice);
      const states = [...orgSnapshots(rows)];
      const left = states.values();
      const adoptLeft = async () => {
        for (const state of left) await adopt(state);
      };
      await Promise.all(Array.from({ length: ADOPTED_AT_ONCE }, adoptLeft));
      after = states.at(-1)?.orgId ?? after;
      isWhole = states.length === 0;
      return !isWhole;
    },
    isWhole: () => isWhole,
    /** Says how far an organization has come, after its events were applied. */
    moved: (orgId: string, to: bigint) => void orgs.set(orgId, to),
  };
}
