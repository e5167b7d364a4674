import { Agent, request } from "node:http";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { sha256Hex } from "#domain/hash.ts";
import { readBook } from "#test/doubles/simulator-book.ts";
import { diceOf } from "#test/simulation/random.ts";
import { compare, ledgerOf, readEvents } from "./books.ts";
import { ask, startLoad, type Ask, type Customer } from "./clients.ts";
import {
  killAll,
  makeCustomer,
  readBalance,
  startRelai,
  startSimulator,
  stopCleanly,
  takePlace,
  type Place,
} from "./processes.ts";

const STOPPED_MS = 90_000;
const FUNDED_MICRO = 1_000_000_000;

const folder = mkdtempSync(join(tmpdir(), "relai-stop-"));
afterAll(() => {
  killAll();
  rmSync(folder, { recursive: true, force: true });
});

const pause = (delayMs: number) => new Promise((resolve) => setTimeout(resolve, delayMs));

/** Requests that run when the process is stopped: their upstream ends long before it wakes, or soon after. */
const SLOW: readonly Ask[] = [
  { stream: true, words: "input=11 output=48 chunks=48 delay=1980" },
  { stream: true, words: "input=12 output=16 chunks=16 delay=1000" },
  { stream: true, words: "input=13 output=30 chunks=30 delay=10 first=40000" },
  { stream: false, words: "input=14 output=40 first=95000" },
  { stream: false, words: "input=15 output=50 first=20000" },
  { stream: true, words: "input=16 output=200 chunks=200 delay=200", slowMs: 50 },
];

/** A client that makes one request after the other on one connection; each tells its status. Costs nothing. */
function keptConnection({ gateway, key }: Customer): () => Promise<number | undefined> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const options = { agent, headers: { authorization: `Bearer ${key}` } };
  return () =>
    new Promise((resolve, reject) => {
      request(`${gateway}/v1/models`, options, (answer) => {
        answer.resume().once("end", () => resolve(answer.statusCode));
      })
        .once("error", reject)
        .end();
    });
}

/** The bytes of the event store. */
function storeBytes(place: Place): string[] {
  return ["", "-wal"].map((end) => sha256Hex(readFileSync(`${place.eventsPath}${end}`)));
}

test("a process that is stopped for 90 s and goes on harms nothing, and nobody takes its place", async () => {
  const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
  process.stdout.write(`stop: FAULTS_SEED=${seed}\n`);
  const bookPath = join(folder, "book.jsonl");
  const simulator = await startSimulator(bookPath);
  const place = await takePlace(join(folder, "data"), simulator.url, diceOf(seed, "stop"));
  const relai = startRelai(place);
  await relai.ready;
  const { orgId, key } = await makeCustomer(place, FUNDED_MICRO);
  const customer = { gateway: place.gateway, key };

  const slow = Promise.all(SLOW.map((asked) => ask(customer, asked)));
  const load = startLoad(customer, 6, diceOf(seed, "load"), false);
  await vi.waitFor(() => expect(load.seen.length).toBeGreaterThan(10), { timeout: 10_000 });
  const askOnKept = keptConnection(customer);
  expect(await askOnKept()).toBe(200);
  relai.kill("SIGSTOP");
  // When the process wakes, the time for which it keeps this connection is over, and this request waits in it.
  const kept = askOnKept();
  await pause(STOPPED_MS / 2);

  const before = storeBytes(place);
  const second = startRelai(place);
  expect(await second.ended).toBe(2);
  expect(second.stdout()).toBe("");
  expect(second.stderr()).toMatch(/^relai: [^\n.]*in use by another relai process\.\n$/);
  expect(storeBytes(place)).toEqual(before);

  await pause(STOPPED_MS / 2);
  const seenBefore = load.seen.length;
  relai.kill("SIGCONT");
  expect(await kept).toBe(200);
  const slowSeen = await slow;
  await load.stop();
  const seen = [...slowSeen, ...load.seen];
  expect(
    seen.filter(({ complete }) => !complete).map(({ status, code }) => [status, code]),
  ).toEqual([]);
  expect(load.unanswered()).toBe(0);
  expect(load.seen.length).toBeGreaterThan(seenBefore);

  const balance = await vi.waitFor(
    async () => {
      const read = await readBalance(place, orgId);
      expect(read.held_micro).toBe(0);
      return read;
    },
    { timeout: 10_000, interval: 100 },
  );
  await stopCleanly(relai);
  await stopCleanly(simulator.process);
  const ledger = ledgerOf(await readEvents(place.eventsPath));
  expect(compare(ledger, readBook(bookPath), seen)).toEqual([]);
  expect(balance.credits_micro).toBe(FUNDED_MICRO - ledger.chargedMicro);
  // Whoever was stopped has not been taken for dead: everything was charged, nothing expired, one gateway all along.
  const types = new Set(ledger.events.map((event) => event.type));
  expect(types.has("RequestExpired.v1")).toBe(false);
  expect(types.has("RequestReleased.v1")).toBe(false);
  expect(ledger.undelivered.size).toBe(0);
  expect(ledger.ends.size).toBe(seen.length);
});
