import { afterEach, expect, test } from "vitest";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import type { KeyDirectory, Projector } from "#services/ports.ts";
import { CREDIT_MICRO, hashOf, ledgerWorld, orgOf } from "#test/worlds/ledger-world.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { packRows } from "#test/samples/pack-rows.ts";
import { createKeys } from "./keys.ts";

let stop = async () => {};
afterEach(() => stop());

/** A ledger whose organizations have keys, all of them in the first of two parts. */
async function region(count: number) {
  const world = await ledgerWorld(count);
  ({ stop } = world);
  const two = directoryOfTwo();
  Object.assign(world.directory, two.directory);
  return { ...world, ...two };
}

/** A directory of two parts, by the first digit of a hash. */
function directoryOfTwo() {
  const halves = new Map(["0", "f"].map((part) => [part, createMemoryKeyDirectory()]));
  const away = new Set<string>();
  const moved = new Set<string>();
  const of = (part: string): KeyDirectory => {
    const half = halves.get(part);
    if (!half || away.has(part)) throw new Error(`${part} is away`);
    return half;
  };
  const partOf = (tokenHash: string) => (tokenHash < "8" ? "0" : "f");
  const directory: KeyDirectory = {
    parts: [...halves.keys()],
    partOf,
    lookup: async (tokenHash) => of(partOf(tokenHash)).lookup(tokenHash),
    async put(keys) {
      for (const [part, puts] of Map.groupBy(keys, ([hash]) => partOf(hash)))
        await of(part).put(puts);
    },
    async markFilling(part, ownerEpoch) {
      moved.delete(part);
      return of(part).markFilling("", ownerEpoch);
    },
    markFilled: async (part, ownerEpoch) => of(part).markFilled("", ownerEpoch),
    stateOf: async (part, ownerEpoch) =>
      moved.has(part) ? "moved" : of(part).stateOf("", ownerEpoch),
  };
  return { directory, halves, away, moved };
}

const NOBODY = { low: "1".repeat(64), high: "e".repeat(64) };

test("a part of the key directory that is away is filled when it is back, the others at once", async () => {
  const world = await region(3);
  const { directory, away } = world;
  away.add("0");
  const ledger = await world.start();
  const filled = ledger.filled("keys", 60_000);
  await world.clock.advance(3_000);
  await expect(directory.lookup(hashOf(1))).rejects.toThrow("away");
  expect(await directory.lookup(NOBODY.high)).toBeUndefined();
  await world.create(9);
  await world.clock.advance(10_000);
  expect(await world.available(9)).toBe(CREDIT_MICRO);
  away.clear();
  await world.clock.advance(3_000);
  for (const number of [1, 2, 3, 9])
    expect(await directory.lookup(hashOf(number))).toMatchObject({ orgId: orgOf(number) });
  expect(await directory.lookup(NOBODY.low)).toBeUndefined();
  expect([await filled, await world.owners()]).toEqual([true, 1]);
  expect(world.alarms).toEqual(["ledger_fill_failed"]);
});

test("a part that moved is filled anew, also with a key that could not be put in, and costs no claim", async () => {
  const world = await region(2);
  const { directory, away, moved } = world;
  const ledger = await world.start();
  expect(await ledger.filled("keys", 10_000)).toBe(true);
  away.add("0");
  await world.create(9);
  await world.clock.advance(5_000);
  away.clear();
  await world.clock.advance(2_000);
  expect(await directory.lookup(hashOf(9))).toMatchObject({ orgId: orgOf(9) });
  moved.add("0");
  await world.clock.advance(3_000);
  expect([[...moved], await directory.lookup(NOBODY.low)]).toEqual([[], undefined]);
  expect(await world.owners()).toBe(1);
});

test("a part that lost its memory costs a claim: so did organizations, whom nobody without a key would miss", async () => {
  const world = await region(2);
  const { directory, halves } = world;
  const ledger = await world.start();
  expect(await ledger.filled("all", 10_000)).toBe(true);
  halves.set("0", createMemoryKeyDirectory());
  await world.clock.advance(5_000);
  expect(await directory.lookup(hashOf(1))).toMatchObject({ orgId: orgOf(1) });
  expect(await world.owners()).toBe(2);
});

test("a part is whole only when nothing failed since it began to be filled, and has what was recorded by then", async () => {
  const { directory, away } = directoryOfTwo();
  const entryOf = (number: number) => ({
    keyId: `key_${number}`,
    orgId: orgOf(number),
    revoked: false,
  });
  const asked: (bigint | "start")[] = [];
  let during = async () => {};
  const rows = async (_: string, atLeast: bigint | "start", __: unknown, slice: object) => {
    asked.push(atLeast);
    await during();
    const isFirst = "after" in slice && slice.after === "";
    const found = isFirst ? [{ table: "keys", key: hashOf(1), value: entryOf(1) }] : [];
    return { position: atLeast, rows: packRows(found) };
  };
  const projector = { rows } as unknown as Projector;
  const ownership = { ownerEpoch: 1, servers: ["server-1"], position: 5n };
  const keys = createKeys({ projector, directory, clock: manualClock() }, ownership);
  const { signal } = new AbortController();

  during = async () => {
    during = async () => {};
    away.add("0");
    await keys.put([[hashOf(2), entryOf(2)]], 8n, signal);
    away.clear();
  };
  await keys.fill(signal);
  expect(keys.isWhole()).toBe(false);
  await expect(directory.lookup(NOBODY.low)).rejects.toThrow("not been filled");
  expect(await directory.lookup(NOBODY.high)).toBeUndefined();
  // The last moment at which something can go wrong.
  const { markFilled } = directory;
  directory.markFilled = async (part, ownerEpoch) => {
    directory.markFilled = markFilled;
    const isMarked = await markFilled(part, ownerEpoch);
    away.add(part);
    await keys.put([[hashOf(3), entryOf(3)]], 9n, signal);
    away.clear();
    return isMarked;
  };
  await keys.fill(signal);
  expect(keys.isWhole()).toBe(false);
  await keys.fill(signal);
  expect(keys.isWhole()).toBe(true);
  expect(await directory.lookup(hashOf(1))).toMatchObject({ keyId: "key_1" });
  expect(await directory.lookup(NOBODY.low)).toBeUndefined();
  expect(new Set(asked)).toEqual(new Set([5n, 8n, 9n]));
});
