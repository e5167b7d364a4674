import { expect, test } from "vitest";
import { newEvent, streams, type RecordedEvent } from "#domain/events/events.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { funded, KEY } from "#test/worlds/accounts-world.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { createSweeping } from "./sweeping.ts";

const metadata = { at: 1, region: "us", actor: "ledger", $correlationId: "c", schema: 1 } as const;
const orgIds = Array.from({ length: 320 }, (_, at) => `org_${at}`);

/** The seal of a writer's journal, as it is carried. */
function seal(writerEpoch: number): RecordedEvent {
  const stream = streams.journal("us", writerEpoch);
  const event = newEvent(stream, "sealed", "JournalSealed.v1", { by: "ledger" }, metadata);
  return { ...event, stream, revision: 1n, position: 9n, recordedAt: 1 };
}

/** Many organizations in place, and the sweeping of them; the test says what is carried. */
function sweeping() {
  const clock = manualClock();
  const { admission: state } = funded({ orgs: orgIds });
  const memory = createMemoryAdmission({ clock, server: state.server, state });
  const ending = new AbortController();
  let [running, most, sweeps, failures] = [0, 0, 0, 0];
  const admission: typeof memory = {
    ...memory,
    async sweep(ask) {
      sweeps += 1;
      most = Math.max(most, (running += 1));
      await new Promise<void>((resolve) => clock.timer(1, resolve));
      running -= 1;
      if (failures-- > 0) throw new Error("no answer");
      return memory.sweep(ask);
    },
  };
  const orgs = new Map(orgIds.map((orgId) => [orgId, 6n]));
  const behind = new Set<string>();
  const sweep = createSweeping(
    { admission, clock },
    1,
    orgs,
    (orgId) => !behind.has(orgId),
    ending.signal,
  );
  let number = 0;
  return {
    clock,
    sweep,
    behind,
    end: () => ending.abort(),
    fail: (count: number) => void (failures = count),
    counts: () => ({ most, sweeps }),
    async take(orgId: string, writerEpoch: number): Promise<void> {
      const requestId = `req_${(number += 1)}`;
      const ask = { orgId, ownerEpoch: 1, requestId, writerEpoch, keyId: KEY, holdMicro: 10 };
      expect(await memory.admit(ask)).toMatchObject({ outcome: "admitted" });
    },
    async held(): Promise<string[]> {
      const found: string[] = [];
      for (const orgId of orgIds) {
        const figures = await memory.figures({ orgId });
        if (figures.outcome === "figures" && figures.balance.heldMicro > 0) found.push(orgId);
      }
      return found;
    },
  };
}

test("what sealed writers took is free again everywhere, and of no other; a few organizations at a time", async () => {
  const world = sweeping();
  for (const orgId of ["org_0", "org_150", "org_319"]) await world.take(orgId, 7);
  await world.take("org_151", 8);
  await world.take("org_152", 9);
  world.sweep([seal(7)]);
  // It has not waited for any of them: events go on being carried.
  expect(world.counts().sweeps).toBeLessThanOrEqual(50);
  world.sweep([seal(8)]);
  await world.clock.advance(1_000);
  expect(await world.held()).toEqual(["org_152"]);
  expect(world.counts()).toEqual({ most: 50, sweeps: 2 * orgIds.length });
});

test("an organization for which recorded events wait is left alone, also when they begin to wait in the middle of a round", async () => {
  const world = sweeping();
  for (const orgId of ["org_0", "org_319"]) await world.take(orgId, 7);
  world.behind.add("org_0");
  world.sweep([seal(7)]);
  await world.clock.advance(1);
  world.behind.add("org_319");
  await world.clock.advance(1_000);
  expect(await world.held()).toEqual(["org_0", "org_319"]);
});

test("seals that come during a round share the next one", async () => {
  const world = sweeping();
  world.sweep([seal(7)]);
  await world.clock.advance(20);
  for (const writerEpoch of [8, 9, 10]) await world.take("org_0", writerEpoch);
  world.sweep([seal(8), seal(9)]);
  world.sweep([seal(10)]);
  await world.clock.advance(1_000);
  expect(await world.held()).toEqual([]);
  expect(world.counts()).toEqual({ most: 51, sweeps: 4 * orgIds.length });
});

test("what gets no answer is swept again, until the ownership ends", async () => {
  const world = sweeping();
  await world.take("org_3", 7);
  world.fail(70);
  world.sweep([seal(7)]);
  await world.clock.advance(20_000);
  expect(await world.held()).toEqual([]);
  world.fail(Infinity);
  world.sweep([seal(8)]);
  await world.clock.advance(60_000);
  const { sweeps } = world.counts();
  expect(sweeps).toBeLessThan(2_000);
  world.end();
  await world.clock.advance(60_000);
  expect(world.counts().sweeps - sweeps).toBeLessThanOrEqual(50);
  expect(world.clock.armed()).toBe(0);
});
