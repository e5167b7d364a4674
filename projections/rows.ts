/** A value that JSON can say. */
export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };

/** One row of a read model: a table, a key within it and the value that stands there. */
export interface ReadModelRow<Table extends string = string, Value extends JsonValue = JsonValue> {
  readonly table: Table;
  readonly key: string;
  readonly value: Value;
}

/** Sets a row; a `value` of null removes it. */
export type ReadModelWrite<Row extends ReadModelRow = ReadModelRow> =
  | Row
  | ReadModelRow<Row["table"], null>;

/**
 * Rows as text, in pieces of one table each: to hand them on costs a fraction of what objects cost, and whoever reads
 * them makes the objects of one piece at a time. Tables and keys are in order.
 */
export type PackedRows<Row extends ReadModelRow = ReadModelRow> = readonly {
  readonly table: Row["table"];
  /** An array of a key, its value, the next key, its value, and so on. */
  readonly json: string;
  /** Never there: by this the compiler knows what the text says. */
  readonly says?: Row;
}[];

/**
 * A part of a read model, by its keys. What belongs to a row of another table has that row's key and a slash in front of
 * its own, and no such key is the beginning of another.
 */
export type Slice =
  /** The rows of one key, and all that belong to it. */
  | { readonly of: string }
  /** Those of the next `max` keys of a table behind this one ("" for the first), and all that belong to them. */
  | { readonly in: string; readonly after: string; readonly max: number };

/** All rows, or those of one table. They have the shape of their table: the projection of this version wrote them. */
export function* unpackRows<Row extends ReadModelRow, Table extends Row["table"]>(
  packed: PackedRows<Row>,
  only?: Table,
): Generator<Extract<Row, { table: Table }>, undefined> {
  for (const { table, json } of packed) {
    if (only !== undefined && table !== only) continue;
    const flat = JSON.parse(json) as unknown[];
    for (let at = 0; at < flat.length; at += 2)
      yield { table, key: flat[at], value: flat[at + 1] } as Extract<Row, { table: Table }>;
  }
}
