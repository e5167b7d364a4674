import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import { unpackRows } from "#projections/rows.ts";
import { usageProjection } from "#projections/usage.ts";
import type { RebuildProgress } from "#services/ports.ts";
import { failing, projectorWorld, type ProjectorWorld } from "#test/worlds/projector-world.ts";

let world: ProjectorWorld;
let { start, live, textOf, alarms } = {} as ProjectorWorld;
beforeEach(() => {
  world = projectorWorld();
  ({ start, live, textOf, alarms } = world);
});
afterEach(() => world.close());

describe("rebuild", () => {
  test("gives the same rows, while events keep coming, and tells of its progress", async () => {
    const projector = await start({ batchEventsMax: 50 });
    await live(2_500);
    const told: RebuildProgress[] = [];
    const rebuilt = projector.rebuild("accounts", (progress) => told.push(progress));
    const during = await live(100);
    const done = await rebuilt;
    expect(done.position).not.toBe("start");
    expect(BigInt(done.position)).toBeGreaterThanOrEqual(2_500n);
    expect(told.length).toBeGreaterThan(2);
    expect(told.map((one) => one.eventsDone)).toEqual(
      told.map((one) => one.eventsDone).toSorted((one, two) => one - two),
    );
    const head = await live(50);
    expect(head).toBeGreaterThan(during);
    const texts = await textOf(projector, head);
    world.readModels = createMemoryReadModels();
    expect(await textOf(await start(), head)).toEqual(texts);
  });

  test("starts from nothing, even when the rows in use are wrong", async () => {
    const head = await live(100);
    const wrong = await world.readModels.open("usage", usageProjection.version);
    const ghost = { table: "requests", key: "ghost", value: { requestId: "ghost" } };
    await wrong.commit([ghost], await world.checkpointAt(head));
    const projector = await start();
    expect(JSON.stringify((await projector.rows("usage", head)).rows)).toContain("ghost");
    await projector.rebuild("usage", () => undefined);
    const { rows } = await projector.rows("usage", head);
    expect(JSON.stringify(rows)).not.toContain("ghost");
    expect([...unpackRows(rows)].length).toBeGreaterThan(10);
  });

  test("of an empty store is done at once", async () => {
    const projector = await start();
    expect(await projector.rebuild("usage", () => undefined)).toEqual({
      projection: "usage",
      eventsDone: 0,
      position: "start",
      head: "start",
    });
  });

  test("is refused while one is running, and allowed afterwards", async () => {
    const projector = await start();
    await live(100);
    const first = projector.rebuild("usage", () => undefined);
    await expect(projector.rebuild("accounts", () => undefined)).rejects.toThrow(
      "the read model usage is being rebuilt",
    );
    await first;
    await projector.rebuild("accounts", () => undefined);
  });

  test("brings back a projection that stands still", async () => {
    let damaged = true;
    const fragile: typeof usageProjection = {
      ...usageProjection,
      open(rows, onFault) {
        const fold = usageProjection.open(rows, onFault);
        return {
          ...fold,
          apply(event) {
            if (damaged) throw new Error("a defect");
            fold.apply(event);
          },
        };
      },
    };
    const projector = await start({ projections: [fragile] });
    const head = await live(100);
    await expect(projector.rows("usage", head)).rejects.toThrow("a defect");
    damaged = false;
    await projector.rebuild("usage", () => undefined);
    const later = await live(20);
    expect((await projector.rows("usage", later)).position).toBe(later);
  });

  test("that fails leaves the read model in use as it was", async () => {
    const head = await live(100);
    let full = false;
    world.readModels = failing(world.readModels, (_, verb) => full && verb === "commit");
    const projector = await start();
    const before = await projector.rows("usage", head);
    full = true;
    await expect(projector.rebuild("usage", () => undefined)).rejects.toThrow("full");
    full = false;
    expect(await projector.rows("usage", head)).toEqual(before);
  });

  test("is silent: what was told once is not told again", async () => {
    await live(20);
    const faulty: typeof usageProjection = {
      ...usageProjection,
      open(rows, onFault) {
        const fold = usageProjection.open(rows, onFault);
        return {
          ...fold,
          apply(event) {
            onFault("told", {});
            fold.apply(event);
          },
        };
      },
    };
    const projector = await start({ projections: [faulty] });
    const head = await live(100);
    await projector.rows("usage", head);
    const told = alarms.length;
    expect(told).toBeGreaterThan(0);
    await projector.rebuild("usage", () => undefined);
    expect(alarms).toHaveLength(told);
    const later = await live(50);
    await projector.rows("usage", later);
    expect(alarms.length).toBeGreaterThan(told);
  });
});
