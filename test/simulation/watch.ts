import type { HoldState } from "#domain/accounts/types.ts";
import { HOLD_TABLE, type CellObserver, type HoldVerb } from "#domain/accounts/holds.ts";
import type { Catalogue } from "#domain/catalogue/types.ts";
import { createAudit, type Audit } from "#domain/invariants.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import type { EventStore } from "#services/ports.ts";

/** What was found wrong, and when. */
export class Broken extends Error {
  override readonly name = "Broken";
  readonly invariant: string;
  constructor(invariant: string, sentence: string) {
    super(`${invariant}: ${sentence}`);
    this.invariant = invariant;
  }
}

/** The world's memory of what happened: every event in order, the audit over them, and which cells were reached. */
export interface Watch {
  readonly audit: Audit;
  readonly events: readonly RecordedEvent[];
  readonly cells: ReadonlyMap<string, number>;
  readonly observe: CellObserver;
  /** Puts a broken invariant on record; the first one ends the run. */
  broken(invariant: string, sentence: string): void;
  /** Throws the first broken invariant, if there is one. */
  hold(): void;
  /** Follows the store from its beginning, beside every fault. */
  follow(store: EventStore, signal: AbortSignal): void;
}

/** The name of a cell of the hold table. */
export function cellName(state: HoldState, verb: HoldVerb): string {
  return `${state} ${verb}`;
}

/** Every cell of the hold table whose act is no fault. */
export function harmlessCells(): string[] {
  const names: string[] = [];
  for (const [state, verbs] of Object.entries(HOLD_TABLE))
    for (const [verb, act] of Object.entries(verbs))
      if (act !== "fault") names.push(`${state} ${verb}`);
  return names;
}

export function createWatch(catalogue?: Catalogue): Watch {
  const cells = new Map<string, number>();
  const events: RecordedEvent[] = [];
  let first: Broken | undefined;
  const observe: CellObserver = (state, verb) => {
    const name = cellName(state, verb);
    cells.set(name, (cells.get(name) ?? 0) + 1);
  };
  const audit = createAudit(observe, catalogue);
  function broken(invariant: string, sentence: string): void {
    first ??= new Broken(invariant, sentence);
  }
  async function followAll(store: EventStore, signal: AbortSignal): Promise<void> {
    for await (const batch of store.follow({ after: "start", signal })) {
      for (const event of batch) {
        events.push(event);
        for (const { invariant, sentence } of audit.take(event)) broken(invariant, sentence);
      }
    }
  }
  return {
    audit,
    events,
    cells,
    observe,
    broken,
    hold() {
      if (first) throw first;
    },
    follow(store, signal) {
      followAll(store, signal).catch((error: unknown) => broken("READ", String(error)));
    },
  };
}
