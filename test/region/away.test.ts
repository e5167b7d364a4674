import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, expect, test } from "vitest";
import { diceOf } from "#test/simulation/random.ts";
import { ask, type Seen } from "#test/faults/clients.ts";
import { killAll } from "#test/faults/processes.ts";
import { expectAtRest, untilNothingIsHeld } from "./books.ts";
import {
  makeCustomers,
  RICH_MICRO,
  startCrowd,
  troubleIn,
  undefinedAnswers,
  type Funded,
} from "./crowd.ts";
import { pause, startRegion, takeTurns, until, type Part, type Region } from "./region.ts";
import { NO_REDIS_OF_OURS } from "./servers.ts";

/**
 * The event store, and then Redis, are away for a minute under load: stopped in one region, stalled in another beside it.
 * Whoever asks is refused, nobody's memory grows with what waits, nothing is lost, and all goes on by itself.
 */

const AWAY_MS = Number(process.env["FAULTS_AWAY_MS"] ?? 60_000);
/** After so long what had begun before has come to its end, or was told that it does not. */
const RUN_OUT_MS = 20_000;
/** A limit for hanging, not a promise: it is served again within seconds. */
const SERVES_AGAIN_MS_MAX = 120_000;
const REST_MS_MAX = 120_000;
const MIB = 1024 * 1024;
/** What a process may keep more than before, in its heap and beside it, when all that can be collected was. */
const KEPT_GROWTH_MIB_MAX = 32;
/** What it may take more of the machine, at any time. */
const RESIDENT_GROWTH_MIB_MAX = 96;
/** One owner or two for a Redis that came back: it may say that it is another one once more while it is claimed. */
const OWNERS_MAX = 4;
const BASE_MS = 5_000;
const SAMPLE_EVERY_MS = 1_000;

const folder = mkdtempSync(join(tmpdir(), "relai-region-away-"));
const started: Region[] = [];
afterAll(async () => {
  killAll();
  await Promise.all(started.map((region) => region.close()));
  rmSync(folder, { recursive: true, force: true });
});

interface World {
  readonly region: Region;
  readonly ledgers: readonly [Part, Part];
  readonly gateways: readonly Part[];
  readonly control: Part;
  readonly customers: readonly Funded[];
  readonly seed: number;
  readonly name: string;
  readonly seen: Seen[];
  readonly left: Set<string>;
}

async function openWorld(name: string): Promise<World> {
  const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
  process.stdout.write(`region-away, ${name}: FAULTS_SEED=${seed}\n`);
  const region = await startRegion(join(folder, name), diceOf(seed, `region-away ${name}`));
  started.push(region);
  const ledgers = [
    await region.part("ledger", "ledger-1"),
    await region.part("ledger", "ledger-2"),
  ] as const;
  const gateways = [
    await region.part("gateway", "gateway-1"),
    await region.part("gateway", "gateway-2"),
  ];
  const control = await region.part("control", "control");
  await ledgers[0].start();
  await region.served(1);
  await Promise.all([ledgers[1], control, ...gateways].map((each) => each.start()));
  const customers = await makeCustomers(control, [RICH_MICRO, RICH_MICRO]);
  return { region, ledgers, gateways, control, customers, seed, name, seen: [], left: new Set() };
}

/**
 * The memory of every process of a region for a while, in MiB: the most that each took of the machine, and the least that
 * it kept in its heap and beside it, which is what was there when garbage had been collected.
 */
async function memoryFor({ ledgers, gateways, control }: World, durationMs: number) {
  const parts = [...gateways, ...ledgers, control];
  const found = parts.map(() => ({ resident: 0, kept: Infinity }));
  for (const dueMs = Date.now() + durationMs; Date.now() < dueMs; await pause(SAMPLE_EVERY_MS))
    await Promise.all(
      parts.map(async ({ metric }, at) => {
        const [resident, heap, external] = await Promise.all([
          metric("process_resident_memory_bytes"),
          metric("nodejs_heap_size_used_bytes"),
          metric("nodejs_external_memory_bytes"),
        ]);
        const before = found[at] ?? { resident: 0, kept: Infinity };
        found[at] = {
          resident: Math.max(before.resident, resident / MIB),
          kept: Math.min(before.kept, (heap + external) / MIB),
        };
      }),
    );
  return found;
}

async function away(
  world: World,
  what: string,
  goes: () => Promise<void>,
  comes: () => Promise<void>,
): Promise<void> {
  const { region, gateways, control, customers, seed, seen, left } = world;
  const before = { owners: await region.owners(), lives: await region.lives("ledger") };
  const crowd = startCrowd({ control, gateways, customers, seed: seed + seen.length, left });
  const memory: Awaited<ReturnType<typeof memoryFor>>[] = [];
  let sinceMs = 0;
  let backMs = 0;
  let servedAgainS = 0;
  try {
    await until("the load is on", 180_000, async () => crowd.seen().length > 100 || undefined);
    memory.push(await memoryFor(world, BASE_MS));
    await goes();
    sinceMs = Date.now();
    memory.push(await memoryFor(world, AWAY_MS / 2), await memoryFor(world, AWAY_MS / 2));
    backMs = Date.now();
    await comes();
    for (const { url } of gateways)
      await until("a gateway serves again", SERVES_AGAIN_MS_MAX, async () => {
        const words = { stream: true, words: "input=1 output=2" };
        const again = await ask({ gateway: url, key: customers[0]?.key ?? "" }, words);
        seen.push(again);
        return again.complete || undefined;
      });
    servedAgainS = (Date.now() - backMs) / 1000;
    await region.served(before.owners.length, SERVES_AGAIN_MS_MAX);
    await pause(2_000);
  } finally {
    seen.push(...(await crowd.stop()));
  }
  const answered = crowd.seen();
  const during = answered.filter(({ atMs }) => atMs < backMs);
  const [base = [], early = [], late = []] = memory;
  const grown = base.map(({ resident, kept }, at) => ({
    resident: Math.round(Math.max(early[at]?.resident ?? 0, late[at]?.resident ?? 0) - resident),
    kept: Math.round((late[at]?.kept ?? Infinity) - kept),
  }));
  const owners = (await region.owners()).length - before.owners.length;
  const lives = (await region.lives("ledger")).length - before.lives.length;
  const figures = { ...troubleIn(during, sinceMs), servedAgainS, owners, lives, grown };
  process.stdout.write(`region-away, ${world.name}, ${what}: ${JSON.stringify(figures)}\n`);
  expect(undefinedAnswers(answered)).toEqual([]);
  expect(crowd.unanswered()).toBe(0);
  await untilNothingIsHeld(region, customers, REST_MS_MAX);
  await expectAtRest(region, control, customers, seen, left);
  for (const { resident, kept } of grown) {
    expect(resident).toBeLessThan(RESIDENT_GROWTH_MIB_MAX);
    expect(kept).toBeLessThan(KEPT_GROWTH_MIB_MAX);
  }
  // No ledger went and came again, nor took another's place again and again.
  expect(lives).toBe(0);
  expect(owners).toBeLessThan(OWNERS_MAX);
  const isLate = ({ atMs }: Seen) => atMs > sinceMs + RUN_OUT_MS;
  expect(new Set(during.filter(isLate).map(({ status }) => status))).toEqual(new Set([503]));
}

/** The ledger that stands by takes over, and then the other one stands by. */
async function changePlaces(world: World): Promise<void> {
  const { region, ledgers, gateways, control, customers, seed, seen, left } = world;
  const crowd = startCrowd({ control, gateways, customers, seed: seed + seen.length, left });
  try {
    await takeTurns(region, ledgers[0]);
  } finally {
    seen.push(...(await crowd.stop()));
  }
}

/** Shuts a Redis down with all that it has: what it comes back with looks as if it were true. */
async function shutDown({ region: { redis } }: World): Promise<void> {
  const raw = new Redis(redis.url, { protocol: 2 });
  await raw.save();
  raw.disconnect();
  await redis.kill();
}

test.concurrent("the event store and Redis are stopped for a minute: refusals, bounded memory, nothing lost, and all goes on", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const world = await openWorld("stopped");
  const { eventStore, redis } = world.region;
  await away(world, "event store", eventStore.kill, eventStore.start);
  await changePlaces(world);
  await away(world, "Redis", () => shutDown(world), redis.start);
});

test.concurrent("the event store and Redis are stalled for a minute: refusals, bounded memory, nothing lost, and all goes on", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const world = await openWorld("stalled");
  for (const [what, server] of [
    ["event store", world.region.eventStore],
    ["Redis", world.region.redis],
  ] as const) {
    const send = (signal: "SIGSTOP" | "SIGCONT") => async () => server.signal(signal);
    await away(world, what, send("SIGSTOP"), send("SIGCONT"));
    if (what === "event store") await changePlaces(world);
  }
});
