import { copyFileSync, existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, afterAll, describe, expect, test, vi } from "vitest";
import { auditAll } from "#domain/invariants.ts";
import { backUpEventStore, restoreEventStore } from "#infra/event-store/backup.ts";
import { openSqliteReadModels } from "#infra/read-models/sqlite.ts";
import { PROJECTIONS } from "#projections/all.ts";
import { unpackRows } from "#projections/rows.ts";
import { eventsIn } from "./books.ts";
import {
  balanceOf,
  cli,
  command,
  leavesNothingRunning,
  manage,
  newFolder,
  openHere,
  post,
  startRelai,
  type Running,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

const chargedMicro = 15;

async function ask(relai: Running): Promise<void> {
  const answer = await post(relai, "[sim input=10 output=5]");
  expect(answer.status).toBe(200);
  await answer.text();
}

const addCredit = (relai: Running, dollars: string) =>
  manage(relai, "POST", `/v1/orgs/${relai.organization}/credits`, { amount_dollars: dollars });

/** One event each; the first is the credit that must not be seen again. */
async function recordMore(relai: Running, count: number): Promise<void> {
  const kinds = [
    () => addCredit(relai, "1000"),
    () => manage(relai, "POST", "/v1/orgs", { name: "Lost" }),
    () => manage(relai, "POST", `/v1/orgs/${relai.organization}/keys`, { name: "lost" }),
    () => addCredit(relai, "1"),
  ];
  for (let at = 0; at < count; at++) await kinds[at % kinds.length]?.();
}

/** How many read models this start has dropped with an alarm. */
async function dropped(relai: Running): Promise<number> {
  const text = await (await fetch(`${relai.internal}/metrics`)).text();
  const found = text.matchAll(/^relai_alarms_total\{what="read_model_\w+"\} (\d+)$/gm);
  return [...found].reduce((sum, [, count]) => sum + Number(count), 0);
}

/** Every read model's file says what the events in the store say, and nothing else. */
async function expectTrueReadModels({ dataDir }: Running): Promise<void> {
  const events = await eventsIn({ dataDir });
  await vi.waitFor(
    async () => {
      const folder = join(dataDir, "us", "read-models");
      const models = openSqliteReadModels({
        folder,
        onDropped: (name, reason) => expect([name, reason]).toEqual([]),
      });
      try {
        for (const { name, version, handles, open } of PROJECTIONS) {
          const model = await models.open(name, version);
          const checkpoint = await model.checkpoint();
          expect(checkpoint === "start" || checkpoint.position).toBe(events.at(-1)?.position);
          const fold = open(
            () => [],
            () => undefined,
          );
          for (const event of events) if (handles.has(event.type)) fold.apply(event);
          const byPlace = (one: { table: string; key: string }) => `${one.table} ${one.key}`;
          const wanted = fold.takeWrites().filter(({ value }) => value !== null);
          wanted.sort((one, other) => (byPlace(one) < byPlace(other) ? -1 : 1));
          expect([...unpackRows(await model.rows())]).toEqual(wanted);
        }
      } finally {
        await models.close();
      }
    },
    { timeout: 10_000, interval: 50 },
  );
}

describe("after a restore the books say what the restored events say, however many were lost", () => {
  const dataDir = newFolder();
  let relai: Running;
  let creditsMicro = 10_000_000;
  beforeAll(async () => {
    relai = await openHere({ dataDir });
    await addCredit(relai, "2");
    creditsMicro += 2_000_000;
  });
  afterAll(() => relai.stop());

  // A start records some eight events of its own: about there, positions alone would say that nothing is missing.
  test.each([1, 2, 3, 5, 6, 7, 8, 9, 10, 12, 15, 20])("%i lost", async (lost) => {
    await ask(relai);
    creditsMicro -= chargedMicro;
    const keys = await manage(relai, "GET", "/v1/keys");
    const backup = join(newFolder(), "backup.sqlite");
    const path = join(dataDir, "us", "events.sqlite");
    const { events } = await backUpEventStore(path, backup);
    await recordMore(relai, lost);
    expect((await balanceOf(relai)).credits_micro).toBeGreaterThanOrEqual(
      creditsMicro + 1_000_000_000,
    );
    await relai.stop();
    expect((await eventsIn(relai)).length).toBeGreaterThanOrEqual(events + lost);
    await restoreEventStore(backup, path, `.before-${lost}`);

    relai = await openHere({ dataDir });
    expect(await dropped(relai)).toBe(PROJECTIONS.length);
    expect(await balanceOf(relai)).toMatchObject({
      credits_micro: creditsMicro,
      held_micro: 0,
      available_micro: creditsMicro,
    });
    expect(await manage(relai, "GET", "/v1/keys")).toEqual(keys);
    expect((await manage(relai, "GET", "/v1/orgs"))["data"]).toHaveLength(1);
    await ask(relai);
    creditsMicro -= chargedMicro;
    expect((await balanceOf(relai)).credits_micro).toBe(creditsMicro);
    await expectTrueReadModels(relai);
    expect(auditAll(await eventsIn(relai))).toEqual([]);
  });
});

test("a backup that was put in place by hand is found out by its events alone", async () => {
  const dataDir = newFolder();
  const path = join(dataDir, "us", "events.sqlite");
  const backup = join(newFolder(), "backup.sqlite");
  const first = await openHere({ dataDir });
  await backUpEventStore(path, backup);
  await addCredit(first, "1000");
  // A list is answered when every read model holds what was recorded before it.
  await manage(first, "GET", "/v1/orgs");
  await first.stop();
  for (const suffix of ["", "-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true });
  copyFileSync(backup, path);
  const second = await openHere({ dataDir });
  expect(await dropped(second)).toBe(PROJECTIONS.length);
  expect((await balanceOf(second)).credits_micro).toBe(10_000_000);
  await expectTrueReadModels(second);
  await second.stop();
});

test("the commands: a backup beside the running process, a restore when it has stopped", async () => {
  const relai = await startRelai();
  await ask(relai);
  const backup = join(newFolder(), "backup.sqlite");
  const answer = await command(relai, "backup", backup);
  const { size, mode } = statSync(backup);
  expect(answer).toEqual({
    file: backup,
    region: "us",
    events: expect.any(Number) as unknown,
    position: String(answer["events"]),
    bytes: size,
  });
  expect(mode & 0o777).toBe(0o600);
  const again = await cli(relai, "backup", backup);
  expect([again.code, again.stderr]).toEqual([
    2,
    `relai: ${backup} exists already: a backup is a new file\n`,
  ]);
  const elsewhere = await cli(relai, "backup", "--region", "eu", `${backup}-eu`);
  expect([elsewhere.code, elsewhere.stderr]).toEqual([
    2,
    "relai: --region must be one of those in RELAI_REGIONS: us\n",
  ]);
  await command(relai, "credit", "add", "1000");
  const early = await cli(relai, "restore", backup);
  expect([early.code, early.stderr]).toEqual([
    2,
    `relai: The data folder ${relai.dataDir} is in use by another relai process.\n`,
  ]);
  expect(await relai.stop()).toBe(0);

  const wrong = await cli(relai, "restore", join(relai.dataDir, "demo.env"));
  expect([wrong.code, wrong.stderr]).toEqual([
    2,
    `relai: ${join(relai.dataDir, "demo.env")} is not an event store of relai\n`,
  ]);
  const restored = await cli(relai, "restore", backup);
  expect([restored.code, restored.stderr]).toEqual([0, ""]);
  expect(restored.stdout).toContain(`Restored ${String(answer["events"])} events`);
  expect(restored.stdout).toContain("Next: relai start");
  const aside = /are kept in (\S+)/.exec(restored.stdout)?.[1] ?? "";
  expect(existsSync(aside)).toBe(true);

  const second = await startRelai({ dataDir: relai.dataDir });
  expect(await balanceOf(second)).toMatchObject({ credits_micro: 10_000_000 - chargedMicro });
  for (const { name } of PROJECTIONS) expect(second.stderr()).toContain(`"projection":"${name}"`);
  await ask(second);
  expect(await second.stop()).toBe(0);
});
