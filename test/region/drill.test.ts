import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ALIVE_EVERY_MS } from "#services/journal.ts";
import { diceOf } from "#test/simulation/random.ts";
import { readBook } from "#test/doubles/simulator-book.ts";
import { eventsIn, ledgerOf, readEvents } from "#test/faults/books.ts";
import { ask, startLoad } from "#test/faults/clients.ts";
import { killAll, makeCustomer, readBalance, startProcess, topUp } from "#test/faults/processes.ts";
import { SILENCE_MS, startRegion, until, type Region } from "./region.ts";
import { expectAtRest, foldOf, untilNothingIsHeld } from "./books.ts";
import { NO_REDIS_OF_OURS } from "./servers.ts";

/** The drill of docs/operations.md: a backup of a region that serves, and a restore beside the Redis that it had. */

const FUNDED_MICRO = 1_000_000_000;
const LOST_MICRO = 5_000_000_000;

const folder = mkdtempSync(join(tmpdir(), "relai-region-drill-"));
let started: Region | undefined;
afterAll(async () => {
  await started?.close();
  killAll();
  rmSync(folder, { recursive: true, force: true });
});

async function relai(args: readonly string[], env: Readonly<Record<string, string>>) {
  const running = startProcess([...args, "--json"], env);
  expect([await running.ended, running.stderr()]).toEqual([0, ""]);
  return JSON.parse(running.stdout()) as { events: number };
}

test("a backup under load, more of everything, and a restore beside the same Redis: the books are the backup's, and it serves", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
  process.stdout.write(`region-drill: FAULTS_SEED=${seed}\n`);
  const dice = diceOf(seed, "region-drill");
  const region = await startRegion(folder, dice);
  started = region;
  const [ledger, gateway, control] = [
    await region.part("ledger", "ledger"),
    await region.part("gateway", "gateway"),
    await region.part("control", "control"),
  ];
  for (const each of [ledger, gateway, control]) await each.start();
  const { orgId, key } = await makeCustomer({ control: control.url }, FUNDED_MICRO);
  const customer = { gateway: gateway.url, key, left: new Set<string>() };
  const load = startLoad(customer, 4, dice, true);
  const answered = async (more: number) => {
    const from = load.seen.length;
    await until(`${more} answers`, 60_000, async () => load.seen.length > from + more || undefined);
  };

  await answered(60);
  const backup = join(folder, "backup.sqlite");
  const { events: count } = await relai(["backup", backup], region.servers);
  // What the restored region must not see: money, a key, requests, and owners under the epochs that will be its own.
  await answered(40);
  for (const epoch of [2, 3]) {
    await ledger.end("SIGTERM");
    await ledger.start();
    await region.served(epoch);
  }
  await topUp({ control: control.url }, orgId, LOST_MICRO);
  const late = await makeCustomer({ control: control.url }, FUNDED_MICRO);
  await load.stop();
  for (const each of [gateway, control, ledger]) await each.end("SIGTERM");

  const saved = await readEvents(backup);
  const books = ledgerOf(saved);
  const creditsMicro = FUNDED_MICRO - foldOf(books, orgId).spentMicro;
  await region.eventStore.kill();
  rmSync(join(region.eventStore.folder, "events.jsonl"));
  await region.eventStore.start();
  expect(await relai(["restore", backup], region.servers)).toMatchObject({ events: count });
  const restoredMs = Date.now();
  const facts = (events: typeof saved) => events.map(({ id, recordedAt }) => [id, recordedAt]);
  expect(facts(await eventsIn(region.store))).toEqual(facts(saved));
  const balance = () => readBalance({ control: control.url }, orgId);
  await gateway.start();
  // Redis has not been filled from this store, whatever it holds.
  const early = await ask(customer, { stream: false, words: "input=1 output=1" });
  expect([early.status, early.code]).toEqual([503, "ledger_unavailable"]);
  await control.start();
  await ledger.start();
  expect(await region.served(2)).toMatchObject({ ownerEpoch: 2 });
  await untilNothingIsHeld(region, [{ orgId }], SILENCE_MS + 2 * ALIVE_EVERY_MS + 30_000);
  expect(await balance()).toEqual({
    credits_micro: creditsMicro,
    available_micro: creditsMicro,
    held_micro: 0,
  });
  const stranger = await ask({ ...customer, key: late.key }, { stream: false, words: "input=1" });
  expect(stranger.status).toBe(401);
  const served = await ask(customer, { stream: true, words: "input=100 output=50" });
  expect(served.complete).toBe(true);
  const charges = (await eventsIn(region.store))
    .slice(count)
    .flatMap((event) => (event.type === "UsageRecorded.v1" ? [event.data.chargedMicro] : []));
  expect(charges).toEqual([expect.any(Number)]);
  expect(await balance()).toMatchObject({ credits_micro: creditsMicro - (charges[0] ?? 0) });

  // The upstream's book knows of calls that no book of ours knows any more.
  const calls = readBook(region.bookPath);
  const known = calls.filter(
    ({ requestId, atMs }) => atMs >= restoredMs || books.admitted.has(requestId ?? ""),
  );
  const seen = load.seen.filter(({ requestId = "" }) => books.ends.has(requestId));
  await expectAtRest(
    region,
    control,
    [{ orgId, key, fundedMicro: FUNDED_MICRO }],
    [...seen, early, stranger, served],
    customer.left,
    known,
  );
  const counts = { backedUp: count, seen: seen.length, lost: calls.length - known.length };
  process.stdout.write(`region-drill: ${JSON.stringify(counts)}\n`);
  expect(counts.seen).toBeGreaterThan(20);
  expect(counts.lost).toBeGreaterThan(20);
  for (const each of [gateway, control, ledger]) await each.end("SIGTERM");
});
