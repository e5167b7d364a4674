import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { newEvent } from "#domain/events/events.ts";
import { systemClock } from "#infra/clock.ts";
import { readConfig } from "#infra/config.ts";
import type * as sqliteModule from "#infra/event-store/sqlite.ts";
import { startWriterThread } from "#infra/event-store/sqlite-thread.ts";
import { systemRandom } from "#infra/random.ts";
import { readBook } from "#test/doubles/simulator-book.ts";
import { startSimulator, type Simulator } from "#services/simulator/server.ts";
import { openRelai, type Relai } from "#services/start/main.ts";
import { diceOf } from "#test/simulation/random.ts";
import { compare, ledgerOf, readEvents, type Ledger } from "./books.ts";
import { ask, startLoad, type Ask, type Customer, type Seen } from "./clients.ts";
import { ADMIN_TOKEN, makeCustomer, readBalance } from "./processes.ts";

/** The store of the relai under test, and its writer threads, the newest last. */
const held = vi.hoisted(() => ({
  store: undefined as sqliteModule.SqliteEventStore | undefined,
  threads: [] as Worker[],
}));

vi.mock("#infra/event-store/sqlite.ts", async (load) => {
  const real = await load<typeof sqliteModule>();
  const openSqliteEventStore: typeof real.openSqliteEventStore = async (options) => {
    const startWriter = (path: string) => {
      const thread = startWriterThread(path);
      held.threads.push(thread);
      return thread;
    };
    held.store = await real.openSqliteEventStore({ ...options, startWriter });
    return held.store;
  };
  return { ...real, openSqliteEventStore };
});

const FUNDED_MICRO = 1_000_000_000;
const pause = (delayMs: number) => new Promise((resolve) => setTimeout(resolve, delayMs));

let folder: string;
let simulator: Simulator;
let relai: Relai;
let orgId: string;
let customer: Customer;

/** relai in this process, on the folder of the test. */
function open(): Promise<Relai> {
  const free = "0";
  return openRelai(
    readConfig({
      env: {
        RELAI_DATA_DIR: join(folder, "data"),
        RELAI_DEMO: "0",
        RELAI_GATEWAY_PORT: free,
        RELAI_CONTROL_PORT: free,
        RELAI_INTERNAL_PORT: free,
        RELAI_ADMIN_TOKEN: ADMIN_TOKEN,
        RELAI_LOG_LEVEL: "error",
        OPENAI_API_KEY: "sk-faults-upstream-key",
        OPENAI_BASE_URL: `${simulator.url}/openai/v1`,
      },
    }),
  );
}

const eventsPath = () => join(folder, "data", "us", "events.sqlite");

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "relai-store-"));
  simulator = await startSimulator({
    clock: systemClock(),
    random: systemRandom(),
    port: 0,
    bookPath: join(folder, "book.jsonl"),
  });
  held.threads.length = 0;
  relai = await open();
  const made = await makeCustomer(relai.addresses, FUNDED_MICRO);
  orgId = made.orgId;
  customer = { gateway: relai.addresses.gateway, key: made.key };
});
afterEach(async () => {
  // What a test that failed left: a stop would wait for it.
  await store().pragma("query_only", 0);
  await relai.stop();
  await simulator.close();
  rmSync(folder, { recursive: true, force: true });
});

function store(): sqliteModule.SqliteEventStore {
  if (!held.store) throw new Error("the store of relai was not seen");
  return held.store;
}

/** What the recorded holds that have no recorded end come to. */
async function openHoldsMicro(): Promise<number> {
  const { admitted, ends } = ledgerOf(await readEvents(eventsPath()));
  const open = [...admitted.values()].filter(({ data }) => !ends.has(data.requestId));
  return open.reduce((sum, { data }) => sum + data.holdMicro, 0);
}

/** The requests that have an event of a type, sorted. */
async function requestsWith(type: "UsageLate.v1" | "RequestExpired.v1"): Promise<string[]> {
  const events = await readEvents(eventsPath());
  return events
    .flatMap((event) =>
      event.type === type && "requestId" in event.data ? [event.data.requestId] : [],
    )
    .sort();
}

const whole: Ask = { stream: false, words: "input=20 output=30" };
const streamed: Ask = { stream: true, words: "input=21 output=31 chunks=8 delay=2" };

/** Requests that have reached the upstream, which answers them when it is told to. */
async function startHeld(
  asks: readonly Ask[] = [whole, streamed],
): Promise<{ seen: Promise<Seen[]>; release: () => void }> {
  const held = asks.map((asked) => ({ ...asked, words: `${asked.words} hold=a` }));
  const seen = Promise.all(held.map((asked) => ask(customer, asked)));
  await vi.waitFor(() => expect(simulator.book()).toHaveLength(held.length), { timeout: 10_000 });
  return { seen, release: () => void simulator.release("a") };
}

/** Status and code of every answer that was not whole. */
function whatBroke(seen: readonly Seen[]): string[] {
  return seen.filter(({ complete }) => !complete).map(({ status, code }) => `${status} ${code}`);
}

/** A finished answer that could not be recorded: an error that no client repeats, and no end that looks like one. */
function expectUndelivered(seen: readonly Seen[]): void {
  for (const { stream, status, code, headers, ended, text } of seen) {
    expect([status, code, ended]).toEqual([stream ? 200 : 503, "ledger_unavailable", true]);
    if (stream) {
      expect(text).toContain('"content"');
      expect(text).not.toContain("[DONE]");
    } else {
      expect(headers.get("x-should-retry")).toBe("false");
      expect(headers.has("retry-after")).toBe(false);
    }
  }
}

/** A refusal that took nothing: the client may come back, and nothing of it is in any book. */
function expectRefused(seen: readonly Seen[], codes: readonly string[]): void {
  for (const one of seen) {
    expect(one.status).toBe(503);
    expect(codes).toContain(one.code);
    expect(one.headers.get("retry-after")).toBe("1");
  }
  const called = new Set(simulator.book().map(({ requestId }) => requestId));
  expect(seen.filter(({ requestId }) => called.has(requestId ?? ""))).toEqual([]);
}

/** Without a restart: requests pass, every call has its outcome, nothing stays held, the balance is what was charged. */
async function expectRecovered(seen: readonly Seen[]): Promise<Ledger> {
  const after = await vi.waitFor(
    async () => {
      const one = await ask(customer, streamed);
      expect(one.complete).toBe(true);
      return one;
    },
    { timeout: 15_000, interval: 200 },
  );
  return vi.waitFor(
    async () => {
      const ledger = ledgerOf(await readEvents(eventsPath()));
      const book = readBook(join(folder, "book.jsonl"));
      expect(compare(ledger, book, [...seen, after])).toEqual([]);
      const leftMicro = FUNDED_MICRO - ledger.chargedMicro;
      expect(await readBalance(relai.addresses, orgId)).toEqual({
        credits_micro: leftMicro,
        available_micro: leftMicro,
        held_micro: 0,
      });
      // Who was told that the ledger is unavailable although the upstream had answered: that is noted.
      for (const { requestId, code } of seen) {
        const isCharged = ledger.ends.get(requestId ?? "")?.[0]?.type === "UsageRecorded.v1";
        if (code === "ledger_unavailable" && isCharged)
          expect(ledger.undelivered).toContain(requestId);
      }
      return ledger;
    },
    { timeout: 15_000, interval: 200 },
  );
}

describe("the event store of a running relai", () => {
  test("refuses to write: requests are refused, finished answers are charged later and told so", async () => {
    const running = await startHeld();
    await store().pragma("query_only", 1);
    const refused = await Promise.all(Array.from({ length: 50 }, () => ask(customer, streamed)));
    expectRefused(refused, ["ledger_unavailable"]);
    running.release();
    const undelivered = await running.seen;
    expectUndelivered(undelivered);
    // Something waits for the store by now, so it is known to be in trouble and nobody is let in to wait.
    const later = await Promise.all([ask(customer, whole), ask(customer, streamed)]);
    expectRefused(later, ["ledger_unavailable"]);
    // Not recorded, so not spent, and not free either.
    const { credits_micro, held_micro } = await readBalance(relai.addresses, orgId);
    expect(credits_micro).toBe(FUNDED_MICRO);
    expect(held_micro).toBe(await openHoldsMicro());
    await store().pragma("query_only", 0);
    const ledger = await expectRecovered([...refused, ...undelivered, ...later]);
    expect(ledger.undelivered).toEqual(new Set(undelivered.map(({ requestId }) => requestId)));
    for (const { requestId } of refused) expect(ledger.admitted.has(requestId ?? "")).toBe(false);
  });

  test("has a full disk under load, and room again", async () => {
    const load = startLoad(customer, 6, diceOf(1, "full disk"), false);
    await vi.waitFor(() => expect(load.seen.length).toBeGreaterThan(10), { timeout: 10_000 });
    const pages = Number(await store().pragma("page_count"));
    await store().pragma("max_page_count", pages);
    const isFull = () => load.seen.some(({ status }) => status === 503);
    await vi.waitFor(() => expect(isFull()).toBe(true), { timeout: 20_000 });
    await pause(2_000);
    expect(Number(await store().pragma("page_count"))).toBe(pages);
    await store().pragma("max_page_count", 2 ** 30);
    const before = load.seen.length;
    await vi.waitFor(
      () =>
        expect(load.seen.slice(before).filter(({ complete }) => complete).length).toBeGreaterThan(
          5,
        ),
      { timeout: 20_000 },
    );
    await load.stop();
    expect(load.unanswered()).toBe(0);
    await expectRecovered(load.seen);
  });

  test("hangs for longer than anybody waits, and comes back", async () => {
    const running = await startHeld();
    // Another process with the write lock stops the writer as a stalled disk does.
    const other = new DatabaseSync(eventsPath());
    other.exec("BEGIN IMMEDIATE");
    running.release();
    const early = Promise.all(Array.from({ length: 20 }, () => ask(customer, whole)));
    const undelivered = await running.seen;
    expectUndelivered(undelivered);
    expectRefused(await early, ["ledger_unavailable"]);
    const later = await Promise.all(Array.from({ length: 20 }, () => ask(customer, streamed)));
    expectRefused(later, ["ledger_unavailable"]);
    other.exec("COMMIT");
    other.close();
    const ledger = await expectRecovered([...undelivered, ...(await early), ...later]);
    // What was admitted after all, when its caller had been refused long ago, was released and never forwarded.
    const released = [...ledger.ends.values()]
      .flat()
      .filter(({ type }) => type !== "UsageRecorded.v1");
    expect(released.length).toBeGreaterThan(0);
    for (const { data } of released)
      expect(data).toMatchObject({ reason: "ledger_timeout", forwarded: false, unbilledMicro: 0 });
  });

  test("says that this gateway's journal is sealed: its late usage is noted and charged to nobody", async () => {
    // One only: whatever else runs is cut as soon as the gateway learns of the seal.
    const running = await startHeld([streamed]);
    const before = ledgerOf(await readEvents(eventsPath()));
    const [admitted] = before.admitted.values();
    if (!admitted) throw new Error("a held request was admitted");
    const { stream, metadata } = admitted;
    const [last] = await store().read(stream, { from: "end", direction: "backward", max: 1 });
    const seal = newEvent(stream, "sealed", "JournalSealed.v1", { by: "ledger" }, metadata);
    await store().append(stream, [seal], last?.revision ?? "no_stream");
    running.release();
    expectUndelivered(await running.seen);
    // The gateway has begun a new life, with a journal in which the notes stand.
    await vi.waitFor(async () => expect((await ask(customer, streamed)).complete).toBe(true), {
      timeout: 10_000,
      interval: 100,
    });
    await vi.waitFor(
      async () => expect(await requestsWith("UsageLate.v1")).toEqual([admitted.data.requestId]),
      { timeout: 10_000, interval: 100 },
    );
    expect((await readBalance(relai.addresses, orgId)).held_micro).toBe(await openHoldsMicro());
    // Embedded, nobody is taken for dead while the folder is locked: the next start writes the expiries.
    await relai.stop();
    relai = await open();
    customer = { ...customer, gateway: relai.addresses.gateway };
    const ledger = await expectRecovered(await running.seen);
    expect(await requestsWith("RequestExpired.v1")).toEqual(await requestsWith("UsageLate.v1"));
    expect(ledger.ends.get(admitted.data.requestId)?.map(({ type }) => type)).toEqual([
      "RequestExpired.v1",
    ]);
  });

  test("has its writer killed again and again under load: nobody notices", async () => {
    const load = startLoad(customer, 6, diceOf(2, "writer killed"), false);
    // How many restarts and requests fit between the kills is the machine's affair.
    for (let kill = 0; kill < 15 || (kill < 150 && held.threads.length <= 10); kill += 1) {
      await pause(150);
      await held.threads.at(-1)?.terminate();
    }
    await vi.waitFor(() => expect(load.seen.length).toBeGreaterThan(20), { timeout: 30_000 });
    await load.stop();
    expect(held.threads.length).toBeGreaterThan(10);
    expect(whatBroke(load.seen)).toEqual([]);
    expect(load.unanswered()).toBe(0);
    await expectRecovered(load.seen);
  });
});
