import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { RecordedEvent } from "#domain/events/events.ts";
import { systemClock } from "#infra/clock.ts";
import { backUpEventStore, restoreEventStore } from "#infra/event-store/backup.ts";
import { backUpServer } from "#infra/event-store/kurrent/backup.ts";
import { restoreToServer } from "#infra/event-store/kurrent/restore.ts";
import { openSqliteEventStore } from "#infra/event-store/sqlite.ts";
import { systemRandom } from "#infra/random.ts";
import type { EventStore } from "#services/ports.ts";
import { eventsIn } from "#test/faults/books.ts";
import { NEEDS_FAULTS, realServerUrl } from "#test/kurrent-stand-in/harness.ts";
import { createKurrentWorld, foreign, type KurrentWorld } from "#test/kurrent-stand-in/world.ts";
import { admissions, largeEvent } from "./event-samples.ts";

/** Backups of an event store on a server, and restores into one. */

const clock = systemClock();
const nothing = () => undefined;
let folder: string;
let file: string;
let world: KurrentWorld;
let store: EventStore;

beforeEach(async (context) => {
  folder = mkdtempSync(join(tmpdir(), "relai-server-backup-"));
  file = join(folder, "backup.sqlite");
  if (realServerUrl !== undefined) context.skip(NEEDS_FAULTS);
  world = await createKurrentWorld();
  store = await world.open();
});
afterEach(async () => {
  await world?.close();
  rmSync(folder, { recursive: true });
});

/** Two streams that are written in turn, each append larger than the one before. */
async function write(to: EventStore, appends: number): Promise<void> {
  const revisions = new Map<string, bigint>();
  for (let at = 0; at < appends; at += 1) {
    const stream = `journal-us-${at % 3 === 2 ? 2 : 1}`;
    const events = admissions(stream, at * 10, 1 + (at % 5));
    const answer = await to.append(stream, events, revisions.get(stream) ?? "no_stream");
    if (answer.outcome !== "appended") throw new Error(answer.outcome);
    revisions.set(stream, answer.revision);
  }
}

/** Everything but where it stands, which is a server's own. */
const told = (events: readonly RecordedEvent[]) =>
  events.map(({ id, type, stream, revision, recordedAt, data, metadata }) => {
    const { recordedAt: _, ...written } = { recordedAt, ...metadata };
    return { id, type, stream, revision, recordedAt, data, metadata: written };
  });

const restoreTo = (url: string, from = file) =>
  restoreToServer({
    from,
    url,
    insecure: true,
    clock,
    random: systemRandom(),
    onProgress: nothing,
  });

async function embedded<T>(path: string, work: (store: EventStore) => Promise<T>): Promise<T> {
  const opened = await openSqliteEventStore({ path, clock });
  try {
    return await work(opened);
  } finally {
    await opened.close();
  }
}

describe("a backup of a server", () => {
  test("holds every event up to one moment, while the store is written, beside others' events", async () => {
    await write(store, 60);
    world.server.log.append("cakes", [foreign("CakeBaked")], "any");
    const before = await eventsIn(store);
    let isDone = false;
    const writing = (async () => {
      for (let at = 0; !isDone; at += 1)
        await store.append(
          "journal-us-9",
          admissions("journal-us-9", at, 1),
          at === 0 ? "no_stream" : BigInt(at - 1),
        );
    })();
    const shown: number[] = [];
    const copied = await backUpServer(store, file, (_, fraction) => shown.push(fraction)).finally(
      () => (isDone = true),
    );
    await writing;
    expect(copied).toMatchObject({ position: copied.events, bytes: statSync(file).size });
    expect(copied.events).toBeGreaterThanOrEqual(before.length);
    expect(shown.at(-1)).toBeGreaterThanOrEqual(1);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual(["backup.sqlite"]);
    const events = told((await eventsIn(store)).slice(0, copied.events));
    expect(told(await embedded(file, eventsIn))).toEqual(events);
  });

  test("that fails leaves nothing behind and never writes over a file", async () => {
    await write(store, 5);
    world.server.log.append("org-1", [foreign("OrganizationSold.v1")], "any");
    const failing = backUpServer(store, file, nothing);
    await expect(failing).rejects.toThrow("was written by a newer relai");
    expect(readdirSync(folder)).toEqual([]);
    writeFileSync(file, "mine");
    await expect(backUpServer(store, file, nothing)).rejects.toThrow("exists already");
  });

  test("of a store that has lost events of a stream is refused", async () => {
    await write(store, 5);
    const events = await eventsIn(store);
    const gap = events.filter(
      ({ stream, revision }) => stream !== "journal-us-1" || revision !== 1n,
    );
    async function* follow() {
      yield gap;
    }
    const failing = backUpServer({ head: store.head, follow }, file, nothing);
    await expect(failing).rejects.toThrow("the event store has lost event 1 of journal-us-1");
  });
});

describe("a restore into a server", () => {
  test("makes the same events of it, with their times, under another identity, and on to a file and back", async () => {
    let now = 1_700_000_000_000;
    const old = await world.start({ now: () => (now += 7_000) });
    const source = await world.open({ url: old.url() });
    await write(source, 200);
    await source.append("org-9", [largeEvent("org-9", 1, 700_000)], "no_stream");
    await source.append("org-9", [largeEvent("org-9", 2, 700_000)], 0n);
    const events = told(await eventsIn(source));
    const copied = await backUpServer(source, file, nothing);
    expect(await restoreTo(world.server.url())).toEqual(copied);
    const restored = await world.open();
    expect(told(await eventsIn(restored))).toEqual(events);
    expect(await restored.identity()).not.toBe(await source.identity());
    // What comes now is dated now, and whoever begins in the middle is told the same times.
    const last = events.at(-1)?.recordedAt ?? 0;
    await restored.append("org-9", admissions("org-9", 3, 1), 1n);
    const [newest] = (await eventsIn(restored)).slice(-1);
    expect(newest?.recordedAt).toBeGreaterThan(last);
    expect(await restored.eventAt(newest?.position ?? 0n)).toMatchObject({
      recordedAt: newest?.recordedAt,
    });

    const again = join(folder, "again.sqlite");
    const path = join(folder, "events.sqlite");
    await backUpServer(restored, again, nothing);
    await restoreEventStore(again, path, ".aside");
    expect(told(await embedded(path, eventsIn)).slice(0, -1)).toEqual(events);
  });

  test("takes the backup of a file", async () => {
    const path = join(folder, "events.sqlite");
    const events = await embedded(path, async (from) => {
      await write(from, 40);
      await backUpEventStore(path, file);
      return told(await eventsIn(from));
    });
    await restoreTo(world.server.url());
    expect(told(await eventsIn(await world.open()))).toEqual(events);
  });

  test.for([["events"], ["a restore that is over"]])("that holds %s is refused", async ([what]) => {
    await write(store, 5);
    await backUpServer(store, file, nothing);
    const target = what === "events" ? world.server : await world.start();
    if (what !== "events") await restoreTo(target.url());
    const before = target.log.all.length;
    await expect(restoreTo(target.url())).rejects.toThrow("restore into an empty one");
    expect(target.log.all).toHaveLength(before);
  });

  test("that is cut off anywhere leaves a store that nobody opens, and goes on with the same backup only", async () => {
    await write(store, 60);
    await backUpServer(store, file, nothing);
    const other = join(folder, "other.sqlite");
    await store.append("org-9", admissions("org-9", 1, 1), "no_stream");
    await backUpServer(store, other, nothing);
    const events = told(await eventsIn(store)).slice(0, -1);
    const target = await world.start();
    for (const appends of [0, 1, 7, 30]) {
      const { log } = target;
      const { append } = log;
      let left = appends;
      log.append = (...appended) =>
        left-- > 0 ? append(...appended) : { wrong: true, actual: 999n };
      await expect(restoreTo(target.url())).rejects.toThrow();
      log.append = append;
      if (appends === 0) continue;
      const opening = world.open({ url: target.url() });
      await expect(opening).rejects.toThrow("end it with relai restore");
      const wrong = restoreTo(target.url(), other);
      await expect(wrong).rejects.toThrow("another backup was being");
    }
    await restoreTo(target.url());
    expect(told(await eventsIn(await world.open({ url: target.url() })))).toEqual(events);
  });

  test("over lost answers and a busy server puts every event in once", async () => {
    await write(store, 60);
    await backUpServer(store, file, nothing);
    const target = await world.start();
    const { log, faults } = target;
    const { append } = log;
    let calls = 0;
    log.append = (...appended) => {
      calls += 1;
      if (calls % 9 === 4) faults.loseReply = true;
      if (calls % 9 === 8) faults.isBusy = true;
      return append(...appended);
    };
    await restoreTo(target.url());
    log.append = append;
    const restored = await world.open({ url: target.url() });
    expect(told(await eventsIn(restored))).toEqual(told(await eventsIn(store)));
  });

  test("finds out whoever writes meanwhile, in whichever stream", async () => {
    await write(store, 20);
    await backUpServer(store, file, nothing);
    for (const stream of ["journal-us-1", "writers-us"]) {
      const target = await world.start();
      const { append } = target.log;
      let calls = 0;
      target.log.append = (...appended) => {
        calls += 1;
        if (calls === 10) append(stream, [foreign("WriterAlive.v1")], "any");
        return append(...appended);
      };
      const failing = restoreTo(target.url());
      await expect(failing).rejects.toThrow("somebody else writes to the event store");
      await expect(world.open({ url: target.url() })).rejects.toThrow("end it with relai restore");
    }
  });

  test.each([
    ["is damaged", "UPDATE events SET position = 500 WHERE position = 5"],
    [
      "was written by a newer relai",
      "UPDATE events SET type = 'OrganizationSold.v1' WHERE position = 9",
    ],
  ])("of a file that %s writes nothing", async (reason, sql) => {
    await write(store, 20);
    await backUpServer(store, file, nothing);
    const db = new DatabaseSync(file);
    db.exec(sql);
    db.close();
    const target = await world.start();
    await expect(restoreTo(target.url())).rejects.toThrow(reason);
    expect(target.log.all).toEqual([]);
  });
});
