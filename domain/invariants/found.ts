/** The invariants of the books that can be checked over recorded events, by the names that people cite. */
export const INVARIANTS = [
  "LIAB",
  "NOSPEND",
  "HOLDCAP",
  "CLOSE",
  "MONO",
  "FENCE",
  "IDEMP",
  "PRICE",
  "ROUND",
] as const;
export type Invariant = (typeof INVARIANTS)[number];

/** One broken invariant: which, where, and what is wrong in words. Ids and numbers only, never a caller's text. */
export interface Violation {
  readonly invariant: Invariant;
  readonly position: bigint;
  readonly sentence: string;
}

/** Where checkers report what they find. */
export type Report = (invariant: Invariant, sentence: string) => void;
