import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test, vi } from "vitest";
import { PROJECTIONS } from "#projections/all.ts";
import { eventsIn } from "#test/e2e/money/books.ts";
import { balanceOf, cli, newOrganization, post, type Running } from "#test/e2e/relai.ts";

/** A relai whose read models can be seen, and lost. */
export interface ReplayWorld {
  readonly relai: Running;
  /** The folder of the read models. */
  readonly readModels: string;
  /** What costs a few dollars of the simulated `sim-flat` is here so many times as much. */
  readonly priceTimes: number;
  /** Stops what folds events, throws away what they folded, and starts it again. */
  fromNothing(): Promise<Running>;
}

/** Every row of every read model, as the files have them, with the event that each file stands at. */
function modelsIn(folder: string) {
  const files = readdirSync(folder).filter((name) => name.endsWith(".sqlite"));
  return Object.fromEntries(
    files.sort().map((name) => {
      const db = new DatabaseSync(join(folder, name), { readOnly: true });
      try {
        // First how far it has come: the rows may be newer than that, and never older.
        const model = db.prepare("SELECT CAST(position AS TEXT) AS position FROM model").get();
        const position = BigInt(String(model?.["position"]));
        const rows = db.prepare("SELECT tbl, key, value FROM rows ORDER BY tbl, key").all();
        return [name, { rows: rows.map((row) => ({ ...row })), position }];
      } finally {
        db.close();
      }
    }),
  );
}

const FILES = PROJECTIONS.map(({ name }) => `${name}.sqlite`).sort();

/** The rows of every read model once it has come to the newest event. */
async function caughtUp(relai: Running, folder: string) {
  const head = (await eventsIn(relai)).at(-1)?.position ?? 0n;
  return vi.waitFor(
    () => {
      const models = Object.entries(modelsIn(folder));
      expect(models.map(([name]) => name)).toEqual(FILES);
      for (const [name, { position }] of models)
        expect([name, position >= head]).toEqual([name, true]);
      return Object.fromEntries(models.map(([name, { rows }]) => [name, rows]));
    },
    { timeout: 30_000, interval: 50 },
  );
}

/** Some of everything that a read model is made of. */
async function live(relai: Running, priceTimes: number): Promise<void> {
  const key = { rpm: 100, name: "app" };
  const org = await newOrganization(relai, { creditMicro: 5000 * priceTimes, key });
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

/** Read models that are folded again, beside their use or from nothing, are what they were. */
export function provesReplay(worldOf: () => Promise<ReplayWorld>): void {
  test("rebuilt beside their use, and rebuilt from nothing, the read models are the same", async () => {
    const world = await worldOf();
    const { relai: first, readModels } = world;
    await live(first, world.priceTimes);
    const asLived = await caughtUp(first, readModels);
    for (const [name, rows] of Object.entries(asLived))
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
    expect(await caughtUp(first, readModels)).toEqual(asLived);
    const one = await cli(first, "replay", "--projection", "usage");
    expect([one.code, one.stdout]).toEqual([0, expect.stringContaining("usage")]);
    expect((await cli(first, "replay", "--projection", "none")).code).toBe(1);
    expect(await caughtUp(first, readModels)).toEqual(asLived);

    const second = await world.fromNothing();
    const rebuilt = await caughtUp(second, readModels);
    // A start adds events of its own (who writes, who owns): they leave no row but the one of each writer.
    const withoutWriters = (rows: { tbl?: unknown }[] = []) =>
      rows.filter(({ tbl }) => tbl !== "writers");
    for (const [name, rows] of Object.entries(asLived))
      expect([name, withoutWriters(rebuilt[name])]).toEqual([name, withoutWriters(rows)]);
    const { as_of: _, ...figures } = balance;
    expect(await balanceOf(second)).toMatchObject(figures);
    expect((await post(second, "[sim output=1]")).status).toBe(200);
  });
}
