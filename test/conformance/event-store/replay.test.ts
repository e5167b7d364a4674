import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { array, assert, asyncProperty, integer } from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "#infra/clock.ts";
import { openSqliteEventReader } from "#infra/event-store/sqlite-reader.ts";
import { openSqliteEventStore, type SqliteEventStore } from "#infra/event-store/sqlite.ts";
import { openSqliteReadModels } from "#infra/read-models/sqlite.ts";
import { PROJECTIONS } from "#projections/all.ts";
import { unpackRows } from "#projections/rows.ts";
import type { Checkpoint, EventStore } from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import { histories } from "#test/samples/histories.ts";

/**
 * Replay: every read model that is deleted and folded again from the stored events is what it was when it was live,
 * byte for byte, for any batch size and wherever the fold was stopped and started again.
 */

const EVENTS = 3_000;
const clock = systemClock();
const root = mkdtempSync(join(tmpdir(), "relai-replay-"));
const eventStorePath = join(root, "events.sqlite");

let store: SqliteEventStore;
let head: bigint;
/** The rows of each read model as they were folded while the events were being appended. */
let live: string[];
let folders = 0;

function newFolder(): string {
  folders += 1;
  return join(root, `read-models-${folders}`);
}

type Source = Omit<EventStore, "append" | "fence" | "read">;

/** Folds on a folder, up to the head or until `stopAt` events were handed out; then stops as a crash would. */
async function fold(
  folder: string,
  source: Source,
  options: { batchEventsMax: number; stopAt?: number },
): Promise<void> {
  const { batchEventsMax, stopAt = Infinity } = options;
  const readModels = openSqliteReadModels({ folder, onDropped: failOn });
  const stop = new AbortController();
  const reached = Promise.withResolvers<void>();
  let handed = 0;
  const counted: Source = {
    head: () => source.head(),
    identity: () => source.identity(),
    eventAt: (position) => source.eventAt(position),
    async *follow(following) {
      for await (const events of source.follow(following)) {
        // Odd pieces, so that batches do not end where the store's own slices do.
        for (let at = 0; at < events.length; at += 97) {
          yield events.slice(at, at + 97);
          handed += 97;
          if (handed >= stopAt) reached.resolve();
        }
      }
    },
  };
  const projector = await startProjector({
    store: counted,
    readModels,
    clock,
    batchMs: 1,
    batchEventsMax,
    signal: stop.signal,
    onAlarm: failOn,
  });
  if (stopAt === Infinity) for (const { name } of PROJECTIONS) await projector.rows(name, head);
  else await reached.promise;
  stop.abort();
  await projector.close();
  await readModels.close();
}

function failOn(what: string, more: unknown): void {
  throw new Error(`${what}: ${JSON.stringify(more)}`);
}

async function textsOf(folder: string): Promise<string[]> {
  const readModels = openSqliteReadModels({ folder, onDropped: failOn });
  const texts: string[] = [];
  for (const { name, version } of PROJECTIONS) {
    const model = await readModels.open(name, version);
    texts.push(
      `${placeIn(await model.checkpoint())} ${JSON.stringify([...unpackRows(await model.rows())])}`,
    );
  }
  await readModels.close();
  return texts;
}

beforeAll(async () => {
  store = await openSqliteEventStore({ path: eventStorePath, clock });
  const folder = newFolder();
  const readModels = openSqliteReadModels({ folder, onDropped: failOn });
  const signal = new AbortController().signal;
  const projector = await startProjector({
    store,
    readModels,
    clock,
    batchMs: 10,
    signal,
    onAlarm: failOn,
  });
  const revisions = new Map<string, bigint>();
  for (const { stream, events } of histories(97, EVENTS)) {
    const answer = await store.append(stream, events, revisions.get(stream) ?? "no_stream");
    if (answer.outcome !== "appended") throw new Error(`not appended: ${answer.outcome}`);
    revisions.set(stream, answer.revision);
    head = answer.position;
  }
  for (const { name } of PROJECTIONS) await projector.rows(name, head);
  await projector.close();
  await readModels.close();
  live = await textsOf(folder);
});
afterAll(async () => {
  await store.close();
  rmSync(root, { recursive: true });
});

test("the live read models are worth comparing", () => {
  expect(head).toBeGreaterThanOrEqual(BigInt(EVENTS));
  for (const text of live) {
    expect(text.startsWith(`${head} `)).toBe(true);
    expect(text.length).toBeGreaterThan(1_000);
  }
});

test.for([1, 10, 333, 10_000])(
  "every read model deleted and folded again in batches of %i is as it was",
  async (batchEventsMax) => {
    const folder = newFolder();
    await fold(folder, store, { batchEventsMax });
    expect(await textsOf(folder)).toEqual(live);
  },
);

test("another thread's reader of the file gives the same", async () => {
  const reader = openSqliteEventReader({ path: eventStorePath, clock, pollMs: 10 });
  const folder = newFolder();
  await fold(folder, reader, { batchEventsMax: 1_000 });
  await reader.close();
  expect(await textsOf(folder)).toEqual(live);
});

test("any batch size, stopped and started again anywhere: the same rows", async () => {
  const stops = array(integer({ min: 1, max: EVENTS / 2 }), { maxLength: 6 });
  const sizes = integer({ min: 1, max: 2_000 });
  const property = asyncProperty(sizes, stops, async (batchEventsMax, stopsAt) => {
    const folder = newFolder();
    for (const stopAt of stopsAt) {
      // A stop further on than what is left would never come.
      const left = EVENTS - (await placeOf(folder));
      if (stopAt < left) await fold(folder, store, { batchEventsMax, stopAt });
    }
    await fold(folder, store, { batchEventsMax });
    expect(await textsOf(folder)).toEqual(live);
  });
  await assert(property, { numRuns: 15, seed: 4 });
});

const placeIn = (checkpoint: Checkpoint | "start") =>
  checkpoint === "start" ? checkpoint : String(checkpoint.position);

/** Where the read model that is furthest behind stands, as a number. */
async function placeOf(folder: string): Promise<number> {
  const readModels = openSqliteReadModels({ folder, onDropped: failOn });
  let place = Infinity;
  for (const { name, version } of PROJECTIONS) {
    const checkpoint = await (await readModels.open(name, version)).checkpoint();
    place = Math.min(place, checkpoint === "start" ? 0 : Number(checkpoint.position));
  }
  await readModels.close();
  return place;
}
