import { expect } from "vitest";
import { systemClock } from "#infra/clock.ts";
import { createMemoryEventStore, type MemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import { PROJECTIONS, type ProjectionName } from "#projections/all.ts";
import type { Checkpoint, Projector, ReadModel, ReadModels } from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import type { ProjectorParts } from "#services/projector/running.ts";
import { histories, type Append } from "#test/samples/histories.ts";

const clock = systemClock();

/** A projector's world in memory: a store with a growing history, and read models that outlive a crash. */
export interface ProjectorWorld {
  readonly store: MemoryEventStore;
  readModels: ReadModels;
  /** The names of the alarms so far. */
  readonly alarms: string[];
  start(changes?: Partial<ProjectorParts>): Promise<Projector>;
  /** Stops every projector that was started, where it stands. */
  crash(): void;
  /** Appends about so many events of the history; gives the head's position. */
  live(events: number): Promise<bigint>;
  /** The rows of every read model at a position, as text. */
  textOf(projector: Projector, atLeast: bigint): Promise<string[]>;
  /** The checkpoint of a read model that was folded from this store up to a position. */
  checkpointAt(position: bigint): Promise<Checkpoint>;
  /** The position at which a read model stands on the disk. */
  standsAt(name: ProjectionName, readModels?: ReadModels): Promise<bigint | "start">;
  close(): Promise<void>;
}

export function projectorWorld(): ProjectorWorld {
  const store = createMemoryEventStore({ clock });
  const history: Generator<Append> = histories(21, Infinity);
  const running: Projector[] = [];
  let crash = new AbortController();
  const world: ProjectorWorld = {
    store,
    readModels: createMemoryReadModels(),
    alarms: [],
    async start(changes = {}) {
      const projector = await startProjector({
        store,
        readModels: world.readModels,
        clock,
        batchMs: 5,
        signal: crash.signal,
        onAlarm: (what) => world.alarms.push(what),
        ...changes,
      });
      running.push(projector);
      return projector;
    },
    crash() {
      crash.abort();
      crash = new AbortController();
    },
    async live(events) {
      for (let done = 0; done < events;) {
        const { value } = history.next() as { value: Append };
        const tail = await store.read(value.stream, { from: "end", direction: "backward", max: 1 });
        await store.append(value.stream, value.events, tail[0]?.revision ?? "no_stream");
        done += value.events.length;
      }
      return BigInt(await store.head());
    },
    async textOf(projector, atLeast) {
      const texts: string[] = [];
      for (const { name } of PROJECTIONS) {
        const { position, rows } = await projector.rows(name, atLeast);
        expect(position).toBe(atLeast);
        texts.push(JSON.stringify(rows));
      }
      return texts;
    },
    async checkpointAt(position) {
      const event = (await store.eventAt(position)) ?? { id: "of no event", recordedAt: 0 };
      return { store: await store.identity(), position, event };
    },
    async standsAt(name, readModels = world.readModels) {
      const version = PROJECTIONS.find((one) => one.name === name)?.version ?? 0;
      const checkpoint = await (await readModels.open(name, version)).checkpoint();
      return checkpoint === "start" ? checkpoint : checkpoint.position;
    },
    async close() {
      crash.abort();
      for (const projector of running) await projector.close();
      await store.close();
    },
  };
  return world;
}

/** Read models whose commits and swaps can be made to fail. */
export function failing(
  inner: ReadModels,
  fails: (name: string, verb: "commit" | "swapIn") => boolean,
) {
  const wrap = (name: string, model: ReadModel): ReadModel => ({
    checkpoint: () => model.checkpoint(),
    rows: (tables, slice) => model.rows(tables, slice),
    rowsAt: (tables, key) => model.rowsAt(tables, key),
    async commit(writes, checkpoint) {
      if (fails(name, "commit")) throw new Error("the disk is full");
      await model.commit(writes, checkpoint);
    },
  });
  return {
    open: async (name, version) => wrap(name, await inner.open(name, version)),
    openAside: async (name, version) => wrap(name, await inner.openAside(name, version)),
    async swapIn(name) {
      if (fails(name, "swapIn")) throw new Error("the disk is full");
      return wrap(name, await inner.swapIn(name));
    },
    close: () => inner.close(),
  } satisfies ReadModels;
}
