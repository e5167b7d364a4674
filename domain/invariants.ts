import type { CellObserver } from "./accounts/holds.ts";
import type { Catalogue } from "./catalogue/types.ts";
import type { RecordedEvent } from "./events/events.ts";
import type { Report, Violation } from "./invariants/found.ts";
import { createHoldCheck } from "./invariants/holds.ts";
import { createMoneyCheck } from "./invariants/money.ts";
import { createOrderCheck } from "./invariants/order.ts";
import { createPinCheck } from "./invariants/pins.ts";

export type Audit = ReturnType<typeof createAudit>;

/**
 * The invariants of the books, checked over recorded events alone: LIAB, NOSPEND, HOLDCAP, CLOSE, MONO, FENCE, IDEMP,
 * PRICE, ROUND. Nothing here looks at any store; the events come in the order of their positions.
 *
 * Starts an audit before the first event. `observe` is told of every cell of the hold table that the fold reaches. With
 * the catalogue that the prices were taken from, PRICE also holds each charge to the price that it names.
 */
export function createAudit(observe?: CellObserver, catalogue?: Catalogue) {
  let found: Violation[] = [];
  let position = 0n;
  const report: Report = (invariant, sentence) => found.push({ invariant, position, sentence });
  const order = createOrderCheck(report);
  const holds = createHoldCheck(report);
  const money = createMoneyCheck(report, observe);
  const pins = catalogue && createPinCheck(report, catalogue);
  return {
    holds,
    money,
    /** Takes the next event and says what it breaks; nothing while all is well. */
    take(event: RecordedEvent): readonly Violation[] {
      found = [];
      ({ position } = event);
      order(event);
      holds.take(event);
      money.take(event);
      pins?.(event);
      return found;
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
