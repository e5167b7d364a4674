import { afterEach, expect, test } from "vitest";

import { newEvent, streams, type RecordedEvent } from "#domain/events/events.ts";
import type { AdmissionStore } from "#services/ports.ts";
import {
  CREDIT_MICRO,
  gate,
  idOf,
  ledgerWorld,
  metadata,
  orgOf,
} from "#test/worlds/ledger-world.ts";
import { createAdoption } from "./adoption.ts";
import { createCarrying } from "./carry.ts";

/** A part of what the ledger owns does not answer, and nothing of it is lost. */

let stop = async () => {};
afterEach(() => stop());

const AWAY = { outcome: "fenced", fenced: "away" } as const;

/** A region whose test says which organizations are on a server that is away. */
async function region(count: number, servers = ["server-1"]) {
  const world = await ledgerWorld(count);
  ({ stop } = world);
  const away = new Set<string>();
  const { admission } = world;
  const { adopt, apply, figures, sweep } = admission;
  const unless = <Answer>(orgId: string, send: () => Promise<Answer>) =>
    away.has(orgId) ? Promise.resolve(AWAY) : send();
  Object.assign(admission, {
    seek: () => Promise.resolve(servers),
    adopt: (ask) => unless(ask.state.orgId, () => adopt(ask)),
    apply: (ask) => unless(ask.orgId, () => apply(ask)),
    figures: (ask) => unless(ask.orgId, () => figures(ask)),
    sweep: (ask) => unless(ask.orgId, () => sweep(ask)),
  } satisfies Partial<AdmissionStore>);
  return { ...world, away };
}

test("who is away at a claim is passed over, and comes in with all that was recorded meanwhile", async () => {
  const world = await region(3);
  world.away.add(orgOf(2));
  const ledger = await world.start();
  const filled = ledger.filled("all", 60_000);
  await world.clock.advance(1_000);
  const available = () => Promise.all([1, 2, 3].map(world.available));
  expect(await available()).toEqual([CREDIT_MICRO, "absent", CREDIT_MICRO]);
  await world.topUp(2, idOf("lot", 12));
  await world.topUp(3, idOf("lot", 13));
  await world.clock.advance(5_000);
  expect(await available()).toEqual([CREDIT_MICRO, "absent", 2 * CREDIT_MICRO]);
  const applied = ledger.applied(orgOf(2), 10n, 60_000);
  world.away.clear();
  await world.clock.advance(2_000);
  expect(await available()).toEqual([CREDIT_MICRO, 2 * CREDIT_MICRO, 2 * CREDIT_MICRO]);
  expect([await filled, await applied, await world.owners()]).toEqual([true, true, 1]);
  expect(world.adopted.toSorted()).toEqual([orgOf(1), orgOf(2), orgOf(3)]);
});

test("an event that passes by one that is out is waited for when it comes in", async () => {
  const world = await region(1);
  world.away.add(orgOf(1));
  await world.start();
  await world.clock.advance(1_000);
  world.folding.shut();
  await world.topUp(1, idOf("lot", 11));
  await world.clock.advance(1_000);
  world.away.clear();
  await world.admission.want(orgOf(1));
  await world.clock.advance(5_000);
  expect(await world.available(1)).toBe("absent");
  world.folding.open();
  await world.clock.advance(5_000);
  expect(await world.available(1)).toBe(2 * CREDIT_MICRO);
  await world.topUp(1, idOf("lot", 12));
  await world.clock.advance(1_000);
  expect([await world.available(1), await world.owners()]).toEqual([3 * CREDIT_MICRO, 1]);
});

test("what was read before an event passed by is read again", async () => {
  const world = await region(1);
  world.away.add(orgOf(1));
  await world.start();
  await world.clock.advance(1_000);
  const { rows } = world.projector;
  const reading = gate();
  world.projector.rows = async (...asked) => {
    const found = await rows(...asked);
    const [projection, , , slice] = asked;
    if (projection === "accounts" && slice && "of" in slice) await reading.pass();
    return found;
  };
  reading.shut();
  await world.admission.want(orgOf(1));
  await world.clock.advance(1_000);
  world.projector.rows = rows;
  await world.topUp(1, idOf("lot", 11));
  await world.clock.advance(1_000);
  world.away.clear();
  reading.open();
  await world.clock.advance(5_000);
  expect([await world.available(1), await world.owners()]).toEqual([2 * CREDIT_MICRO, 1]);
});

test("the events of one that is in wait for its server, in their order, and nobody waits for them", async () => {
  const world = await region(2);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  world.away.add(orgOf(1));
  for (const number of [11, 12, 13]) {
    await world.topUp(1, idOf("lot", number));
    await world.topUp(2, idOf("lot", number + 10));
    await world.clock.advance(1_000);
  }
  expect([await world.available(1), await world.available(2)]).toEqual([
    CREDIT_MICRO,
    4 * CREDIT_MICRO,
  ]);
  const applied = [1, 2].map((number) => ledger.applied(orgOf(number), 8n, 1_000));
  await world.clock.advance(10_000);
  expect(await Promise.all(applied)).toEqual([false, true]);
  world.away.clear();
  await world.clock.advance(1_100);
  expect(await world.available(1)).toBe(4 * CREDIT_MICRO);
  expect(await ledger.applied(orgOf(1), 8n, 1_000)).toBe(true);
  expect([await world.owners(), world.alarms]).toEqual([1, []]);
});

test("one that comes back without its memory is adopted under one more claim", async () => {
  const world = await region(2);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  world.away.add(orgOf(1));
  await world.topUp(1, idOf("lot", 11));
  await world.clock.advance(5_000);
  world.state.orgs.delete(orgOf(1));
  world.away.clear();
  await world.clock.advance(5_000);
  expect([await world.available(1), await world.owners()]).toEqual([2 * CREDIT_MICRO, 2]);
});

test("a new organization whose server is away comes in later, with its credit", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  world.away.add(orgOf(7));
  await world.create(7);
  await world.topUp(1, idOf("lot", 11));
  await world.clock.advance(3_000);
  expect([await world.available(7), await world.available(1)]).toEqual([
    "absent",
    2 * CREDIT_MICRO,
  ]);
  world.away.clear();
  await world.clock.advance(3_000);
  expect([await world.available(7), await world.owners()]).toEqual([CREDIT_MICRO, 1]);
});

test("of several servers one that loses again and again costs fewer and fewer claims, and the others are served between", async () => {
  const world = await region(2, ["server-1", "server-2"]);
  await world.start();
  let [lost, served] = [0, 0];
  for (let second = 0; second < 60; second += 1) {
    if (world.state.orgs.delete(orgOf(1))) lost += 1;
    await world.admission.want(orgOf(1));
    await world.topUp(2, idOf("lot", 100 + second));
    await world.clock.advance(1_000);
    if ((await world.available(2)) === (second + 2) * CREDIT_MICRO) served += 1;
  }
  const claims = (await world.owners()) - 1;
  expect(claims).toBeGreaterThan(3);
  expect(claims).toBeLessThan(9);
  expect(lost).toBeGreaterThan(3);
  expect(served).toBeGreaterThan(50);
  // Whoever has lasted a while is followed at once again.
  await world.clock.advance(120_000);
  const before = await world.owners();
  for (let time = 1; time < 3; time += 1) {
    world.state.orgs.delete(orgOf(1));
    await world.admission.want(orgOf(1));
    await world.clock.advance(1_500);
    expect(await world.owners()).toBe(before + time);
  }
});

test("an event passes nobody by who is on the way in", async () => {
  const adopting = gate();
  const admission = {
    async adopt() {
      await adopting.pass();
      return { outcome: "adopted" };
    },
  } as unknown as AdmissionStore;
  const projector = { rows: () => Promise.reject(new Error("nothing is read")) } as never;
  const ownership = { ownerEpoch: 1, servers: ["server-1"], position: "start" } as const;
  const [onLost, onSuperseded] = [() => {}, () => {}];
  const adoption = createAdoption({ admission, projector }, ownership, { onLost, onSuperseded });
  expect(adoption.passBy(orgOf(1), 1n)).toBe(true);
  adopting.shut();
  const coming = adoption.adoptNew(orgOf(1));
  expect(adoption.passBy(orgOf(1), 2n)).toBe(false);
  adopting.open();
  expect(await coming).toBe(true);
  expect(adoption.passBy(orgOf(1), 2n)).toBe(false);
});

test("so many events wait and no more: then whose they are is adopted anew", async () => {
  const lost: string[] = [];
  const orgs = new Map<string, bigint | "start">([[orgOf(1), "start"]]);
  const parts = {
    admission: { apply: () => Promise.resolve(AWAY) } as unknown as AdmissionStore,
    clock: { elapsed: () => 0 } as never,
  };
  const carrying = createCarrying(
    parts,
    1,
    {
      orgs,
      want: async (orgId) => orgs.has(orgId),
      wantAll: async () => {},
      adoptNew: async () => true,
      passBy: () => true,
      moved: (orgId, to) => void orgs.set(orgId, to),
      lose(orgId) {
        orgs.delete(orgId);
        lost.push(orgId);
      },
    },
    { put: async () => {} },
    new AbortController().signal,
  );
  const stream = streams.org(orgOf(1));
  const money = { amountMicro: 1, source: "manual", pot: "paid" } as const;
  for (let at = 0; at < 10_001; at += 1) {
    const data = {
      orgId: orgOf(1),
      topUpId: idOf("lot", at),
      ...money,
      bodySha256: "0".repeat(64),
    };
    const event = newEvent(stream, `${at}`, "CreditToppedUp.v1", data, metadata);
    const recorded = { ...event, data, position: BigInt(at), revision: BigInt(at), recordedAt: 0 };
    expect(lost).toEqual([]);
    await carrying.carry([recorded as unknown as RecordedEvent]);
  }
  expect([lost, carrying.waiting()]).toEqual([[orgOf(1)], 0]);
});
