import type { AccountTaking } from "#domain/events/schemas.ts";
import type { KeyLimits } from "#domain/key-limits.ts";

/** One top-up and what of it is neither spent nor held. Lots stand in the order in which they are taken. */
export interface Lot {
  readonly lotId: string;
  readonly pot: "paid";
  readonly fundedMicro: number;
  availableMicro: number;
  heldMicro: number;
}

/** A key's budget and what admission must know of the key. */
export interface KeyAccount {
  readonly keyId: string;
  revoked: boolean;
  readonly limits: KeyLimits;
  spentMicro: number;
  heldMicro: number;
}

/** Where a hold stands; `absent` is the state of a request id that nothing is known of. */
export type HoldState = "absent" | "provisional" | "open" | "closed" | "tombstone";

export interface Hold {
  readonly requestId: string;
  readonly keyId: string;
  readonly writerEpoch: number;
  state: Exclude<HoldState, "absent">;
  totalMicro: number;
  /** The same total on every account; on the balance with the lots it was taken from. */
  accounts: readonly AccountTaking[];
  /** Where its journal says so last: the revision of RequestAdmitted or HoldExtended; -1 while nothing is recorded. */
  revision: number;
}

/** An organization's accounts as plain JSON: what the accounts file keeps and what `adopt` puts in place. */
export interface OrgSnapshot {
  readonly orgId: string;
  /** The position of the last event that is in it, as a decimal string; "start" before the first. */
  readonly position: string;
  readonly created: boolean;
  readonly fundedMicro: number;
  readonly spentMicro: number;
  readonly heldMicro: number;
  readonly lots: readonly Lot[];
  readonly keys: readonly KeyAccount[];
  readonly holds: readonly Hold[];
  /** Set when a rule of the books was broken: no money moves until a person has looked. */
  readonly fault?: string;
}

/** What an event does to an organization's accounts: values only, computed from the event alone. */
export type Effect =
  | { readonly effect: "created" }
  | ({ readonly effect: "credited"; readonly micro: number } & Pick<Lot, "lotId" | "pot">)
  | { readonly effect: "key_issued"; readonly keyId: string; readonly limits: KeyLimits }
  | { readonly effect: "key_revoked"; readonly keyId: string }
  | ({ readonly effect: "hold_opened" } & Readonly<Omit<Hold, "state">>)
  | ({ readonly effect: "hold_extended" } & Readonly<
      Pick<Hold, "requestId" | "totalMicro" | "revision" | "accounts">
    >)
  | { readonly effect: "hold_closed"; readonly requestId: string; readonly chargedMicro: number };

/** One event's effects on one organization; `prev` is the position of the event before it that touched the organization. */
export interface AccountsItem {
  readonly prev: bigint | "start";
  readonly position: bigint;
  readonly effects: readonly Effect[];
}
