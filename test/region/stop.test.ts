import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { RecordedEvent } from "#domain/events/events.ts";
import { ALIVE_EVERY_MS } from "#services/journal.ts";
import { diceOf } from "#test/simulation/random.ts";
import { readBook } from "#test/doubles/simulator-book.ts";
import { ask, startLoad, type Load, type Seen } from "#test/faults/clients.ts";
import { killAll, makeCustomer } from "#test/faults/processes.ts";
import { expectAtRest, untilNothingIsHeld } from "./books.ts";
import type { Funded } from "./crowd.ts";
import { pause, SILENCE_MS, startRegion, until, type Part, type Region } from "./region.ts";
import { NO_REDIS_OF_OURS, watchOwners } from "./servers.ts";

/** Processes that are stopped (SIGSTOP) until others have taken them for dead, and go on as if nothing had been. */

const FUNDED_MICRO = 1_000_000_000;
/** Of the calls that are held upstream; no other has so many tokens. */
const HELD_INPUT = 77;
/** A gateway is stopped for longer than that, too. */
const STOPPED_MS_MIN = 72_000;
/** So long a ledger that woke up is watched. */
const WOKEN_MS = 10_000;
/** The seal is found with the ledger's own sign of life behind the silence. */
const SEAL_MS_MAX = SILENCE_MS + 2 * ALIVE_EVERY_MS + 20_000;

const folder = mkdtempSync(join(tmpdir(), "relai-region-stop-"));
let region: Region;
let ledgers: readonly [Part, Part];
let gateways: readonly [Part, Part];
let control: Part;
let customer: Funded;
const seen: Seen[] = [];
const left = new Set<string>();

beforeAll(async () => {
  if (NO_REDIS_OF_OURS !== undefined) return;
  const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
  process.stdout.write(`region-stop: FAULTS_SEED=${seed}\n`);
  region = await startRegion(folder, diceOf(seed, "region-stop"));
  ledgers = [await region.part("ledger", "ledger-1"), await region.part("ledger", "ledger-2")];
  gateways = [await region.part("gateway", "gateway-1"), await region.part("gateway", "gateway-2")];
  control = await region.part("control", "control");
  await ledgers[0].start();
  await region.served(1);
  // The first gateway registers first, so that the test knows its journal.
  await gateways[0].start();
  await Promise.all([ledgers[1], gateways[1], control].map((each) => each.start()));
  const made = await makeCustomer({ control: control.url }, FUNDED_MICRO);
  customer = { ...made, fundedMicro: FUNDED_MICRO };
}, 300_000);

afterAll(async () => {
  killAll();
  if (NO_REDIS_OF_OURS === undefined) await region.close();
  rmSync(folder, { recursive: true, force: true });
});

function loadOn(gateway: Part, clients: number): Load {
  const of = { gateway: gateway.url, key: customer.key, left };
  return startLoad(of, clients, diceOf(clients, gateway.url), true);
}

async function endLoads(loads: readonly Load[]): Promise<void> {
  await Promise.all(loads.map((load) => load.stop()));
  for (const load of loads) seen.push(...load.seen);
}

/** Nothing runs, nothing is held: the books of all tests so far are compared. */
async function rest(): Promise<readonly RecordedEvent[]> {
  await untilNothingIsHeld(region, [customer], SEAL_MS_MAX);
  return (await expectAtRest(region, control, [customer], seen, left)).events;
}

const isIn = (stream: string, type: string) => (event: RecordedEvent) =>
  event.stream === stream && event.type === type;

test("a gateway that is stopped past its journal's seal charges nobody for what was sealed", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const [stopped, other] = gateways;
  const [epoch = -1] = await region.lives("gateway");
  const stream = `journal-us-${epoch}`;
  const load = loadOn(other, 3);
  const stoppedLoad = loadOn(stopped, 6);
  const whoseGateway = { gateway: stopped.url, key: customer.key, left };
  const running = [true, false, true, false].map((stream) =>
    ask(whoseGateway, { stream, words: `input=${HELD_INPUT} output=30 hold=sealed` }),
  );
  await until("the held calls are upstream", 60_000, async () => {
    const calls = readBook(region.bookPath).filter(({ tokens }) => tokens.input === HELD_INPUT);
    return (calls.length === running.length && stoppedLoad.seen.length > 20) || undefined;
  });
  stopped.signal("SIGSTOP");
  const stoppedMs = Date.now();
  // These wait in its sockets until it goes on.
  const waiting = [true, false, true].map((stream) =>
    ask(whoseGateway, { stream, words: "input=5 output=6" }),
  );
  const seal = await until("the journal is sealed", SEAL_MS_MAX, async () =>
    (await region.journal(epoch)).find(({ type }) => type === "JournalSealed.v1"),
  );
  const expired = async () =>
    (await region.journal(epoch)).filter(({ type }) => type === "RequestExpired.v1");
  await until(
    "its holds are expired",
    10_000,
    async () => (await expired()).length >= running.length || undefined,
  );
  await region.upstream.release("sealed");
  // What they used waits in its sockets: it learns that before it learns of the seal.
  await until("the held answers are sent", 30_000, async () => {
    const calls = readBook(region.bookPath).filter(({ tokens }) => tokens.input === HELD_INPUT);
    return calls.every(({ usageSent }) => usageSent) || undefined;
  });
  await pause(stoppedMs + STOPPED_MS_MIN - Date.now());
  stopped.signal("SIGCONT");
  const late = await Promise.all(running);
  const first = await Promise.all(waiting);
  seen.push(...late, ...first);
  // What is sealed cannot be recorded: the caller does not get what it will not pay for as if it were whole.
  for (const { complete, code } of late)
    expect([complete, code]).toEqual([false, "ledger_unavailable"]);
  await until("the gateway serves again", 30_000, async () => {
    const again = await ask(whoseGateway, { stream: true, words: "input=1 output=2" });
    seen.push(again);
    return again.complete || undefined;
  });
  await pause(2_000);
  await endLoads([load, stoppedLoad]);

  const events = await rest();
  expect(events.filter(isIn(stream, "JournalSealed.v1"))).toEqual([seal]);
  expect(seal).toMatchObject({ data: { by: "ledger" } });
  const behind = events.filter(
    (event) => event.stream === stream && event.position > seal.position,
  );
  expect(new Set(behind.map(({ type }) => type))).toEqual(new Set(["RequestExpired.v1"]));
  // It knows now what they had used, and notes it: at the company's expense.
  const ids = new Set(late.map(({ requestId }) => requestId));
  const notes = events.filter(
    (event) => event.type === "UsageLate.v1" && ids.has(event.data.requestId),
  );
  expect(notes).toHaveLength(late.length);
  // What came while it was stopped was never taken in that journal.
  const taken = new Set(
    events.flatMap((event) =>
      event.type === "RequestAdmitted.v1" && event.stream === stream ? [event.data.requestId] : [],
    ),
  );
  expect(first.filter(({ requestId = "" }) => taken.has(requestId))).toEqual([]);
  expect(taken.size).toBeGreaterThan(20);
  expect(await region.owners()).toHaveLength(1);
});

test("a ledger that is stopped until another has taken over neither adopts nor applies again", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const [stopped, other] = ledgers;
  const before = await region.owners();
  const loads = gateways.map((gateway) => loadOn(gateway, 3));
  const watched = await watchOwners(region.redis);
  await pause(3_000);
  stopped.signal("SIGSTOP");
  const owner = await region.served(2);
  await pause(3_000);
  stopped.signal("SIGCONT");
  const wokenMs = Date.now();
  await pause(WOKEN_MS);
  await endLoads(loads);
  watched.close();
  // What it had begun when it was stopped is fenced; it learns of that and begins nothing more.
  const isOld = ({ ownerEpoch }: { ownerEpoch: number }) => ownerEpoch < owner.ownerEpoch;
  const late = watched.done.filter(({ atMs }) => atMs > wokenMs);
  expect(watched.done.filter(isOld).length).toBeGreaterThan(0);
  expect(late.filter((one) => isOld(one) && one.atMs > wokenMs + WOKEN_MS / 2)).toEqual([]);
  expect(late.filter((one) => !isOld(one)).length).toBeGreaterThan(10);
  expect(await region.owners()).toEqual([...before, owner]);
  await rest();

  // It stands by, and takes over as any other.
  await other.end("SIGTERM");
  await region.served(3, 30_000);
  await rest();
});
