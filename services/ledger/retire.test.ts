import { expect, test } from "vitest";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import { newEvent, streams, type NewEvent } from "#domain/events/events.ts";
import type { EventStore } from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import { registerWriter } from "#services/writers.ts";
import { admitted, usage } from "#test/conformance/event-store/event-samples.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { retire, sealJournals } from "./retire.ts";

const author = { region: "us", actor: "ledger" };

function sealOf(stream: string): NewEvent {
  const metadata = { at: 1, ...author, $correlationId: stream, schema: 1 } as const;
  return newEvent(stream, "sealed", "JournalSealed.v1", { by: "ledger" }, metadata);
}

/** A store with registered writers, and whoever wants to be faster than the seal. */
async function retiring(writers: number) {
  const clock = manualClock();
  const inner = createMemoryEventStore({ clock });
  let beforeSeal: ((stream: string) => Promise<unknown>) | undefined;
  const reads: string[] = [];
  const store: EventStore = {
    ...inner,
    read(stream, options) {
      reads.push(stream);
      return inner.read(stream, options);
    },
    async append(stream, events, expected) {
      if (events[0]?.type === "JournalSealed.v1") await beforeSeal?.(stream);
      return inner.append(stream, events, expected);
    },
  };
  for (let at = 0; at < writers; at++)
    await registerWriter(store, clock, author, { process: "gateway", instance: String(at) });
  const projector = await startProjector({
    store,
    clock,
    readModels: createMemoryReadModels(),
    signal: new AbortController().signal,
    onAlarm: () => {},
  });
  const parts = { store, clock, projector, author };
  /** Drives the clock until the work is done. */
  async function run<T>(work: Promise<T>): Promise<T> {
    let isDone = false;
    const done = work.finally(() => (isDone = true));
    for (let turn = 0; !isDone && turn < 300; turn++) await clock.advance(300);
    return done;
  }
  return {
    parts,
    run,
    /** The streams that were read since this was last asked. */
    takeReads: () => reads.splice(0),
    interrupt: (by: typeof beforeSeal) => (beforeSeal = by),
    async types(epoch: number) {
      const stream = streams.journal("us", epoch);
      return (await inner.read(stream, { from: "start", direction: "forward", max: 2_000 })).map(
        (event) => event.type,
      );
    },
    async write(epoch: number, make: (stream: string) => NewEvent) {
      const stream = streams.journal("us", epoch);
      const [last] = await inner.read(stream, { from: "end", direction: "backward", max: 1 });
      await inner.append(stream, [make(stream)], last?.revision ?? "no_stream");
    },
    async expired(epoch: number) {
      const stream = streams.journal("us", epoch);
      const events = await inner.read(stream, { from: "start", direction: "forward", max: 2_000 });
      return events.flatMap((event) => (event.type === "RequestExpired.v1" ? [event.data] : []));
    },
  };
}

test("a dead writer is sealed, also one that never wrote; a live one is fenced, also before its first word", async () => {
  const world = await retiring(4);
  await world.write(1, (stream) => admitted(stream, 1));
  await world.write(3, (stream) => admitted(stream, 3));
  await world.run(retire(world.parts, 5, (epoch) => (epoch < 2 ? "seal" : "fence")));
  expect(await world.types(0)).toEqual(["JournalSealed.v1"]);
  expect(await world.types(1)).toEqual([
    "RequestAdmitted.v1",
    "JournalSealed.v1",
    "RequestExpired.v1",
  ]);
  expect(await world.types(2)).toEqual(["OwnerFenced.v1"]);
  expect(await world.types(3)).toEqual(["RequestAdmitted.v1", "OwnerFenced.v1"]);
  // Once more changes nothing.
  await world.run(retire(world.parts, 5, (epoch) => (epoch < 2 ? "seal" : "fence")));
  expect(await world.types(1)).toHaveLength(3);
  expect(await world.types(3)).toHaveLength(2);
});

test("a start reads the journals only of writers that are not known as sealed with every hold ended", async () => {
  const world = await retiring(200);
  for (let epoch = 0; epoch < 200; epoch++)
    await world.write(epoch, (stream) => admitted(stream, epoch));
  await world.run(retire(world.parts, 1, () => "seal"));
  for (let at = 200; at < 203; at++)
    await registerWriter(world.parts.store, world.parts.clock, author, {
      process: "gateway",
      instance: String(at),
    });
  await world.write(201, (stream) => admitted(stream, 201));
  world.takeReads();
  await world.run(retire(world.parts, 2, (epoch) => (epoch < 202 ? "seal" : "fence")));
  // The open hold is read as well, for its expiry.
  expect(world.takeReads().sort()).toEqual([
    "journal-us-200",
    "journal-us-201",
    "journal-us-201",
    "journal-us-202",
  ]);
  expect(await world.types(201)).toEqual([
    "RequestAdmitted.v1",
    "JournalSealed.v1",
    "RequestExpired.v1",
  ]);
});

test("a journal that was sealed by a process which died before it had expired every hold is completed", async () => {
  const world = await retiring(2);
  await world.write(0, (stream) => admitted(stream, 1));
  await world.write(0, (stream) => admitted(stream, 2));
  await world.write(0, sealOf);
  const { head } = world.parts.store;
  const mark = await world.run(retire(world.parts, 5, (epoch) => (epoch < 1 ? "seal" : "fence")));
  expect((await world.types(0)).slice(2)).toEqual([
    "JournalSealed.v1",
    "RequestExpired.v1",
    "RequestExpired.v1",
  ]);
  expect(mark).toBe(await head());
});

test("the mark lies behind every seal, also one that came after the accounts were read, and behind the claim", async () => {
  const world = await retiring(3);
  await world.write(0, (stream) => admitted(stream, 1));
  await world.write(0, (stream) => usage(stream, 1));
  await world.write(0, sealOf);
  const claimed = await world.parts.store.head();
  const { rows } = world.parts.projector;
  world.parts.projector.rows = async (...asked) => {
    const found = await rows(...asked);
    await world.write(1, (stream) => admitted(stream, 2));
    await world.write(1, sealOf);
    return found;
  };
  const mark = await world.run(retire(world.parts, 5, () => "fence"));
  const [last] = await world.parts.store.read("journal-us-1", {
    from: "end",
    direction: "backward",
    max: 1,
  });
  expect(last?.type).toBe("JournalSealed.v1");
  expect(mark).toBeGreaterThan(last?.position ?? 0n);
  expect(mark).toBeGreaterThan(claimed === "start" ? 0n : claimed);
  expect(await world.types(2)).toEqual(["OwnerFenced.v1"]);
});

test("a writer that registered just before the claim is retired although nobody has folded it yet", async () => {
  const world = await retiring(1);
  await world.parts.projector.rows("accounts", await world.parts.store.head());
  await registerWriter(world.parts.store, world.parts.clock, author, {
    process: "gateway",
    instance: "late",
  });
  await world.run(retire(world.parts, 5, () => "fence"));
  expect(await world.types(1)).toEqual(["OwnerFenced.v1"]);
});

test("every open hold expires once, with its own last word, and those that ended do not", async () => {
  const world = await retiring(1);
  for (const number of [1, 2, 3]) await world.write(0, (stream) => admitted(stream, number));
  await world.write(0, (stream) => usage(stream, 2));
  const { complete } = await world.run(sealJournals(world.parts, [0], "again"));
  expect(complete).toEqual([0]);
  const sample = admitted("journal-us-0", 1).data;
  expect(await world.expired(0)).toMatchObject(
    [1, 3].map((number) => ({
      requestId: admitted("journal-us-0", number).data.requestId,
      holdMicro: sample.holdMicro,
      unbilledMicro: sample.holdCostMicro,
      accounts: sample.accounts,
    })),
  );
});

test("more holds than one append takes are expired in several, and a seal that broke off is completed", async () => {
  const world = await retiring(1);
  const count = 700;
  for (let number = 0; number < count; number++)
    await world.write(0, (stream) => admitted(stream, number));
  const { store } = world.parts;
  const { append } = store;
  let appends = 0;
  store.append = (stream, events, expected) => {
    appends += 1;
    return appends === 2
      ? Promise.resolve({ outcome: "refused", reason: "disk_full" })
      : append(stream, events, expected);
  };
  await expect(world.run(sealJournals(world.parts, [0], "again"))).rejects.toThrow("disk_full");
  expect((await world.expired(0)).length).toBeLessThan(count);
  await world.run(sealJournals(world.parts, [0], "again"));
  const ids = (await world.expired(0)).map((data) => data.requestId);
  expect([ids.length, new Set(ids).size]).toEqual([count, count]);
  expect((await world.types(0)).filter((type) => type === "JournalSealed.v1")).toHaveLength(1);
});

test("a writer that was only slow wins against its seal: the seal looks again, or leaves it alone", async () => {
  const world = await retiring(2);
  let number = 10;
  let isOnce = true;
  world.interrupt(async (stream) => {
    if (isOnce) await world.write(Number(stream.slice(-1)), () => admitted(stream, number++));
    isOnce = false;
  });
  await world.run(sealJournals(world.parts, [0], "again"));
  expect(await world.types(0)).toEqual([
    "RequestAdmitted.v1",
    "JournalSealed.v1",
    "RequestExpired.v1",
  ]);
  isOnce = true;
  const { complete } = await world.run(sealJournals(world.parts, [1], "leave"));
  expect(complete).toEqual([]);
  expect(await world.types(1)).toEqual(["RequestAdmitted.v1"]);
});

test("an expiry is found by its journal's own revision, and nothing else is taken for it", async () => {
  const world = await retiring(1);
  await world.write(0, (stream) => admitted(stream, 1));
  const rows = world.parts.projector.rows.bind(world.parts.projector);
  world.parts.projector.rows = async (...asked) => {
    const found = await rows(...asked);
    for (const piece of found.rows as unknown as { json: string }[])
      piece.json = piece.json.replace('"revision":0', '"revision":7');
    return found;
  };
  await expect(world.run(sealJournals(world.parts, [0], "again"))).rejects.toThrow(
    "no hold at revision 7",
  );
});
