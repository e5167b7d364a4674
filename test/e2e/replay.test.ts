import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test, vi } from "vitest";
import { PROJECTIONS } from "#projections/all.ts";
import { eventsIn } from "./books.ts";
import {
  balanceOf,
  cli,
  leavesNothingRunning,
  newFolder,
  newOrganization,
  post,
  startRelai,
  type Running,
} from "./relai.ts";

leavesNothingRunning();

const folderOf = ({ dataDir }: Pick<Running, "dataDir">): string =>
  join(dataDir, "us", "read-models");

/** Every row of every read model, as the files have them, with the event that each file stands at. */
function readModels(relai: Pick<Running, "dataDir">) {
  const files = readdirSync(folderOf(relai)).filter((name) => name.endsWith(".sqlite"));
  return Object.fromEntries(
    files.sort().map((name) => {
      const db = new DatabaseSync(join(folderOf(relai), name), { readOnly: true });
      try {
        const rows = db.prepare("SELECT tbl, key, value FROM rows ORDER BY tbl, key").all();
        const model = db.prepare("SELECT * FROM model").all();
        return [name, { rows: rows.map((row) => ({ ...row })), model: { ...model[0] } }];
      } finally {
        db.close();
      }
    }),
  );
}

/** The same once every read model has come to the newest event. */
async function caughtUp(relai: Pick<Running, "dataDir">) {
  const head = String((await eventsIn(relai)).at(-1)?.position);
  return vi.waitFor(
    () => {
      const models = readModels(relai);
      for (const [name, { model }] of Object.entries(models))
        expect([name, String(model["position"])]).toEqual([name, head]);
      return models;
    },
    { timeout: 30_000, interval: 50 },
  );
}

/** Some of everything that a read model is made of. */
async function live(relai: Running): Promise<void> {
  const org = await newOrganization(relai, { creditMicro: 5000, key: { rpm: 100, name: "app" } });
  for (const content of [
    "[sim input=10 output=20]",
    "[sim status=500]",
    "[sim input=900 output=90]",
    "[sim reset-after=4]",
    "[sim input=60 cached=50 output=3]",
  ])
    for (const stream of [true, false])
      await (await post(org, content, { stream, max_tokens: 50 })).text();
  await cli(relai, "key", "revoke", org.keyId);
}

test("rebuilt beside their use, and rebuilt from nothing, the read models are the same", async () => {
  const dataDir = newFolder();
  const first = await startRelai({ dataDir });
  await live(first);
  const asLived = await caughtUp(first);
  expect(Object.keys(asLived)).toEqual([
    "accounts.sqlite",
    "key-directory.sqlite",
    "management.sqlite",
    "usage.sqlite",
  ]);
  for (const [name, { rows }] of Object.entries(asLived))
    expect([name, rows.length]).not.toEqual([name, 0]);
  const balance = await balanceOf(first);

  const replayed = await cli(first, "replay", "--json");
  expect([replayed.code, replayed.stderr]).toEqual([0, ""]);
  const lines = replayed.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as unknown);
  const done = lines.at(-1) as { done: boolean; data: { projection: string }[] };
  expect([done.done, done.data.map(({ projection }) => projection)]).toEqual([
    true,
    PROJECTIONS.map(({ name }) => name),
  ]);
  expect(await caughtUp(first)).toEqual(asLived);
  const one = await cli(first, "replay", "--projection", "usage");
  expect([one.code, one.stdout]).toEqual([0, expect.stringContaining("usage")]);
  expect((await cli(first, "replay", "--projection", "none")).code).toBe(1);
  expect(await caughtUp(first)).toEqual(asLived);
  expect(await first.stop()).toBe(0);

  rmSync(folderOf(first), { recursive: true });
  const second = await startRelai({ dataDir });
  const rebuilt = await caughtUp(second);
  // A start adds events of its own (who writes, who owns): they leave no row but the one of each writer.
  const withoutWriters = (rows: { tbl?: unknown }[] = []) =>
    rows.filter(({ tbl }) => tbl !== "writers");
  for (const [name, { rows }] of Object.entries(asLived))
    expect([name, withoutWriters(rebuilt[name]?.rows)]).toEqual([name, withoutWriters(rows)]);
  const { as_of: _, ...figures } = balance;
  expect(await balanceOf(second)).toMatchObject(figures);
  expect((await post(second, "[sim output=1]")).status).toBe(200);
  expect(await second.stop()).toBe(0);
});
