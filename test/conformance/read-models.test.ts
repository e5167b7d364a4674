import {
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, describe, expect, test } from "vitest";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import { openSqliteReadModels } from "#infra/read-models/sqlite.ts";
import { unpackRows } from "#projections/rows.ts";
import { at, readModelsSuite } from "./read-models-suite.ts";

const folders: string[] = [];
function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "relai-read-models-"));
  folders.push(folder);
  return folder;
}
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

readModelsSuite(
  "memory",
  async () => {
    const models = createMemoryReadModels();
    return { models, reopen: async () => models, cleanUp: () => models.close() };
  },
  { fullDisk: "memory has no disk that could be full" },
);

readModelsSuite("SQLite", async () => {
  const folder = newFolder();
  const files: DatabaseSync[] = [];
  const onOpen = (db: DatabaseSync) => files.push(db);
  const open = () => openSqliteReadModels({ folder, onDropped: () => undefined, onOpen });
  let models = open();
  return {
    models,
    async reopen() {
      await models.close();
      return (models = open());
    },
    fillDisk(full) {
      for (const db of files) db.exec(`PRAGMA max_page_count = ${full ? 4 : 2 ** 30}`);
    },
    cleanUp: () => models.close(),
  };
});

describe("SQLite files that are of no use", () => {
  /** A file with one row, spoiled by `spoil`, then opened again. */
  async function reopened(spoil: (path: string) => void) {
    const folder = newFolder();
    const dropped: string[] = [];
    const onDropped = (name: string, reason: string) => dropped.push(`${name}: ${reason}`);
    const before = openSqliteReadModels({ folder, onDropped });
    const value = "x".repeat(2_000);
    const writes = Array.from({ length: 50 }, (_, at) => ({ table: "t", key: `k${at}`, value }));
    await (await before.open("orders", 1)).commit(writes, at(3n));
    await before.close();
    spoil(join(folder, "orders.sqlite"));
    const after = openSqliteReadModels({ folder, onDropped });
    const model = await after.open("orders", 1);
    const found = {
      dropped,
      checkpoint: await model.checkpoint(),
      rows: [...unpackRows(await model.rows())],
    };
    await model.commit([{ table: "t", key: "new", value: 1 }], at(1n));
    expect([...unpackRows(await model.rows())]).toHaveLength(found.rows.length + 1);
    await after.close();
    return found;
  }
  const empty = (reason: string) => ({
    dropped: [`orders: ${reason}`],
    checkpoint: "start",
    rows: [],
  });

  test("a whole file is kept", async () => {
    const found = await reopened(() => undefined);
    expect(found).toMatchObject({ dropped: [], checkpoint: at(3n) });
    expect(found.rows).toHaveLength(50);
  });

  test("text in its place is dropped", async () => {
    const spoil = (path: string) => writeFileSync(path, "this is not a database".repeat(1_000));
    expect(await reopened(spoil)).toEqual(empty("the file is damaged"));
  });

  test("an empty file is dropped", async () => {
    expect(await reopened((path) => truncateSync(path, 0))).toEqual(
      empty("the file is no read model"),
    );
  });

  test("a file that was cut short is dropped", async () => {
    const spoil = (path: string) =>
      truncateSync(path, Math.floor(statSync(path).size / 2 / 4_096) * 4_096);
    expect(await reopened(spoil)).toEqual(empty("the file is damaged"));
  });

  test("a file with overwritten pages is dropped", async () => {
    // The first pages, with the schema and the version, stay: only a look at all the others finds it.
    const kept = 5 * 4_096;
    const spoil = (path: string) => {
      const file = openSync(path, "r+");
      writeSync(file, Buffer.alloc(statSync(path).size - kept, 0xa5), 0, null, kept);
      closeSync(file);
    };
    expect(await reopened(spoil)).toEqual(empty("the file is damaged"));
  });

  test("a file whose tables another version of relai laid out is dropped", async () => {
    const spoil = (path: string) => {
      const db = new DatabaseSync(path);
      db.exec("PRAGMA user_version = 0; DROP TABLE model");
      db.exec("CREATE TABLE model (version INTEGER, checkpoint TEXT)");
      db.exec("INSERT INTO model VALUES (1, '3')");
      db.close();
    };
    expect(await reopened(spoil)).toEqual(empty("another version of relai wrote the file"));
  });

  test("another program's database is dropped", async () => {
    const spoil = (path: string) => {
      const db = new DatabaseSync(path);
      db.exec("PRAGMA application_id = 7; DROP TABLE model");
      db.close();
    };
    expect(await reopened(spoil)).toEqual(empty("the file is no read model"));
  });
});
