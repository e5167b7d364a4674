import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "#infra/clock.ts";
import { backUpEventStore, restoreEventStore } from "#infra/event-store/backup.ts";
import { openSqliteEventStore, type SqliteEventStore } from "#infra/event-store/sqlite.ts";
import { admissions } from "./event-samples.ts";

const JOURNAL = "journal-us-1";
const ASIDE = ".before-restore-x";
const clock = systemClock();
let folder: string;
let path: string;
let file: string;
let store: SqliteEventStore;
let written = 0;

const open = () => openSqliteEventStore({ path, clock });
const names = () => readdirSync(folder).sort();

async function write(count: number): Promise<void> {
  const expected = written === 0 ? "no_stream" : BigInt(written - 1);
  await store.append(JOURNAL, admissions(JOURNAL, written, count), expected);
  written += count;
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "relai-backup-"));
  path = join(folder, "events.sqlite");
  file = join(folder, "backup.sqlite");
  written = 0;
  store = await open();
});
afterEach(async () => {
  await store.close();
  rmSync(folder, { recursive: true });
});

test("a file that was made before stores had an identity gets one, which stays", async () => {
  await write(2);
  await store.close();
  change(path, "DROP TABLE store");
  store = await open();
  const identity = await store.identity();
  expect(identity).toMatch(/^[0-9a-f]{32}$/);
  expect(await store.head()).toBe(2n);
  await store.close();
  store = await open();
  expect(await store.identity()).toBe(identity);
});

describe("a backup", () => {
  test("holds every event up to one moment, in one file that only its owner reads, while the store is written", async () => {
    await write(300);
    let isDone = false;
    const writing = (async () => {
      while (!isDone) await write(20);
    })();
    const { events, position, bytes } = await backUpEventStore(path, file);
    isDone = true;
    await writing;
    expect(events).toBeGreaterThanOrEqual(300);
    expect(position).toBe(events);
    expect(statSync(file)).toMatchObject({ size: bytes, mode: 0o100600 });
    expect(names().filter((name) => name.startsWith("backup"))).toEqual(["backup.sqlite"]);
    const copy = new DatabaseSync(file, { readOnly: true });
    expect(copy.prepare("SELECT count(*) AS events FROM events").get()).toEqual({ events });
    copy.close();
  });

  test("of a large store ends although every step of it meets a new commit", async () => {
    for (let at = 0; at < 20; at++) await write(500);
    let isDone = false;
    let commits = 0;
    const writing = (async () => {
      for (; !isDone; commits++) await write(1);
    })();
    await backUpEventStore(path, file);
    isDone = true;
    await writing;
    expect(commits).toBeGreaterThan(0);
  });

  test("never writes over a file", async () => {
    writeFileSync(file, "mine");
    await expect(backUpEventStore(path, file)).rejects.toThrow(`${file} exists already`);
    expect(readFileSync(file, "utf8")).toBe("mine");
  });

  test("that fails leaves nothing behind", async () => {
    const before = names();
    const nothing = join(folder, "nothing.sqlite");
    await expect(backUpEventStore(nothing, file)).rejects.toThrow(`there is no file ${nothing}`);
    writeFileSync(nothing, "no database at all".repeat(1_000));
    await expect(backUpEventStore(nothing, file)).rejects.toThrow("is not an event store of relai");
    rmSync(nothing);
    expect(names()).toEqual(before);
  });

  test("of a store with a missing event is refused: it would be restored as if it were whole", async () => {
    await write(10);
    const raw = new DatabaseSync(path);
    raw.exec("DELETE FROM events WHERE position = 4");
    raw.close();
    await expect(backUpEventStore(path, file)).rejects.toThrow(`${path} is damaged`);
    expect(existsSync(file)).toBe(false);
  });
});

describe("a restore", () => {
  test("brings the events back under another identity, and keeps the others aside with all that was in their log", async () => {
    await write(5);
    const identity = await store.identity();
    const backup = await backUpEventStore(path, file);
    await write(7);
    // What a killed process leaves: the newest events stand in the log only.
    const killed = names()
      .filter((name) => name.startsWith("events"))
      .map((name) => [name, readFileSync(join(folder, name))] as const);
    await store.close();
    for (const [name, bytes] of killed) writeFileSync(join(folder, name), bytes);
    expect(killed.map(([name]) => name)).toContain("events.sqlite-wal");

    const restored = await restoreEventStore(file, path, ASIDE);
    expect(restored).toEqual({ ...backup, bytes: restored.bytes, aside: `${path}${ASIDE}` });
    expect(names()).toEqual(["backup.sqlite", "events.sqlite", `events.sqlite${ASIDE}`]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    store = await open();
    expect(await store.head()).toBe(5n);
    expect(await store.identity()).not.toBe(identity);
    const old = new DatabaseSync(`${path}${ASIDE}`, { readOnly: true });
    expect(old.prepare("SELECT count(*) AS events FROM events").get()).toEqual({ events: 12 });
    old.close();
  });

  test("into an empty folder keeps nothing aside", async () => {
    await write(5);
    await backUpEventStore(path, file);
    await store.close();
    for (const name of names()) if (name !== basename(file)) rmSync(join(folder, name));
    // A log that lost its file must not be taken for the new file's own.
    writeFileSync(`${path}-wal`, "left over");
    expect(await restoreEventStore(file, path, ASIDE)).toMatchObject({ aside: undefined });
    store = await open();
    expect(await store.head()).toBe(5n);
  });

  test("takes a damaged store out of the way, with its log", async () => {
    await write(5);
    await backUpEventStore(path, file);
    await store.close();
    writeFileSync(path, "no database any more".repeat(1_000));
    writeFileSync(`${path}-wal`, "nor a log");
    await restoreEventStore(file, path, ASIDE);
    expect(readFileSync(`${path}${ASIDE}`, "utf8")).toContain("no database any more");
    expect(readFileSync(`${path}${ASIDE}-wal`, "utf8")).toBe("nor a log");
    store = await open();
    expect(await store.head()).toBe(5n);
  });

  test("waits for nobody who reads the store, and changes nothing", async () => {
    await write(5);
    await backUpEventStore(path, file);
    await write(1);
    await expect(restoreEventStore(file, path, ASIDE)).rejects.toThrow("another process reads");
    expect(await store.head()).toBe(6n);
    expect(names().filter((name) => /restor/.test(name))).toEqual([]);
  });

  test.each<[string, (path: string) => void, string]>([
    ["a text", (at) => writeFileSync(at, "hello"), "is not an event store of relai"],
    ["an empty file", (at) => truncateSync(at, 0), "is not an event store of relai"],
    ["a file cut short", (at) => truncateSync(at, 3 * 8_192), "is damaged"],
    [
      "one in which positions are missing",
      (at) => change(at, "UPDATE events SET position = 500 WHERE position = 200"),
      "is damaged",
    ],
    [
      "one of another version",
      (at) => change(at, "PRAGMA user_version = 99"),
      "was written by another version of relai (schema 99)",
    ],
    [
      "another program's database",
      (at) => change(at, "PRAGMA application_id = 7"),
      "is not an event store of relai",
    ],
  ])("refuses %s and leaves everything as it is", async (_, spoil, reason) => {
    await write(200);
    await backUpEventStore(path, file);
    await write(1);
    await store.close();
    spoil(file);
    const before = readFileSync(path);
    await expect(restoreEventStore(file, path, ASIDE)).rejects.toThrow(reason);
    expect(readFileSync(path)).toEqual(before);
    expect(names()).toEqual(["backup.sqlite", "events.sqlite"]);
  });
});

function change(at: string, sql: string): void {
  const db = new DatabaseSync(at);
  db.exec(sql);
  db.close();
}
