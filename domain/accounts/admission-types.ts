import type { AccountTaking } from "#domain/events/schemas.ts";
import type { AdmitRefusal } from "./checks.ts";
import type { Hold } from "./types.ts";

/** Nothing was done: the caller's owner epoch, or the server itself, is not the one that may take money here. */
export interface Fenced {
  readonly outcome: "fenced";
  /**
   * `away`: the one of several servers that has the organization does not answer, and was not asked.
   * `fault`: this organization is closed to all money until a person has looked.
   */
  readonly fenced: "absent" | "older" | "server" | "away" | "fault";
}

/** An account as admission sees it. Micro. */
export interface AccountFigures {
  readonly fundedMicro: number;
  readonly spentMicro: number;
  readonly heldMicro: number;
  readonly availableMicro: number;
}

/** Requests per minute of one key. */
export interface RateFigures {
  readonly limit: number;
  readonly remaining: number;
  /** Until one slot is free again (0 when one is). Milliseconds. */
  readonly freeInMs: number;
  /** Until the whole window is free again. Milliseconds. */
  readonly resetMs: number;
}

export interface AdmitAsk {
  readonly orgId: string;
  readonly ownerEpoch: number;
  readonly requestId: string;
  readonly writerEpoch: number;
  readonly keyId: string;
  readonly holdMicro: number;
}

export type OfOwner = Pick<AdmitAsk, "orgId" | "ownerEpoch">;
export type OfRequest = Pick<AdmitAsk, "orgId" | "ownerEpoch" | "requestId">;

export interface Admitted {
  readonly outcome: "admitted";
  /** The store's own time, which chose the periods. */
  readonly atMs: number;
  readonly accounts: AccountTaking[];
  readonly rate?: RateFigures;
}

export interface AdmitRefused {
  readonly outcome: "refused";
  readonly refusal: AdmitRefusal;
  readonly balance: AccountFigures;
  readonly budget?: AccountFigures;
  readonly rate?: RateFigures;
}

export type AdmitOutcome = Admitted | AdmitRefused | Fenced;

/** `raised` gives the hold's present total, which is below the one asked for when the money did not go further. */
export type ExtendOutcome =
  | ({ readonly outcome: "raised" } & Readonly<Pick<Hold, "totalMicro" | "accounts">>)
  | { readonly outcome: "gone" }
  | Fenced;

export interface FiguresAsk {
  readonly orgId: string;
  /** Its budget is told too. */
  readonly keyId?: string;
  /** Only what is in place under this owner; without it, under whichever. */
  readonly ownerEpoch?: number;
}

export type FiguresOutcome =
  | {
      readonly outcome: "figures";
      readonly balance: AccountFigures;
      readonly budget?: AccountFigures;
      /** Top-ups of which anything is free or held. */
      readonly unspentLots: number;
      /** Of the last recorded event that is in these figures. */
      readonly position: bigint | "start";
      readonly asOfMs: number;
    }
  | Fenced;

/** An organization that the ledger should look at. */
export interface Wanted {
  readonly orgId: string;
  /** Who took its provisional holds that are older than any append; empty where it was only missed. */
  readonly writerEpochs: readonly number[];
}

/** `behind`: the store has only come to `position`; send from there. */
export type ApplyOutcome =
  | { readonly outcome: "applied"; readonly position: bigint | "start" }
  | { readonly outcome: "behind"; readonly position: bigint | "start" }
  | Fenced;
