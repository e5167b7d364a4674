import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Worker } from "node:worker_threads";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "#infra/clock.ts";
import { openSqliteEventStore, type SqliteEventStore } from "#infra/event-store/sqlite.ts";
import type { Projector, RebuildProgress } from "#services/ports.ts";
import { histories } from "#test/samples/histories.ts";
import { openWorkerProjector } from "./worker-projector.ts";

const clock = systemClock();
let root: string;
let store: SqliteEventStore;
let alarms: string[];
let threads: Worker[];
let projector: Projector;

function open(): Projector {
  return openWorkerProjector({
    entry: new URL(import.meta.resolve("#services/projector/main.ts")),
    events: { path: join(root, "events.sqlite") },
    folder: join(root, "read-models"),
    clock,
    onAlarm: (what, facts) => alarms.push(`${what}: ${facts["reason"]}`),
    onStart: (thread) => threads.push(thread),
  });
}

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "relai-worker-projector-"));
  store = await openSqliteEventStore({ path: join(root, "events.sqlite"), clock });
  alarms = [];
  threads = [];
  projector = open();
});
afterEach(async () => {
  await projector.close();
  await store.close();
  rmSync(root, { recursive: true });
});

const revisions = new Map<string, bigint>();
async function append(seed: number, events: number): Promise<bigint> {
  revisions.clear();
  let head = 0n;
  for (const one of histories(seed, events)) {
    const answer = await store.append(
      one.stream,
      one.events,
      revisions.get(one.stream) ?? "no_stream",
    );
    if (answer.outcome !== "appended") throw new Error(`not appended: ${answer.outcome}`);
    revisions.set(one.stream, answer.revision);
    head = answer.position;
  }
  return head;
}

test("folds in its own thread what this one appends, and gives the rows", async () => {
  const head = await append(1, 300);
  const { position, rows } = await projector.rows("accounts", head);
  expect(position).toBe(head);
  expect(new Set(rows.map(({ table }) => table))).toEqual(
    new Set(["orgs", "lots", "keys", "holds", "writers"]),
  );
  const some = await projector.rows("accounts", head, ["writers", "holds"]);
  expect(some.rows).toEqual(rows.filter(({ table }) => table === "holds" || table === "writers"));
  expect(readdirSync(join(root, "read-models"))).toEqual(
    expect.arrayContaining(["accounts.sqlite", "key-directory.sqlite", "usage.sqlite"]),
  );
  expect(alarms).toEqual([]);
});

test("rebuilds with progress, and the rows are as they were", async () => {
  const head = await append(2, 300);
  const before = await projector.rows("usage", head);
  const told: RebuildProgress[] = [];
  const done = await projector.rebuild("usage", (progress) => told.push(progress));
  expect(done).toEqual({ projection: "usage", eventsDone: Number(head), position: head, head });
  expect(told.at(-1)).toEqual(done);
  expect(await projector.rows("usage", head)).toEqual(before);
});

test("says clearly what it refuses", async () => {
  await expect(projector.rows("nothing" as "usage", "start")).rejects.toThrow(
    "there is no projection nothing",
  );
});

test("a thread that dies is replaced; what was asked of it is rejected, nothing is lost", async () => {
  const head = await append(3, 300);
  const before = await projector.rows("usage", head);
  const asked = projector.rows("usage", head + 1n);
  const said = asked.then(String, String);
  await threads[0]?.terminate();
  expect(await said).toBe("Error: the projector's thread is gone: it ended");
  await expect(projector.rows("usage", head)).rejects.toThrow("being started again");
  await expect.poll(() => projector.rows("usage", head).catch(() => undefined)).toEqual(before);
  expect(threads).toHaveLength(2);
  expect(alarms).toEqual(["projector_thread_gone: it ended"]);
});

test("a spoiled file is dropped with an alarm and folded again", async () => {
  const head = await append(4, 300);
  const before = await projector.rows("accounts", head);
  await projector.close();
  writeFileSync(join(root, "read-models", "accounts.sqlite"), "spoiled");
  projector = open();
  expect(await projector.rows("accounts", head)).toEqual(before);
  expect(alarms).toEqual(["read_model_dropped: the file is damaged"]);
});

test("a read model of another store of the same length, with the very same events, is dropped", async () => {
  const head = await append(5, 300);
  const before = await projector.rows("accounts", head);
  await projector.close();
  await store.close();
  for (const name of readdirSync(root).filter((one) => one.startsWith("events")))
    rmSync(join(root, name));
  store = await openSqliteEventStore({ path: join(root, "events.sqlite"), clock });
  expect(await append(5, 300)).toBe(head);
  projector = open();
  expect(await projector.rows("accounts", head)).toEqual(before);
  expect(alarms).toHaveLength(4);
  expect(new Set(alarms)).toEqual(new Set(["read_model_of_another_store: undefined"]));
});

test("a thread that cannot start says why, and is tried again", async () => {
  const folder = join(root, "nowhere");
  const told: string[] = [];
  const hopeless = openWorkerProjector({
    entry: new URL(import.meta.resolve("#services/projector/main.ts")),
    events: { path: join(folder, "events.sqlite") },
    folder,
    clock,
    onAlarm: (what, facts) => told.push(`${what}: ${facts["reason"]}`),
  });
  await expect(hopeless.rows("usage", "start")).rejects.toThrow("unable to open database file");
  await expect.poll(() => told.length, { timeout: 5_000 }).toBeGreaterThan(1);
  await hopeless.close();
});

test("after closing, it refuses", async () => {
  const closing = projector.close();
  expect(projector.close()).toBe(closing);
  await closing;
  await expect(projector.rows("usage", "start")).rejects.toThrow("the projector is closed");
  expect(alarms).toEqual([]);
});
