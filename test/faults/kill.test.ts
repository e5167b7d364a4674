import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { streams } from "#domain/events/events.ts";
import { readBook } from "#test/doubles/simulator-book.ts";
import { diceOf, type Dice } from "#test/simulation/random.ts";
import { compare, ledgerOf, readEvents, type Ledger } from "./books.ts";
import { ask, startLoad } from "./clients.ts";
import {
  firstWrite,
  killAll,
  makeCustomer,
  readBalance,
  startRelai,
  startSimulator,
  stopCleanly,
  takePlace,
  type Place,
} from "./processes.ts";

const KILLS = 50;
/** At least so many fall between spawn and ready; a few more are tried, for the last of them may come too late. */
const KILLS_IN_START = 15;
const KILLS_IN_START_TRIED = KILLS_IN_START + 3;
const KILLS_WITH_OPEN_HOLDS = 25;
const CLIENTS = 8;
const FUNDED_MICRO = 1_000_000_000;
const LOAD_MS = { low: 150, high: 550 };

const folder = mkdtempSync(join(tmpdir(), "relai-kill-"));
afterAll(() => {
  killAll();
  rmSync(folder, { recursive: true, force: true });
});

/** One life of relai and its end. Times are this machine's, as the events' own are. */
interface Life {
  readonly spawnedAtMs: number;
  /** Undefined when it was killed before it was ready. */
  readonly readyAtMs: number | undefined;
  readonly endedAtMs: number;
}

/** How long a start takes here, as the last that became ready took. */
interface Pace {
  firstWriteMs: number;
  readyMs: number;
}

const pause = (delayMs: number) => new Promise((resolve) => setTimeout(resolve, delayMs));

/** Starts relai and kills it at a moment of its start, or under load some time after it became ready. */
async function liveAndDie(place: Place, when: "start" | "load", pace: Pace, dice: Dice) {
  const start = startRelai(place);
  const { spawnedAtMs } = start;
  let readyAtMs: number | undefined;
  const ready = start.ready.then(
    () => {
      readyAtMs = Date.now();
    },
    () => {},
  );
  const writing = firstWrite(place, start).then(() => Date.now() - spawnedAtMs);
  if (when === "start") {
    // A third anywhere from the spawn on; the others after the first event of the start, where most is at stake.
    let leftMs = pace.readyMs;
    if (dice.chance(2 / 3)) {
      await writing;
      leftMs -= pace.firstWriteMs;
    }
    await Promise.race([pause(dice.next() * leftMs), ready]);
  } else {
    await start.ready;
    await ready;
    Object.assign(pace, { firstWriteMs: await writing, readyMs: Date.now() - spawnedAtMs });
  }
  // Also where a start was to be killed and came to its end sooner.
  if (readyAtMs !== undefined) await pause(dice.between(LOAD_MS.low, LOAD_MS.high));
  start.kill("SIGKILL");
  expect(await start.ended).toBe("SIGKILL");
  await ready;
  return { spawnedAtMs, readyAtMs, endedAtMs: Date.now() } satisfies Life;
}

/** What a life wrote of its start, the furthest first: the phase in which it was killed. */
function phaseOf(ledger: Ledger, life: Life): string {
  const wrote = new Set(
    ledger.events
      .filter(({ metadata: { at } }) => at >= life.spawnedAtMs && at <= life.endedAtMs)
      .map((event) => event.type),
  );
  const phases = [
    "JournalSealed.v1",
    "OwnerFenced.v1",
    "OwnerChanged.v1",
    "WriterStarted.v1",
  ] as const;
  return phases.find((type) => wrote.has(type)) ?? "nothing written";
}

/** The holds that a kill left open, by the expiries that the next start wrote for them; says what is wrong with those. */
function openHoldsOf(ledger: Ledger, lives: readonly Life[], life: Life) {
  const epochs = ledger.events.flatMap((event) =>
    event.type === "WriterStarted.v1" &&
    event.data.process === "gateway" &&
    event.metadata.at >= life.spawnedAtMs &&
    event.metadata.at <= life.endedAtMs
      ? [Number(event.revision)]
      : [],
  );
  const journals = new Set(epochs.map((epoch) => streams.journal("us", epoch)));
  const next = lives.find(
    ({ spawnedAtMs, readyAtMs }) => spawnedAtMs >= life.endedAtMs && readyAtMs !== undefined,
  );
  const wrong: string[] = [];
  let open = 0;
  for (const event of ledger.events) {
    if (event.type !== "RequestExpired.v1" || !journals.has(event.stream)) continue;
    open += 1;
    if (event.metadata.at < life.endedAtMs)
      wrong.push(`${event.data.requestId} expired while its gateway lived`);
    if (event.metadata.at > (next?.readyAtMs ?? 0))
      wrong.push(`${event.data.requestId} expired only after the next start was ready`);
  }
  return { open, wrong };
}

test("one kill -9 under held answers: the next start seals the journal and expires each hold", async () => {
  const bookPath = join(folder, "one-book.jsonl");
  const simulator = await startSimulator(bookPath);
  const place = await takePlace(join(folder, "one"), simulator.url, diceOf(Date.now(), "ports"));
  const first = startRelai(place);
  await first.ready;
  const { orgId, key } = await makeCustomer(place, FUNDED_MICRO);
  const customer = { gateway: place.gateway, key };
  const asked = [true, false, true].map((stream) =>
    ask(customer, { stream, words: "output=50 hold=a" }).catch(() => undefined),
  );
  await vi.waitFor(() => expect(readBook(bookPath)).toHaveLength(asked.length), {
    timeout: 10_000,
  });
  first.kill("SIGKILL");
  await first.ended;
  expect(await Promise.all(asked)).toEqual(asked.map(() => undefined));

  const second = startRelai(place);
  await second.ready;
  expect(await readBalance(place, orgId)).toEqual({
    credits_micro: FUNDED_MICRO,
    available_micro: FUNDED_MICRO,
    held_micro: 0,
  });
  await stopCleanly(second);
  await stopCleanly(simulator.process);
  const ledger = ledgerOf(await readEvents(place.eventsPath));
  const [admitted] = ledger.admitted.values();
  expect(
    ledger.events.filter(({ stream }) => stream === admitted?.stream).map(({ type }) => type),
  ).toEqual([
    // The mark of the owner under which it served stands first.
    "OwnerFenced.v1",
    ...asked.map(() => "RequestAdmitted.v1"),
    "JournalSealed.v1",
    ...asked.map(() => "RequestExpired.v1"),
  ]);
  expect(compare(ledger, readBook(bookPath), [])).toEqual([]);
});

test(`${KILLS} times kill -9 under load: every call has exactly one outcome`, async () => {
  const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
  process.stdout.write(`kill: FAULTS_SEED=${seed}\n`);
  const dice = diceOf(seed, "kill");
  const bookPath = join(folder, "book.jsonl");
  const simulator = await startSimulator(bookPath);
  const place = await takePlace(join(folder, "data"), simulator.url, dice);
  const lives: Life[] = [];
  const pace: Pace = { firstWriteMs: 0, readyMs: 0 };

  const first = startRelai(place);
  const writing = firstWrite(place, first).then(() => Date.now() - first.spawnedAtMs);
  await first.ready;
  Object.assign(pace, { firstWriteMs: await writing, readyMs: Date.now() - first.spawnedAtMs });
  const { orgId, key } = await makeCustomer(place, FUNDED_MICRO);
  await stopCleanly(first);

  const left = new Set<string>();
  const customer = { gateway: place.gateway, key, left };
  const load = startLoad(customer, CLIENTS, diceOf(seed, "load"), true);
  let startsLeft = KILLS_IN_START_TRIED;
  for (let killsLeft = KILLS; killsLeft > 0; killsLeft--) {
    // In random order; a kill that came too late for its start is made up for by a later one.
    const when = dice.chance(startsLeft / killsLeft) ? "start" : "load";
    const life = await liveAndDie(place, when, pace, dice);
    if (life.readyAtMs === undefined) startsLeft -= 1;
    lives.push(life);
  }

  const last = startRelai(place);
  await last.ready;
  const readyAtMs = Date.now();
  await pause(LOAD_MS.high);
  await load.stop();
  await vi.waitFor(() => expect(readBook(bookPath).filter((call) => !call.endedAtMs)).toEqual([]), {
    timeout: 10_000,
  });
  const balance = await vi.waitFor(
    async () => {
      const read = await readBalance(place, orgId);
      expect(read.held_micro).toBe(0);
      return read;
    },
    { timeout: 10_000, interval: 100 },
  );
  await stopCleanly(last);
  lives.push({ spawnedAtMs: last.spawnedAtMs, readyAtMs, endedAtMs: Date.now() });
  await stopCleanly(simulator.process);

  const ledger = ledgerOf(await readEvents(place.eventsPath));
  const book = readBook(bookPath);
  expect(compare(ledger, book, load.seen, left)).toEqual([]);
  expect(balance).toEqual({
    credits_micro: FUNDED_MICRO - ledger.chargedMicro,
    available_micro: FUNDED_MICRO - ledger.chargedMicro,
    held_micro: 0,
  });

  const killed = lives.slice(0, KILLS);
  const holds = killed.map((life) => openHoldsOf(ledger, lives, life));
  expect(holds.flatMap(({ wrong }) => wrong)).toEqual([]);
  const inStart = killed.filter((life) => life.readyAtMs === undefined);
  const phases = Object.groupBy(inStart, (life) => phaseOf(ledger, life));
  const counts = {
    kills: killed.length,
    killsInStart: inStart.length,
    killsWithOpenHolds: holds.filter(({ open }) => open > 0).length,
    openHolds: holds.reduce((sum, { open }) => sum + open, 0),
    calls: book.length,
    recorded: countOf(ledger, "UsageRecorded.v1"),
    expired: countOf(ledger, "RequestExpired.v1"),
    released: countOf(ledger, "RequestReleased.v1"),
    seenWhole: load.seen.filter(({ complete }) => complete).length,
    seenBroken: load.seen.filter(({ complete }) => !complete).length,
    startPhases: Object.fromEntries(
      Object.entries(phases).map(([phase, them]) => [phase, them?.length]),
    ),
  };
  process.stdout.write(`kill: ${JSON.stringify(counts)}\n`);
  expect(counts.killsInStart).toBeGreaterThanOrEqual(KILLS_IN_START);
  expect(counts.killsWithOpenHolds).toBeGreaterThanOrEqual(KILLS_WITH_OPEN_HOLDS);
  expect(Object.keys(phases).length).toBeGreaterThan(1);
  // Without these the comparison above would have had little to compare.
  expect(counts.seenWhole).toBeGreaterThan(KILLS);
  expect(counts.released).toBeGreaterThan(0);
});

function countOf(ledger: Ledger, type: string): number {
  return ledger.events.filter((event) => event.type === type).length;
}
