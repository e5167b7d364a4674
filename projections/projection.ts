import type { Recorded, RecordedEvent } from "#domain/events/events.ts";
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
   * Goes on from what a fold of this version stored, and reads of it what an event concerns: a start does not grow with
   * what is stored. A rebuild gives an `onFault` that says nothing.
   */
  open(stored: Stored<Row>, onFault: OnFault): Fold<Row>;
}

/** The rows of some tables at a key, and all that belong to it, as they were stored last. */
export type Stored<Row extends ReadModelRow = ReadModelRow> = (
  tables: readonly Row["table"][],
  key: string,
) => Iterable<Row>;

/** A read model in the making. */
export interface Fold<Row extends ReadModelRow = ReadModelRow> {
  /** Takes one event of a type that the projection handles; events come in the order of their positions, each once. */
  apply(event: RecordedEvent): void;
  /**
   * What changed since the last call: the last value of each row. A row that was made and removed in between is left
   * out. Whoever takes the writes must store them before the next event: they are not given twice, and may be read.
   */
  takeWrites(): ReadModelWrite<Row>[];
}

type WriteOf<Row extends ReadModelRow, T extends EventType> = (
  event: Recorded<T>,
) => ReadModelWrite<Row> | undefined;
/** What the events of each type say: a whole row, each by itself. */
type Writes<Row extends ReadModelRow> = { readonly [T in EventType]?: WriteOf<Row, T> };

/** A projection whose events each set a row out of themselves alone. */
export function settingProjection<Name extends string, Row extends ReadModelRow>({
  writes,
  ...known
}: Pick<Projection<Name>, "name" | "version"> & {
  readonly writes: Writes<Row>;
}): Projection<Name, Row> {
  const handles = new Set(Object.keys(writes) as EventType[]);
  return { ...known, handles, open: () => settingFold(writes) };
}

/** A fold whose events each set a whole row: the last value of a row wins. Events of other types say nothing. */
export function settingFold<Row extends ReadModelRow>(writes: Writes<Row>): Fold<Row> {
  let changed = new Map<string, ReadModelWrite<Row>>();
  return {
    apply(event) {
      // The compiler does not follow that what was found under its type takes this event.
      const writeOf = writes[event.type] as WriteOf<Row, EventType> | undefined;
      const write = writeOf?.(event);
      if (write) changed.set(`${write.table}/${write.key}`, write);
    },
    takeWrites() {
      const writes = [...changed.values()];
      changed = new Map();
      return writes;
    },
  };
}
