import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  unpackRows,
  type ReadModelRow,
  type ReadModelWrite,
  type Slice,
} from "#projections/rows.ts";
import type { Checkpoint, ReadModels } from "#services/ports.ts";

/** What an adapter brings to its test. `reopen` is what a restart does: the same place, opened anew. */
export interface ReadModelsUnderTest {
  readonly models: ReadModels;
  reopen(): Promise<ReadModels>;
  /** Makes commits fail as a full disk does, until it is called with false. */
  readonly fillDisk?: (full: boolean) => void;
  cleanUp(): Promise<void>;
}

const row = (key: string, value: ReadModelRow["value"], table = "things"): ReadModelWrite => ({
  table,
  key,
  value,
});

/** A checkpoint at a position of some store. */
export function at(position: bigint): Checkpoint {
  const event = { id: `event ${position}`, recordedAt: 1_700_000_000_000 + Number(position) };
  return { store: "a store", position, event };
}

/** What every place of read models keeps to. A skip says why. */
export function readModelsSuite(
  name: string,
  make: () => Promise<ReadModelsUnderTest>,
  skips: { fullDisk?: string } = {},
): void {
  describe(`read models: ${name}`, () => {
    let under: ReadModelsUnderTest;
    let models: ReadModels;
    beforeEach(async () => {
      under = await make();
      models = under.models;
    });
    afterEach(() => under.cleanUp());

    test("a new one is empty and stands at the start", async () => {
      const model = await models.open("orders", 1);
      expect(await model.checkpoint()).toBe("start");
      expect([...unpackRows(await model.rows())]).toEqual([]);
    });

    test("rows are set, replaced and removed, and come back in the order of table and key", async () => {
      const model = await models.open("orders", 1);
      await model.commit(
        [row("b", 1), row("a", { deep: ["ä", null, true] }), row("a", 2, "first")],
        at(7n),
      );
      await model.commit([row("b", "new"), row("c", 3), row("c", null), row("none", null)], at(9n));
      expect(await model.checkpoint()).toEqual(at(9n));
      expect([...unpackRows(await model.rows())]).toEqual([
        row("a", 2, "first"),
        row("a", { deep: ["ä", null, true] }),
        row("b", "new"),
      ]);
    });

    test("rows of some tables are those rows, in the same order", async () => {
      const model = await models.open("orders", 1);
      const writes = ["c", "a", "b"].flatMap((table) => [row("2", 2, table), row("1", 1, table)]);
      await model.commit(writes, at(1n));
      expect([...unpackRows(await model.rows(["c", "none", "a"]))]).toEqual([
        row("1", 1, "a"),
        row("2", 2, "a"),
        row("1", 1, "c"),
        row("2", 2, "c"),
      ]);
      expect(await model.rows(["none"])).toEqual([]);
    });

    describe("a slice", () => {
      const tables = ["orgs", "lots"];
      async function filled() {
        const model = await models.open("orders", 1);
        const orgs = ["a", "b", "c", "d"].map((id) => row(id, id, "orgs"));
        const lots = ["a/1", "b/1", "b/2", "d/1"].map((id) => row(id, id, "lots"));
        await model.commit([...lots, ...orgs], at(1n));
        return async (slice: Slice, from: readonly string[] = tables) =>
          [...unpackRows(await model.rows(from, slice))].map(({ table, key }) => `${table} ${key}`);
      }

      test("of one key is its row and all that belong to it", async () => {
        const keys = await filled();
        expect(await keys({ of: "b" })).toEqual(["lots b/1", "lots b/2", "orgs b"]);
        expect(await keys({ of: "c" })).toEqual(["orgs c"]);
        expect(await keys({ of: "b" }, ["lots"])).toEqual(["lots b/1", "lots b/2"]);
        expect(await keys({ of: "" })).toEqual([]);
        expect(await keys({ of: "bb" })).toEqual([]);
        const model = await models.open("orders", 1);
        for (const of of ["b", "c", "bb"])
          expect(model.rowsAt(["lots"], of)).toEqual(await model.rows(["lots"], { of }));
      });

      test("of the next keys of a table gives each row once, and nothing behind the last", async () => {
        const keys = await filled();
        const next = (after: string, max = 2) => keys({ in: "orgs", after, max });
        expect(await next("")).toEqual(["lots a/1", "lots b/1", "lots b/2", "orgs a", "orgs b"]);
        expect(await next("b")).toEqual(["lots d/1", "orgs c", "orgs d"]);
        expect(await next("b", 1)).toEqual(["orgs c"]);
        expect(await next("d")).toEqual([]);
        expect(await keys({ in: "none", after: "", max: 2 })).toEqual([]);
      });

      test("is whole however many rows it has", async () => {
        const model = await models.open("orders", 1);
        const many = Array.from({ length: 11_000 }, (_, at) =>
          row(`b/${at + 100_000}`, at, "lots"),
        );
        await model.commit([...many, row("b", 0, "orgs"), row("a/1", 0, "lots")], at(1n));
        const found = [...unpackRows(await model.rows(tables, { of: "b" }))];
        expect(found.map(({ key }) => key)).toEqual([...many.map(({ key }) => key), "b"]);
      });
    });

    test("many rows come back all of them, once and in order, whatever stands in their keys", async () => {
      const model = await models.open("orders", 1);
      const keys = Array.from({ length: 12_001 }, (_, at) => `"${String(at).padStart(6, "0")}\\ä`);
      await model.commit(
        keys.toReversed().map((key) => row(key, { key })),
        at(1n),
      );
      const found = [...unpackRows(await model.rows())];
      expect(found.map(({ key }) => key)).toEqual(keys);
      expect(found.every(({ key, value }) => (value as { key: string }).key === key)).toBe(true);
    });

    test("within one commit the last value of a row wins", async () => {
      const model = await models.open("orders", 1);
      await model.commit([row("a", 1), row("a", null), row("a", 2)], at(1n));
      expect([...unpackRows(await model.rows())]).toEqual([row("a", 2)]);
    });

    test("a commit without writes moves the checkpoint; large positions are kept exactly", async () => {
      const model = await models.open("orders", 1);
      await model.commit([], at(9_007_199_254_740_993n));
      expect(await model.checkpoint()).toEqual(at(9_007_199_254_740_993n));
    });

    test("what was committed is there after a restart, under its own name", async () => {
      const model = await models.open("orders", 1);
      await model.commit([row("a", 1)], at(3n));
      await (await models.open("others", 1)).commit([row("z", 1)], at(4n));
      const again = await (await under.reopen()).open("orders", 1);
      expect(await again.checkpoint()).toEqual(at(3n));
      expect([...unpackRows(await again.rows())]).toEqual([row("a", 1)]);
    });

    test("rows share no object with what was committed or read", async () => {
      const model = await models.open("orders", 1);
      const value = { list: [1] };
      await model.commit([row("a", value)], at(1n));
      value.list.push(2);
      const read = [...unpackRows(await model.rows())][0]?.value as { list: number[] };
      read.list.push(3);
      expect([...unpackRows(await model.rows())]).toEqual([row("a", { list: [1] })]);
    });

    test("another version starts empty", async () => {
      await (await models.open("orders", 1)).commit([row("a", 1)], at(3n));
      const next = await (await under.reopen()).open("orders", 2);
      expect(await next.checkpoint()).toBe("start");
      expect([...unpackRows(await next.rows())]).toEqual([]);
    });

    test("one made aside is empty, leaves the other alone and takes its place when swapped in", async () => {
      const model = await models.open("orders", 1);
      await model.commit([row("a", "old")], at(3n));
      const aside = await models.openAside("orders", 1);
      expect([...unpackRows(await aside.rows())]).toEqual([]);
      await aside.commit([row("a", "new")], at(8n));
      expect([...unpackRows(await model.rows())]).toEqual([row("a", "old")]);
      const swapped = await models.swapIn("orders");
      expect(await swapped.checkpoint()).toEqual(at(8n));
      await swapped.commit([row("b", 1)], at(9n));
      const again = await (await under.reopen()).open("orders", 1);
      expect(await again.checkpoint()).toEqual(at(9n));
      expect([...unpackRows(await again.rows())]).toEqual([row("a", "new"), row("b", 1)]);
    });

    test("what an abandoned rebuild left is dropped by the next, and never taken for the real one", async () => {
      await (await models.open("orders", 1)).commit([row("a", "old")], at(3n));
      await (await models.openAside("orders", 1)).commit([row("left", 1)], at(2n));
      const restarted = await under.reopen();
      expect([...unpackRows(await (await restarted.open("orders", 1)).rows())]).toEqual([
        row("a", "old"),
      ]);
      const aside = await restarted.openAside("orders", 1);
      expect(await aside.checkpoint()).toBe("start");
      expect([...unpackRows(await aside.rows())]).toEqual([]);
    });

    test("there is nothing to swap in where nothing was made aside", async () => {
      await models.open("orders", 1);
      await expect(models.swapIn("orders")).rejects.toThrow("made aside");
    });

    test("a full disk moves neither rows nor checkpoint", async (context) => {
      if (skips.fullDisk !== undefined) context.skip(skips.fullDisk);
      const model = await models.open("orders", 1);
      await model.commit([row("a", "old")], at(3n));
      under.fillDisk?.(true);
      const large = Array.from({ length: 300 }, (_, at) => row(`k${at}`, "x".repeat(1_000)));
      await expect(model.commit([row("a", "new"), ...large], at(9n))).rejects.toThrow(/full/);
      expect(await model.checkpoint()).toEqual(at(3n));
      expect([...unpackRows(await model.rows())]).toEqual([row("a", "old")]);
      under.fillDisk?.(false);
      await model.commit([row("a", "new"), ...large], at(9n));
      expect(await model.checkpoint()).toEqual(at(9n));
      expect([...unpackRows(await model.rows())]).toHaveLength(301);
    });
  });
}
