import type { CellObserver } from "./accounts/holds.ts";
import type { Catalogue } from "./catalogue/types.ts";
import type { RecordedEvent } from "./events/events.ts";
import type { Violation } from "./invariants/found.ts";
import { createHoldCheck } from "./invariants/holds.ts";
import { createMoneyCheck } from "./invariants/money.ts";
import { createOrderCheck } from "./invariants/order.ts";
import { createPinCheck } from "./invariants/pins.ts";

export type Audit = ReturnType<typeof createAudit>;

const NONE: readonly Violation[] = [];

/**
 * The invariants of the books, checked over recorded events alone: LIAB, NOSPEND, HOLDCAP, CLOSE, MONO, FENCE, IDEMP,
 * PRICE, ROUND. Nothing here looks at any store; the events come in the order of their positions.
 *
 * Starts an audit before the first event. `observe` is told of every cell of the hold table that the fold reaches. With
 * the catalogue that the prices were taken from, PRICE also holds each charge to the price that it names.
 */
export function createAudit(observe?: CellObserver, catalogue?: Catalogue) {
  const order = createOrderCheck();
  const holds = createHoldCheck();
  const money = createMoneyCheck(observe);
  const pins = catalogue && createPinCheck(catalogue);
  return {
    holds,
    money,
    /** Takes the next event and says what it breaks; nothing while all is well. */
    take(event: RecordedEvent): readonly Violation[] {
      let found: Violation[] | undefined;
      const report = (invariant: Violation["invariant"], sentence: string) => {
        (found ??= []).push({ invariant, position: event.position, sentence });
      };
      order(event, report);
      holds.take(event, report);
      money.take(event, report);
      pins?.(event, report);
      return found ?? NONE;
    },
  };
}

/** Audits a whole history that has come to rest: also no sealed journal may have an open hold. */
export function auditAll(events: Iterable<RecordedEvent>, catalogue?: Catalogue): Violation[] {
  const audit = createAudit(undefined, catalogue);
  const found: Violation[] = [];
  let position = 0n;
  for (const event of events) {
    found.push(...audit.take(event));
    position = event.position;
  }
  for (const stream of audit.holds.sealedWithOpenHolds())
    found.push({ invariant: "CLOSE", position, sentence: `${stream} is sealed with open holds` });
  return found;
}
