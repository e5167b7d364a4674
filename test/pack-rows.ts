import type { JsonValue, PackedRows, ReadModelRow } from "#projections/rows.ts";

/** Rows as a read model gives them. */
export function packRows(rows: readonly ReadModelRow[]): PackedRows {
  const tables = new Map<string, JsonValue[]>();
  for (const { table, key, value } of rows) {
    const flat = tables.get(table) ?? [];
    tables.set(table, flat);
    flat.push(key, value);
  }
  return [...tables].map(([table, flat]) => ({ table, json: JSON.stringify(flat) }));
}
