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
