import type { JsonValue, PackedRows, ReadModelRow } from "#projections/rows.ts";

/** Rows as a read model gives them. */
export function packRows<Row extends ReadModelRow>(
  rows: readonly Row[],
): PackedRows<Exclude<Row, { value: null }>> {
  const tables = new Map<Row["table"], JsonValue[]>();
  for (const { table, key, value } of rows) {
    const flat = tables.get(table) ?? [];
    tables.set(table, flat);
    flat.push(key, value);
  }
  return [...tables].map(([table, flat]) => ({ table, json: JSON.stringify(flat) }));
}
