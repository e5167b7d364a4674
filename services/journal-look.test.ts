import { describe, expect, test } from "vitest";
import { newEvent } from "#domain/events/events.ts";
import { fence } from "#test/conformance/event-store/event-samples.ts";
import { ending, scripted, STREAM, taking } from "#test/worlds/journal-world.ts";
import { settled } from "#test/doubles/manual-clock.ts";

const metadata = { at: 1, region: "us", actor: "ledger", $correlationId: "c", schema: 1 } as const;

type World = ReturnType<typeof scripted>;

async function seal({ store }: World): Promise<void> {
  const [last] = await store.read(STREAM, { from: "end", direction: "backward", max: 1 });
  const event = newEvent(STREAM, "sealed", "JournalSealed.v1", { by: "ledger" }, metadata);
  await store.append(STREAM, [event], last?.revision ?? "no_stream");
}

/** A journal into which one event was written, and how many reads follow. */
async function written() {
  const world = scripted();
  const journal = await world.open();
  await journal.record(ending(1));
  world.readsSince();
  return { world, journal };
}

describe("a journal into which nothing was written for over 30 s", () => {
  test("is not fresh until its tail was read; one that writes is, and is never read", async () => {
    const { world, journal } = await written();
    for (let number = 2; number < 20; number++) {
      await world.clock.advance(20_000);
      expect(journal.isFresh()).toBe(true);
      await journal.record(ending(number));
    }
    expect(world.readsSince()).toBe(0);
    await world.clock.advance(30_000);
    expect(journal.isFresh()).toBe(true);
    await world.clock.advance(1);
    expect(journal.isFresh()).toBe(false);
    expect(await journal.look()).toBe(true);
    expect(journal.isFresh()).toBe(true);
    expect(world.readsSince()).toBe(1);
  });

  test("finds its seal by a look, and is over", async () => {
    const { world, journal } = await written();
    await world.clock.advance(40_000);
    await seal(world);
    expect(journal.isSealed()).toBe(false);
    expect(await journal.look()).toBe(false);
    await journal.sealedByOther;
    expect([journal.isSealed(), journal.isFresh(), journal.reserve()]).toEqual([
      true,
      false,
      false,
    ]);
  });

  test("finds a fence by a look, and takes nothing more under older owners", async () => {
    const { world, journal } = await written();
    await world.clock.advance(40_000);
    await world.store.fence(STREAM, fence(STREAM, 9));
    expect(await journal.look()).toBe(true);
    expect(await journal.record(taking(2, 8))).toMatchObject({ outcome: "dropped" });
    expect(await journal.record(taking(3, 9))).toMatchObject({ outcome: "recorded" });
  });

  test("is read once, however many ask, and asked again after a failure or a second without an answer", async () => {
    const { world, journal } = await written();
    await world.clock.advance(40_000);
    world.failReads(1);
    expect(await Promise.all([journal.look(), journal.look()])).toEqual([false, false]);
    expect(world.readsSince()).toBe(1);
    world.hangReads(true);
    const looks = [journal.look(), journal.look()];
    await world.clock.advance(1_000);
    expect(await Promise.all(looks)).toEqual([false, false]);
    world.hangReads(false);
    expect(await journal.look()).toBe(true);
    expect(world.readsSince()).toBe(2);
    expect(world.clock.armed()).toBe(0);
  });

  test("was not written to by an answer that comes late: its time is the first call's, not the answer's", async () => {
    const { world, journal } = await written();
    world.scripts.push("hang");
    const recording = journal.record(ending(2));
    await settled();
    await world.clock.advance(40_000);
    world.free();
    expect(await recording).toMatchObject({ outcome: "recorded" });
    expect(journal.isFresh()).toBe(false);
    // Nor by the answer to a repeat, which only says what the first call did.
    world.scripts.push("lose", "hang");
    const repeating = journal.record(ending(3));
    await world.clock.advance(1_000);
    await world.clock.advance(40_000);
    world.free();
    expect(await repeating).toMatchObject({ outcome: "recorded" });
    expect(journal.isFresh()).toBe(false);
  });

  test("leaves an append on its way as it is: a look between it and its repeat changes nothing", async () => {
    const { world, journal } = await written();
    world.scripts.push("lose");
    const recording = journal.record(ending(2));
    await settled();
    expect(await journal.look()).toBe(true);
    await world.clock.advance(1_000);
    expect(await recording).toMatchObject({ outcome: "recorded" });
    const [, first, repeat] = world.appends;
    expect(repeat).toEqual(first);
    expect(new Set(await world.ids()).size).toBe(2);
  });
});
