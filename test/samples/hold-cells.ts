import type { HoldVerb } from "#domain/accounts/holds.ts";
import type { HoldState } from "#domain/accounts/types.ts";

type Cell = "fault" | readonly [answer: string, state: HoldState, held: number, spent: number];

/**
 * What the design says of each verb in each state, written out once more by hand: the answer, what is left of the hold,
 * and the money. Through the port one cell cannot be reached: a sweep goes through the holds that there are, so it never
 * meets an absent one; there that row shows a sweep where nothing is held.
 */
const EXPECTED: Record<HoldState, Record<HoldVerb, Cell>> = {
  absent: {
    admit: ["admitted", "provisional", 10, 0],
    extend: ["gone", "absent", 0, 0],
    drop: ["dropped", "tombstone", 0, 0],
    close: ["closed", "absent", 0, 0],
    apply_open: ["applied", "open", 120, 0],
    apply_extended: "fault",
    apply_close: "fault",
    sweep: ["swept", "absent", 0, 0],
  },
  provisional: {
    admit: ["refused", "provisional", 120, 0],
    extend: ["raised", "provisional", 130, 0],
    drop: ["dropped", "tombstone", 0, 0],
    close: ["closed", "closed", 0, 30],
    apply_open: ["applied", "open", 120, 0],
    apply_extended: "fault",
    apply_close: "fault",
    sweep: ["swept", "absent", 0, 0],
  },
  open: {
    admit: ["refused", "open", 120, 0],
    extend: ["raised", "open", 130, 0],
    drop: "fault",
    close: ["closed", "closed", 0, 30],
    apply_open: "fault",
    apply_extended: ["applied", "open", 125, 0],
    apply_close: ["applied", "absent", 0, 30],
    sweep: ["swept", "open", 120, 0],
  },
  closed: {
    admit: ["refused", "closed", 0, 30],
    extend: "fault",
    drop: "fault",
    close: ["closed", "closed", 0, 30],
    apply_open: ["applied", "closed", 0, 30],
    apply_extended: ["applied", "closed", 0, 30],
    apply_close: ["applied", "absent", 0, 30],
    sweep: ["swept", "closed", 0, 30],
  },
  tombstone: {
    admit: ["refused", "tombstone", 0, 0],
    extend: "fault",
    drop: ["dropped", "tombstone", 0, 0],
    close: ["closed", "tombstone", 0, 0],
    apply_open: "fault",
    apply_extended: "fault",
    apply_close: "fault",
    sweep: ["swept", "tombstone", 0, 0],
  },
};

/** The table cell by cell. */
export const HOLD_CELLS = Object.entries(EXPECTED).flatMap(([state, row]) =>
  Object.entries(row).map(([verb, cell]) => [state as HoldState, verb as HoldVerb, cell] as const),
);
