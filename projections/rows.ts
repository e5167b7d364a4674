/** A value that JSON can say. */
export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };

/** One row of a read model: a table, a key within it and the value that stands there. */
export interface ReadModelRow {
  readonly table: string;
  readonly key: string;
  readonly value: JsonValue;
}

/** Sets a row; a `value` of null removes it. */
export type ReadModelWrite = ReadModelRow;

/**
 * Rows as text, in pieces of one table each: to hand them on costs a fraction of what objects cost, and whoever reads
 * them makes the objects of one piece at a time. Tables and keys are in order.
 */
export type PackedRows = readonly {
  readonly table: string;
  /** An array of a key, its value, the next key, its value, and so on. */
  readonly json: string;
}[];

export function* unpackRows(packed: PackedRows): Generator<ReadModelRow, undefined> {
  for (const { table, json } of packed) {
    const flat = JSON.parse(json) as JsonValue[];
    for (let at = 0; at < flat.length; at += 2)
      yield { table, key: flat[at] as string, value: flat[at + 1] ?? null };
  }
}
