import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { UnreadableEvent, type RecordedEvent } from "#domain/events/events.ts";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import { accountsProjection } from "#projections/accounts.ts";
import { managementProjection } from "#projections/management.ts";
import type { Projection } from "#projections/projection.ts";
import { unpackRows } from "#projections/rows.ts";
import { usageProjection } from "#projections/usage.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { failing, projectorWorld, type ProjectorWorld } from "#test/worlds/projector-world.ts";

let world: ProjectorWorld;
let { start, live, textOf, crash, alarms, store } = {} as ProjectorWorld;
beforeEach(() => {
  world = projectorWorld();
  ({ start, live, textOf, crash, alarms, store } = world);
});
afterEach(() => world.close());

describe("rows", () => {
  test("are folded at least to the position asked for, also while events come", async () => {
    const projector = await start();
    await live(50);
    const wanted = await live(50);
    const { position, rows } = await projector.rows("accounts", wanted);
    expect(position).toBeGreaterThanOrEqual(wanted);
    expect(rows.some(({ table }) => table === "orgs")).toBe(true);
    expect(await world.standsAt("accounts")).toBe(position);
  });

  test("wait for an event that comes later", async () => {
    const projector = await start();
    const head = await live(20);
    const later = projector.rows("usage", head + 30n);
    await live(40);
    expect((await later).position).toBeGreaterThanOrEqual(head + 30n);
  });

  test("are refused when the read model stands still, with what it waited for", async () => {
    const projector = await start({ stillMsMax: 20 });
    const head = await live(20);
    await expect(projector.rows("usage", head + 1_000n)).rejects.toThrow(
      `the read model usage stands at ${head} and did not move towards ${head + 1_000n} for 20 ms`,
    );
  });

  test("of an unknown projection are refused", async () => {
    const projector = await start({ projections: [usageProjection] });
    await expect(projector.rows("accounts", "start")).rejects.toThrow("no projection accounts");
  });
});

describe("restarts", () => {
  test("after a crash at any moment give the same rows as one run", async () => {
    for (let crashes = 0; crashes < 10; crashes += 1) {
      await start({ batchEventsMax: 7 });
      await live(37);
      crash();
    }
    const head = await live(1);
    const cut = await textOf(await start(), head);
    world.readModels = createMemoryReadModels();
    expect(await textOf(await start(), head)).toEqual(cut);
    expect(alarms).toEqual([]);
  });

  test("a clean stop has stored everything that was folded", async () => {
    const projector = await start({ batchMs: 60_000 });
    const head = await live(100);
    // The memory store hands events over in microtasks.
    await new Promise((resolve) => setImmediate(resolve));
    await projector.close();
    expect(await world.standsAt("usage")).toBe(head);
    await expect(projector.rows("usage", "start")).rejects.toThrow("stopped");
  });

  test("a crash stores nothing more", async () => {
    await start({ batchMs: 10 });
    await live(100);
    crash();
    await new Promise((resolve) => setTimeout(resolve, 40));
    expect(await world.standsAt("usage")).toBe("start");
  });

  test("read models that stand at different places catch up together, each event once", async () => {
    await live(100);
    await (
      await start({ projections: [usageProjection] })
    ).rows("usage", BigInt(await store.head()));
    crash();
    const head = await live(100);
    const mixed = await textOf(await start(), head);
    world.readModels = createMemoryReadModels();
    expect(await textOf(await start(), head)).toEqual(mixed);
  });

  test("a read model with rows that make no sense stands still at the event that needs them, and is mended by a rebuild", async () => {
    const before = await live(50);
    const { rows } = await (await start()).rows("accounts", before, ["orgs"]);
    crash();
    const gone = [...unpackRows(rows)].map(({ table, key }) => ({ table, key, value: null }));
    const damaged = await world.readModels.open("accounts", accountsProjection.version);
    await damaged.commit(gone, await world.checkpointAt(before));
    const projector = await start();
    const head = await live(50);
    await expect(projector.rows("accounts", head)).rejects.toThrow("which has no row");
    expect(alarms).toEqual(["projection_stopped"]);
    await projector.rebuild("accounts", () => undefined);
    const texts = await textOf(projector, head);
    world.readModels = createMemoryReadModels();
    expect(await textOf(await start(), head)).toEqual(texts);
  });

  test("a read model that is ahead of its store starts anew, with an alarm", async () => {
    await live(10);
    const strange = await world.readModels.open("accounts", accountsProjection.version);
    await strange.commit(
      [{ table: "orgs", key: "ghost", value: 1 }],
      await world.checkpointAt(1_000n),
    );
    const head = await live(10);
    const texts = await textOf(await start(), head);
    expect(alarms).toEqual(["read_model_ahead_of_store"]);
    expect(texts[0]).not.toContain("ghost");
  });
});

describe("a read model that was folded from other events starts anew, with an alarm", () => {
  const ghost = { table: "orgs", key: "ghost", value: 1 };
  const { name, version } = accountsProjection;

  test.each([
    ["another store", { store: "another store" }],
    ["another event at its position", { event: { id: "another event" } }],
    ["the same event, recorded at another time", { event: { recordedAt: 1 } }],
  ])("%s", async (_, changes: { store?: string; event?: object }) => {
    const head = await live(30);
    const checkpoint = await world.checkpointAt(head);
    const event = { ...checkpoint.event, ...changes.event };
    const strange = await world.readModels.open(name, version);
    await strange.commit([ghost], { ...checkpoint, ...changes, event });
    const texts = await textOf(await start(), head);
    expect(alarms).toEqual(["read_model_of_another_store"]);
    expect(texts[0]).not.toContain("ghost");
    world.readModels = createMemoryReadModels();
    expect(await textOf(await start(), head)).toEqual(texts);
  });

  test("and one that was not goes on", async () => {
    const head = await live(30);
    const known = { table: "orgs", key: "known", value: { orgId: "known", position: "start" } };
    const checkpoint = await world.checkpointAt(head);
    await (await world.readModels.open(name, version)).commit([known], checkpoint);
    expect((await textOf(await start(), head))[0]).toContain("known");
    expect(alarms).toEqual([]);
  });
});

describe("a read model that cannot be read", () => {
  let isBroken = true;

  /** Read models of which that of the accounts cannot be read while it is broken. */
  async function broken(): Promise<void> {
    await live(30);
    await textOf(await start(), (await world.store.head()) as bigint);
    crash();
    const inner = world.readModels;
    world.readModels = {
      ...inner,
      async open(name, version) {
        const model = await inner.open(name, version);
        return {
          ...model,
          rowsAt(...asked) {
            if (isBroken && name === "accounts") throw new Error("disk I/O error");
            return model.rowsAt(...asked);
          },
        };
      },
    };
    isBroken = true;
  }

  test("for a while keeps its projection waiting, and nothing is lost or folded twice", async () => {
    await broken();
    const projector = await start();
    const head = await live(50);
    await expect.poll(() => alarms).toContain("read_model_not_read");
    isBroken = false;
    const hindered = await textOf(projector, head);
    expect(new Set(alarms)).toEqual(new Set(["read_model_not_read"]));
    world.readModels = createMemoryReadModels();
    expect(await textOf(await start(), head)).toEqual(hindered);
  });

  test("for longer stands still alone, and the others go on", async () => {
    await broken();
    const clock = manualClock();
    const projector = await start({ clock });
    const early = await live(50);
    const rows = projector.rows("usage", early);
    await clock.advance(60_000);
    expect((await rows).position).toBe(early);
    expect(alarms).toContain("projection_stopped");
    expect((await projector.state()).stopped).toEqual(["accounts"]);
    const later = projector.rows("usage", await live(50));
    await clock.advance(1_000);
    expect((await later).position).toBe(await world.store.head());
  });
});

describe("a read model that cannot be stored", () => {
  test("is tried again until it can, and loses and skips nothing", async () => {
    let left = 3;
    world.readModels = failing(
      world.readModels,
      (name) => name === "usage" && left > 0 && left-- > 0,
    );
    const projector = await start({ batchEventsMax: 5 });
    const head = await live(200);
    const hindered = await textOf(projector, head);
    expect(alarms).toEqual(Array.from({ length: 3 }, () => "read_model_not_stored"));
    world.readModels = createMemoryReadModels();
    expect(await textOf(await start(), head)).toEqual(hindered);
  });

  test("stores what came in the meantime as well, with nobody asking", async () => {
    let fails = 1;
    const inner = world.readModels;
    world.readModels = failing(inner, () => fails > 0 && fails-- > 0);
    await start({ batchMs: 10 });
    await live(20);
    await expect.poll(() => alarms).toHaveLength(1);
    // One append, and none after it that would set off another commit.
    const head = await live(1);
    await expect.poll(() => world.standsAt("usage", inner)).toBe(head);
    expect(await world.standsAt("accounts", inner)).toBe(head);
  });

  test("reads no further meanwhile, so that what waits stays small", async () => {
    await live(100);
    let handed = 0;
    const pieces = { ...store };
    pieces.follow = async function* follow(options) {
      for await (const events of store.follow(options))
        for (let at = 0; at < events.length; at += 5) {
          handed += 5;
          yield events.slice(at, at + 5);
        }
    };
    world.readModels = failing(world.readModels, (name) => name === "usage");
    await start({ store: pieces, batchEventsMax: 10 });
    await expect.poll(() => alarms.length).toBeGreaterThan(1);
    expect(handed).toBe(10);
  });

  test("does not keep the others from what was folded, and refuses in time", async () => {
    world.readModels = failing(world.readModels, (name) => name === "usage");
    const projector = await start({ stillMsMax: 50 });
    const head = await live(50);
    expect((await projector.rows("accounts", head)).position).toBe(head);
    await expect(projector.rows("usage", head)).rejects.toThrow("stands at start");
  });
});

describe("an event that cannot be folded", () => {
  const broken: Projection = {
    ...managementProjection,
    handles: new Set(accountsProjection.handles),
    open: () => ({
      apply(event) {
        if (event.position === 60n) throw new RangeError("no such journal");
      },
      takeWrites: () => [],
    }),
  };

  test("stops its projection before it, with an alarm; the others go on", async () => {
    await live(100);
    const projector = await start({
      projections: [broken, usageProjection],
      batchEventsMax: 10,
    });
    const head = await live(10);
    expect((await projector.rows("usage", head)).position).toBe(head);
    expect(alarms).toContain("projection_stopped");
    await expect(projector.rows("management", "start")).rejects.toThrow(
      "the projection management stands still: no such journal",
    );
    const checkpoint = await world.standsAt("management");
    expect(checkpoint === "start" || checkpoint < 60n).toBe(true);
  });

  test("when the store cannot read it, everything stops before it, loudly", async () => {
    await live(30);
    const waiting = { ...store };
    waiting.follow = async function* follow(options) {
      for await (const events of store.follow(options)) {
        yield events.filter((event: RecordedEvent) => event.position < 20n);
        throw new UnreadableEvent("event Later.v9 at position 20 is of a type unknown here");
      }
    };
    const projector = await start({ store: waiting });
    await expect(projector.rows("accounts", 25n)).rejects.toThrow(
      "the projections stand still: event Later.v9 at position 20",
    );
    expect(alarms).toEqual(["event_unreadable"]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await world.standsAt("accounts")).toBe(19n);
  });

  test("a store that fails otherwise is followed again from where it was", async () => {
    let failures = 2;
    const flaky = { ...store };
    flaky.follow = async function* follow(options) {
      for await (const events of store.follow(options)) {
        yield events.slice(0, 5);
        if (failures > 0 && failures-- > 0) throw new Error("input/output error");
        yield events.slice(5);
      }
    };
    const head = await live(60);
    const texts = await textOf(await start({ store: flaky }), head);
    expect(alarms).toEqual(["event_store_not_followed", "event_store_not_followed"]);
    world.readModels = createMemoryReadModels();
    expect(await textOf(await start(), head)).toEqual(texts);
  });

  test("a store that was closed ends the waiting", async () => {
    const projector = await start();
    const waiting = projector.rows("accounts", 1_000n);
    await store.close();
    await expect(waiting).rejects.toThrow("the event store was closed");
  });
});
