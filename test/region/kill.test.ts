import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ALIVE_EVERY_MS } from "#services/journal.ts";
import { diceOf, type Dice } from "#test/simulation/random.ts";
import { killAll } from "#test/faults/processes.ts";
import { pause, SILENCE_MS, startRegion, until, type Part, type Region } from "./region.ts";
import { expectAtRest, untilNothingIsHeld } from "./books.ts";
import { makeCustomers, refusedIn, RICH_MICRO, SMALL_MICRO, startCrowd } from "./crowd.ts";
import { NO_REDIS_OF_OURS, watchOwners } from "./servers.ts";

/** So many at most, of gateways; the ledgers' come besides. A busy machine fits fewer into the time of the ledgers. */
const GATEWAY_KILLS_MAX = 60;
const GATEWAY_KILLS_MIN = 20;
const APPLIES_MS_MAX = 120_000;
const ALIVE_MS = { low: 1_000, high: 4_500 };

const folder = mkdtempSync(join(tmpdir(), "relai-region-kill-"));
let started: Region | undefined;
afterAll(async () => {
  killAll();
  await started?.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Kills a gateway again and again until told to stop; it is up when this comes back. Gives what it did. */
async function killAgainAndAgain(gateway: Part, dice: Dice, isOver: () => boolean) {
  const done = { killed: 0, killedInStart: 0, stopped: 0 };
  const most = GATEWAY_KILLS_MAX / 2;
  while (!isOver() && done.killed + done.killedInStart + done.stopped < most) {
    await pause(dice.between(ALIVE_MS.low, ALIVE_MS.high));
    const isStopped = dice.chance(0.15);
    await gateway.end(isStopped ? "SIGTERM" : "SIGKILL");
    done[isStopped ? "stopped" : "killed"] += 1;
    if (dice.chance(0.15)) {
      await gateway.startAndKill(dice.between(0, 1_500));
      done.killedInStart += 1;
    }
    await gateway.start();
  }
  return done;
}

/**
 * Kills the ledgers, one that serves and one that stands by, in every way that differs: each time another one must take
 * over and carry in what is recorded. The first serves when this is called. Gives how many were killed.
 */
async function killLedgers(
  region: Region,
  applied: () => ReadonlySet<number>,
  first: Part,
  second: Part,
): Promise<number> {
  /** An owner that follows, and is seen to apply what is recorded from then on. */
  async function serves(ownerEpoch: number, limitMs?: number) {
    const owner = await region.served(ownerEpoch, limitMs);
    const what = `owner ${ownerEpoch} applies`;
    await until(what, APPLIES_MS_MAX, async () => applied().has(ownerEpoch) || undefined);
    return owner;
  }
  const one = await serves(1);
  await second.end("SIGKILL");
  await second.start();
  // One that stands by is missed by nobody.
  expect(await serves(1)).toEqual(one);

  // Told to stop, it leaves at once, and only the second is there to take over.
  await first.end("SIGTERM");
  const two = await serves(2, 60_000);
  await first.start();
  await pause(ALIVE_EVERY_MS);

  // Killed, it is waited for; only the first is there to take over.
  await second.end("SIGKILL");
  const three = await serves(3);
  await second.start();
  await pause(ALIVE_EVERY_MS);

  // Both: whoever is first after the silence, and the other lets it.
  await Promise.all([first.end("SIGKILL"), second.end("SIGKILL")]);
  await Promise.all([first.start(), second.start()]);
  const four = await serves(4);
  const all = [one, two, three, four];
  expect(new Set(all.map((owner) => owner?.instance)).size).toBe(all.length);
  return 4;
}

test("gateways and ledgers are killed in turn under load: every call has one outcome, nobody overspends", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
  process.stdout.write(`region-kill: FAULTS_SEED=${seed}\n`);
  const dice = diceOf(seed, "region-kill");
  const region = await startRegion(folder, dice);
  started = region;
  const [first, second] = [
    await region.part("ledger", "ledger-1"),
    await region.part("ledger", "ledger-2"),
  ];
  const gateways = [
    await region.part("gateway", "gateway-1"),
    await region.part("gateway", "gateway-2"),
  ];
  const control = await region.part("control", "control");
  await first.start();
  await region.served(1);
  const watched = await watchOwners(region.redis);
  const applied = () =>
    new Set(watched.done.flatMap(({ what, ownerEpoch }) => (what === "apply" ? [ownerEpoch] : [])));
  await Promise.all([second, control, ...gateways].map((each) => each.start()));

  const left = new Set<string>();
  const customers = await makeCustomers(control, [RICH_MICRO, SMALL_MICRO, SMALL_MICRO]);
  const crowd = startCrowd({ control, gateways, customers, seed, left });

  let isOver = false;
  const ledgersDie = killLedgers(region, applied, first, second).finally(() => {
    isOver = true;
  });
  const gatewaysDie = Promise.all(
    gateways.map((gateway, at) =>
      killAgainAndAgain(gateway, diceOf(seed, `gateway ${at}`), () => isOver),
    ),
  );
  // Also where one of them fails: nothing is to be started behind the end of the test.
  await Promise.allSettled([ledgersDie, gatewaysDie]);
  const seen = await crowd.stop();
  const [ledgersKilled, kills] = await Promise.all([ledgersDie, gatewaysDie]);

  // Whoever died is dead to the last owner after a silence of its own counting, and then nothing is held.
  const stoppedMs = Date.now();
  await untilNothingIsHeld(region, customers, SILENCE_MS + ALIVE_EVERY_MS + 30_000);
  const restMs = Date.now() - stoppedMs;
  const ledger = await expectAtRest(region, control, customers, seen, left);
  watched.close();
  expect((await region.owners()).map(({ ownerEpoch }) => ownerEpoch)).toEqual([1, 2, 3, 4]);
  for (const each of [...gateways, control, first, second]) await each.end("SIGTERM");

  const total = (name: keyof (typeof kills)[number]) =>
    kills.reduce((sum, each) => sum + each[name], 0);
  const small = new Set(customers.slice(1).map(({ orgId }) => orgId));
  const ended = [...ledger.ends.values()].flat();
  const counts = {
    killed: total("killed"),
    killedInStart: total("killedInStart"),
    stopped: total("stopped"),
    ledgersKilled,
    restMs,
    admitted: ledger.admitted.size,
    expired: ended.filter(({ type }) => type === "RequestExpired.v1").length,
    released: ended.filter(({ type }) => type === "RequestReleased.v1").length,
    whole: seen.filter(({ complete }) => complete).length,
    refused: refusedIn(seen),
    recordedOfSmall: ended.filter(
      ({ type, data }) => type === "UsageRecorded.v1" && small.has(data.orgId),
    ).length,
  };
  process.stdout.write(`region-kill: ${JSON.stringify(counts)}\n`);
  // Without these the comparison above would have had little to compare.
  expect(counts.killed).toBeGreaterThanOrEqual(GATEWAY_KILLS_MIN);
  expect(counts.expired).toBeGreaterThan(10);
  expect(counts.whole).toBeGreaterThan(150);
  expect(counts.refused).toBeGreaterThan(20);
  expect(counts.recordedOfSmall).toBeGreaterThan(50);
});
