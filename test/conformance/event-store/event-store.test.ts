import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import type { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { UnreadableEvent, type RecordedEvent } from "#domain/events/events.ts";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { openSqliteEventReader } from "#infra/event-store/sqlite-reader.ts";
import { startWriterThread } from "#infra/event-store/sqlite-thread.ts";
import { openSqliteEventStore, type SqliteEventStore } from "#infra/event-store/sqlite.ts";
import type { AppendOutcome, Clock } from "#services/ports.ts";
import { kurrentHarness, serverUnderTest } from "#test/kurrent-stand-in/harness.ts";
import { admissions, admitted, usage } from "./event-samples.ts";
import {
  eventStoreSuite,
  position,
  take,
  type StoreUnderTest,
  type Trouble,
} from "./event-store-suite.ts";

const clock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  timer(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

type WithPragma = StoreUnderTest & Pick<SqliteEventStore, "pragma">;

/** Real refusals of SQLite: a file that may not grow by a page, a connection that may not write. */
const trouble = {
  disk_full: (store: WithPragma): Trouble => ({
    begin: async () =>
      void (await store.pragma("max_page_count", Number(await store.pragma("page_count")))),
    end: async () => void (await store.pragma("max_page_count", 2 ** 30)),
  }),
  read_only: (store: WithPragma): Trouble => ({
    begin: async () => void (await store.pragma("query_only", 1)),
    end: async () => void (await store.pragma("query_only", 0)),
  }),
};

eventStoreSuite<WithPragma>("SQLite file", async () => {
  const folder = await mkdtemp(join(tmpdir(), "relai-events-"));
  return {
    open: (options) => openSqliteEventStore({ path: join(folder, "events.db"), clock, ...options }),
    survivesClosing: true,
    isItsOwn: true,
    keepsOurTime: true,
    givesWholeAppends: true,
    trouble,
    remove: () => rm(folder, { recursive: true }),
  };
});

eventStoreSuite<WithPragma>("memory", async () => ({
  open: async (options) => createMemoryEventStore({ clock, ...options }),
  survivesClosing: "a store in memory ends with its process",
  isItsOwn: true,
  keepsOurTime: true,
  givesWholeAppends: true,
  trouble,
  remove: async () => undefined,
}));

eventStoreSuite(`EventStoreDB protocol, ${serverUnderTest}`, kurrentHarness);

describe("SQLite file: its thread and its file", () => {
  const JOURNAL = "journal-us-1";
  let folder: string;
  let path: string;
  let threads: Worker[];
  let stores: SqliteEventStore[];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "relai-events-"));
    path = join(folder, "events.db");
    threads = [];
    stores = [];
  });
  afterEach(async () => {
    await Promise.all(stores.map((store) => store.close()));
    await rm(folder, { recursive: true });
  });

  async function open(
    options: Partial<Parameters<typeof openSqliteEventStore>[0]> = {},
  ): Promise<SqliteEventStore> {
    const startWriter = (at: string) => {
      const thread = startWriterThread(at);
      threads.push(thread);
      return thread;
    };
    const store = await openSqliteEventStore({ path, clock, startWriter, ...options });
    stores.push(store);
    return store;
  }

  /** The next answer of the writer is thrown away and the thread killed: what a crash between commit and answer is. */
  function loseNextAnswer(): void {
    const thread = threads.at(-1);
    if (!thread) throw new Error("no writer thread was started");
    const emit = thread.emit.bind(thread) as (name: string, ...values: unknown[]) => boolean;
    thread.emit = ((name: string, ...values: unknown[]) => {
      if (name !== "message") return emit(name, ...values);
      void thread.terminate();
      return true;
    }) as typeof thread.emit;
  }

  const readAll = (store: SqliteEventStore, stream: string) =>
    store.read(stream, { from: "start", direction: "forward", max: 100_000 });

  it("writes through a log that is synced on every commit", async () => {
    const store = await open();
    expect(await store.pragma("journal_mode")).toBe("wal");
    // 2 is FULL.
    expect(await store.pragma("synchronous")).toBe(2);
  });

  it("answers unknown when the reply is lost after the commit, and a repeat as the first time", async () => {
    const store = await open();
    await store.append(JOURNAL, admissions(JOURNAL, 1, 2), "no_stream");
    const followed = take(store.follow({ after: "start", signal: AbortSignal.timeout(10_000) }), 4);
    await new Promise((resolve) => setImmediate(resolve));
    loseNextAnswer();
    const batch = admissions(JOURNAL, 3, 2);
    expect(await store.append(JOURNAL, batch, 1n)).toEqual({
      outcome: "unknown",
      reason: expect.stringContaining("writer thread is gone") as unknown,
    });
    // It had been committed, and the follower hears of it although no answer came.
    expect((await followed).map((event) => Number(event.revision))).toEqual([0, 1, 2, 3]);
    expect(await store.append(JOURNAL, batch, 1n)).toEqual({
      outcome: "appended",
      revision: 3n,
      position: 4n,
    });
    expect(threads).toHaveLength(2);
  });

  it("survives its writer being killed in mid-flight, again and again", async () => {
    const store = await open();
    const followed = take(
      store.follow({ after: "start", signal: AbortSignal.timeout(50_000) }),
      4 * 60 * 5,
    );
    let unknown = 0;
    async function appendUntilIn(stream: string, batch: number): Promise<void> {
      const expected = batch === 0 ? "no_stream" : BigInt(batch * 5 - 1);
      const events = admissions(stream, batch * 5, 5);
      for (;;) {
        const outcome: AppendOutcome = await store.append(stream, events, expected);
        if (outcome.outcome === "appended") return;
        expect(outcome.outcome).toBe("unknown");
        unknown += 1;
      }
    }
    const writing = Promise.all(
      [1, 2, 3, 4].map(async (writer) => {
        for (let batch = 0; batch < 60; batch += 1) {
          await appendUntilIn(`journal-us-${writer}`, batch);
          if (writer === 1 && batch % 10 === 5) await threads.at(-1)?.terminate();
        }
      }),
    );
    await writing;
    expect(unknown).toBeGreaterThan(0);
    expect(threads.length).toBeGreaterThan(5);
    const events = await followed;
    expect(events.map((event) => Number(event.position))).toEqual(events.map((_, at) => at + 1));
    for (const writer of [1, 2, 3, 4])
      expect(await readAll(store, `journal-us-${writer}`)).toHaveLength(300);
  });

  it("answers unknown while no writer can be started, and goes on as soon as one can", async () => {
    let at = path;
    const store = await open({
      startWriter: () => {
        const thread = startWriterThread(at);
        threads.push(thread);
        return thread;
      },
    });
    await store.append(JOURNAL, admissions(JOURNAL, 1, 1), "no_stream");
    at = join(folder, "no-such-folder", "events.db");
    await threads.at(-1)?.terminate();
    const batch = admissions(JOURNAL, 2, 1);
    for (let attempt = 0; attempt < 3; attempt += 1) {
      expect((await store.append(JOURNAL, batch, 0n)).outcome).toBe("unknown");
    }
    at = path;
    expect(await store.append(JOURNAL, batch, 0n)).toMatchObject({
      outcome: "appended",
      revision: 1n,
    });
    expect(threads).toHaveLength(5);
  });

  it("refuses what does not fit in the queue, and takes more when there is room again", async () => {
    const store = await open({ queueEventsMax: 10 });
    const outcomes = await Promise.all(
      [1, 2, 3, 4, 5].map((at) =>
        store.append(`journal-us-${at}`, admissions("x", at * 10, 3), "no_stream"),
      ),
    );
    expect(outcomes.slice(0, 3).map(({ outcome }) => outcome)).toEqual([
      "appended",
      "appended",
      "appended",
    ]);
    expect(outcomes.slice(3)).toEqual(
      [1, 2].map(() => ({ outcome: "refused", reason: "queue_full" })),
    );
    expect((await store.append("journal-us-4", admissions("x", 40, 10), "no_stream")).outcome).toBe(
      "appended",
    );
  });

  it("refuses by bytes as well", async () => {
    const store = await open({ queueBytesMax: 2_000 });
    const outcomes = await Promise.all(
      [1, 2, 3].map((at) => store.append(`journal-us-${at}`, admissions("x", at, 1), "no_stream")),
    );
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(["appended", "appended", "refused"]);
  });

  it("calls the outcome unknown when the disk hangs, and goes on when it is back", async () => {
    const store = await open({ answerMsMax: 50 });
    await store.append(JOURNAL, admissions(JOURNAL, 1, 1), "no_stream");
    // Another process that holds the write lock stops the writer as a stalled disk does.
    const other = new DatabaseSync(path);
    other.exec("BEGIN IMMEDIATE");
    const batch = admissions(JOURNAL, 2, 1);
    const first = store.append(JOURNAL, batch, 0n);
    await new Promise((resolve) => setImmediate(resolve));
    const second = store.append("journal-us-2", batch, "no_stream");
    const unknown = { outcome: "unknown", reason: "the disk did not answer in time" };
    expect(await Promise.all([first, second])).toEqual([unknown, unknown]);
    other.exec("COMMIT");
    other.close();
    let repeat = await store.append(JOURNAL, batch, 0n);
    while (repeat.outcome === "unknown") repeat = await store.append(JOURNAL, batch, 0n);
    expect(repeat).toEqual({ outcome: "appended", revision: 1n, position: 2n });
  });

  it("writes what it has taken before it closes", async () => {
    const store = await open();
    const appends = [1, 2, 3].map((at) =>
      store.append(`journal-us-${at}`, admissions("x", at, 2), "no_stream"),
    );
    await store.close();
    expect((await Promise.all(appends)).map(({ outcome }) => outcome)).toEqual([
      "appended",
      "appended",
      "appended",
    ]);
    expect(await (await open()).head()).toBe(6n);
  });

  it("says clearly that a file is none of its own", async () => {
    const other = new DatabaseSync(path);
    other.exec("CREATE TABLE cakes (name TEXT)");
    other.close();
    await expect(open()).rejects.toThrow("is not an event store of relai");
  });

  it("throws when it reads an event that it cannot read", async () => {
    const store = await open();
    await store.append(
      JOURNAL,
      [admitted(JOURNAL, 1), usage(JOURNAL, 1), usage(JOURNAL, 2)],
      "no_stream",
    );
    const raw = new DatabaseSync(path);
    raw.exec("UPDATE events SET type = 'UsageRecorded.v9' WHERE position = 2");
    raw.exec(
      "UPDATE events SET data = replace(data, '12345', '90071992547409930') WHERE position = 3",
    );
    raw.close();
    await expect(readAll(store, JOURNAL)).rejects.toThrow(UnreadableEvent);
    await expect(readAll(store, JOURNAL)).rejects.toThrow("UsageRecorded.v9 at position 2");
    const follow = (after: bigint | "start") =>
      take(store.follow({ after, signal: AbortSignal.timeout(5_000) }), 1);
    expect(await follow("start")).toMatchObject([{ position: 1n }]);
    await expect(follow(1n)).rejects.toThrow("UsageRecorded.v9 at position 2");
    await expect(follow(2n)).rejects.toThrow(
      "position 3 holds a number that is not a safe integer",
    );
  });

  it("is read beside its writer, from first to live", async () => {
    const store = await open();
    await store.append(JOURNAL, admissions(JOURNAL, 1, 500), "no_stream");
    const reader = openSqliteEventReader({ path, clock, pollMs: 5 });
    const followed = take(
      reader.follow({ after: "start", signal: AbortSignal.timeout(20_000) }),
      3_000,
    );
    for (let at = 1; at < 6; at += 1) {
      await store.append(JOURNAL, admissions(JOURNAL, 1 + at * 500, 500), BigInt(at * 500 - 1));
    }
    expect((await followed).map((event) => Number(event.position))).toEqual(
      Array.from({ length: 3_000 }, (_, at) => at + 1),
    );
    expect(await reader.head()).toBe(3_000n);
    expect(
      await reader.read(JOURNAL, { from: 2_990n, direction: "forward", max: 100 }),
    ).toHaveLength(10);
    const idle = (async () => {
      const batches: RecordedEvent[][] = [];
      for await (const batch of reader.follow({
        after: 3_000n,
        signal: new AbortController().signal,
      }))
        batches.push(batch);
      return batches;
    })();
    await reader.close();
    expect(await idle).toEqual([]);
  });

  const CHILD = fileURLToPath(new URL("event-store-child.ts", import.meta.url));

  it("has every acknowledged event after kill -9, three times over", async () => {
    const acknowledged: { stream: string; revision: bigint; position: bigint }[] = [];
    for (const run of [1, 2, 3]) {
      const child = spawn(process.execPath, [CHILD, path, String(run)], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const exited = once(child, "exit");
      let count = 0;
      for await (const line of createInterface({ input: child.stdout })) {
        // A kill may cut the last line, which then does not match.
        const match = /^appended (\S+) (\d+) (\d+)$/.exec(line);
        if (match)
          acknowledged.push({
            stream: match[1] ?? "",
            revision: BigInt(match[2] ?? ""),
            position: BigInt(match[3] ?? ""),
          });
        count += 1;
        if (count === 150 * run) child.kill("SIGKILL");
      }
      expect((await exited)[1]).toBe("SIGKILL");
    }
    expect(acknowledged.length).toBeGreaterThanOrEqual(800);
    const store = await open();
    const events = await take(
      store.follow({ after: "start", signal: AbortSignal.timeout(20_000) }),
      Number(await store.head()),
    );
    expect(events.map((event) => Number(event.position))).toEqual(events.map((_, at) => at + 1));
    for (const { stream, revision, position: at } of acknowledged) {
      expect(events[Number(at) - 1]).toMatchObject({ stream, revision });
    }
    const raw = new DatabaseSync(path);
    expect(raw.prepare("PRAGMA integrity_check").get()).toEqual({ integrity_check: "ok" });
    raw.close();
    // And it goes on where it was.
    const next = await store.append(
      "journal-us-99",
      admissions("journal-us-99", 1, 1),
      "no_stream",
    );
    expect(position(next)).toBe(BigInt(events.length + 1));
  });

  it("calls the outcome unknown when the disk fails while it writes", async (context) => {
    if (process.platform === "win32")
      context.skip("there is no limit of a file's size to provoke it with");
    // Beyond the process's limit of a file's size a write fails, as on a broken disk: here beyond a megabyte or two.
    const command = `trap '' XFSZ; ulimit -f 2000; exec "$0" "$@"`;
    const child = spawn("sh", ["-c", command, process.execPath, CHILD, path, "1", "stop"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) lines.push(line);
    expect(lines.some((line) => line.startsWith("appended"))).toBe(true);
    expect(lines.some((line) => /^unknown \S+ .*disk I\/O error/.test(line))).toBe(true);
    expect(lines.filter((line) => !/^(appended|unknown) /.test(line))).toEqual([]);
    // Every acknowledged append is there.
    const store = await open();
    for (const line of lines) {
      const [outcome, stream = "", revision = ""] = line.split(" ");
      if (outcome !== "appended") continue;
      expect(
        await store.read(stream, { from: BigInt(revision), direction: "forward", max: 1 }),
      ).toHaveLength(1);
    }
  });
});
