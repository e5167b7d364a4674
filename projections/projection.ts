import type { RecordedEvent } from "#domain/events/events.ts";
import type { EventType } from "#domain/events/schemas.ts";
import type { ReadModelRow, ReadModelWrite } from "./rows.ts";

/** Something that a person should look at; `what` is a fixed name, the facts are ids, numbers and fixed sentences. */
export type OnFault = (what: string, facts: Readonly<Record<string, string>>) => void;

/**
 * How a read model is made of events: pure, without clock, randomness or I/O. The same events give the same rows, byte
 * for byte, however they are cut into batches and wherever the fold was stopped and opened again.
 */
export interface Projection<Name extends string = string, Row extends ReadModelRow = ReadModelRow> {
  readonly name: Name;
  /** Rises with every change of what the rows say; a read model of another version is made anew. */
  readonly version: number;
  readonly handles: ReadonlySet<EventType>;
  /**
   * Whether a fold goes on from the rows that are there. Where it does not, each event sets its rows out of itself
   * alone, so nothing is read at the start and nothing is kept in memory.
   */
  readonly resumes: boolean;
  /** Goes on from rows that a fold of this version wrote. A rebuild gives an `onFault` that says nothing. */
  open(rows: Iterable<Row>, onFault: OnFault): Fold<Row>;
}

/** A read model in the making. */
export interface Fold<Row extends ReadModelRow = ReadModelRow> {
  /** Takes one event of a type that the projection handles; events come in the order of their positions, each once. */
  apply(event: RecordedEvent): void;
  /**
   * What changed since the last call: the last value of each row. A row that was made and removed in between is left
   * out. Whoever takes the writes must store them: they are not given twice.
   */
  takeWrites(): ReadModelWrite<Row>[];
}

/**
 * A fold whose events each set a whole row: `writeOf` gives an event's, the last value of a row wins.
 */
export function settingFold<Row extends ReadModelRow>(
  writeOf: (event: RecordedEvent) => ReadModelWrite<Row> | undefined,
): Fold<Row> {
  let changed = new Map<string, ReadModelWrite<Row>>();
  return {
    apply(event) {
      const write = writeOf(event);
      if (write) changed.set(`${write.table}/${write.key}`, write);
    },
    takeWrites() {
      const writes = [...changed.values()];
      changed = new Map();
      return writes;
    },
  };
}
