import type { Slice } from "#projections/rows.ts";
import type { Checkpoint, ReadModel, ReadModels } from "#services/ports.ts";

interface Held {
  readonly version: number;
  checkpoint: Checkpoint | "start";
  /** By table and key; the value as JSON, so that nobody shares an object with it. */
  readonly rows: Map<string, { table: string; key: string; json: string }>;
}

/**
 * Read models in memory: for simulations, where one of these outlives the processes that open it, as a disk would.
 * `close` therefore drops nothing.
 */
export function createMemoryReadModels(): ReadModels {
  const models = new Map<string, Held>();
  const asides = new Map<string, Held>();
  const empty = (version: number): Held => ({ version, checkpoint: "start", rows: new Map() });

  return {
    async open(name, version) {
      let held = models.get(name);
      if (held?.version !== version) models.set(name, (held = empty(version)));
      return modelOf(held);
    },
    async openAside(name, version) {
      const held = empty(version);
      asides.set(name, held);
      return modelOf(held);
    },
    async swapIn(name) {
      const held = asides.get(name);
      if (!held) throw new Error(`no read model ${name} was made aside`);
      asides.delete(name);
      models.set(name, held);
      return modelOf(held);
    },
    async close() {},
  };
}

function modelOf(held: Held): ReadModel {
  function rows(tables?: readonly string[], slice?: Slice) {
    const pieces = new Map<string, string[]>();
    const sorted = [...held.rows].sort(([one], [other]) => (one < other ? -1 : 1));
    const isIn = isInSlice(
      sorted.map(([, row]) => row),
      slice,
    );
    for (const [, row] of sorted) {
      if ((tables && !tables.includes(row.table)) || !isIn(row.key)) continue;
      const piece = pieces.get(row.table) ?? [];
      pieces.set(row.table, piece);
      piece.push(JSON.stringify(row.key), row.json);
    }
    return [...pieces].map(([table, piece]) => ({ table, json: `[${piece.join(",")}]` }));
  }

  return {
    checkpoint: async () => held.checkpoint,
    rows: async (tables, slice) => rows(tables, slice),
    rowsAt: (tables, key) => rows(tables, { of: key }),
    async commit(writes, checkpoint) {
      for (const { table, key, value } of writes) {
        const place = `${table}\n${key}`;
        if (value === null) held.rows.delete(place);
        else held.rows.set(place, { table, key, json: JSON.stringify(value) });
      }
      held.checkpoint = checkpoint;
    },
  };
}

function isInSlice(
  sorted: readonly { readonly table: string; readonly key: string }[],
  slice: Slice | undefined,
): (key: string) => boolean {
  if (!slice) return () => true;
  const ofOne = (lead: string) => (key: string) => key === lead || key.startsWith(`${lead}/`);
  if ("of" in slice) return ofOne(slice.of);
  const leads = sorted.filter(({ table, key }) => table === slice.in && key > slice.after);
  const [first, last] = [leads[0]?.key, leads.slice(0, slice.max).at(-1)?.key];
  if (first === undefined || last === undefined) return () => false;
  return (key) => key >= first && (key <= last || key.startsWith(`${last}/`));
}
