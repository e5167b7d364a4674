import { expect, test } from "vitest";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { newEvent, streams, type NewEvent, type RecordedEvent } from "#domain/events/events.ts";
import type { EventData, EventType } from "#domain/events/schemas.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { keepAlive, openJournal } from "#services/journal.ts";
import type { EventStore } from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import { registerWriter } from "#services/writers.ts";
import { admitted } from "#test/conformance/event-store/event-samples.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import { startLedger } from "./ledger.ts";
import { createSilenceWatch } from "./silence.ts";

const author = { region: "us", actor: "ledger" };
const OWN = 0;
const OTHER = 1;

/** A store with writers of the past and the accounts folded from it. */
async function region(writers: number) {
  const clock = manualClock();
  const store = createMemoryEventStore({ clock });
  for (let at = 0; at < writers; at++)
    await registerWriter(store, clock, author, { process: "gateway", instance: String(at) });
  async function write(writerEpoch: number, ...events: NewEvent[]) {
    const stream = streams.journal("us", writerEpoch);
    await store.append(stream, events, "no_stream");
  }
  const projector = await startProjector({
    store,
    clock,
    readModels: createMemoryReadModels(),
    signal: new AbortController().signal,
    onAlarm: () => {},
  });
  /** Drives the clock until the work is done. */
  async function run<T>(work: Promise<T>): Promise<T> {
    let isDone = false;
    const done = work.finally(() => (isDone = true));
    for (let turn = 0; !isDone && turn < 300; turn++) await clock.advance(100);
    return done;
  }
  return { clock, store, projector, write, run };
}

function sealBy(by: "writer" | "ledger", writerEpoch: number): NewEvent {
  const stream = streams.journal("us", writerEpoch);
  const metadata = { at: 1, ...author, $correlationId: stream, schema: 1 } as const;
  return newEvent(stream, "sealed", "JournalSealed.v1", { by }, metadata);
}

/** A watch of the ledger's own writer and others, of which one is written of as `other`, and events for it to see. */
async function watching(world?: Awaited<ReturnType<typeof region>>) {
  const { store, projector, run } = world ?? (await region(2));
  const watch = await run(createSilenceWatch({ projector, author }, OWN, await store.head()));
  let position = 100n;
  function event<T extends EventType>(
    stream: string,
    type: T,
    data: EventData<T>,
    revision = 0n,
  ): RecordedEvent {
    const metadata = { at: 1, ...author, $correlationId: "x", schema: 1 } as const;
    const { id } = newEvent(stream, String(position), type, data, metadata);
    return {
      id,
      type,
      data,
      metadata,
      stream,
      revision,
      position: position++,
      recordedAt: 1,
    } as unknown as RecordedEvent;
  }
  const alive = (epoch: number) => event(streams.journal("us", epoch), "WriterAlive.v1", {});
  const beat = (count: number) => {
    for (let at = 0; at < count; at++) watch.see(alive(OWN));
  };
  const silent = () => [...watch.silent()];
  return { watch, silent, event, alive, beat, other: streams.journal("us", OTHER) };
}

test("a writer is silent after six of our own signs of life without one of its own, and never ourselves", async () => {
  const { watch, silent, alive, beat } = await watching();
  beat(5);
  expect(silent()).toEqual([]);
  watch.see(alive(OTHER));
  beat(5);
  expect(silent()).toEqual([]);
  beat(1);
  expect(silent()).toEqual([OTHER]);
});

test("anything that a writer writes is a sign of its life; what others put into its journal is none", async () => {
  const { watch, silent, event, beat, other } = await watching();
  beat(3);
  watch.see(
    event(other, "UsageUndelivered.v1", {
      requestId: `req_${"0".repeat(26)}`,
      orgId: `org_${"0".repeat(26)}`,
    }),
  );
  beat(3);
  watch.see(event(other, "OwnerFenced.v1", { ownerEpoch: 2 }));
  watch.see(event(other, "JournalSealed.v1", { by: "ledger" }));
  expect(silent()).toEqual([]);
  beat(3);
  expect(silent()).toEqual([OTHER]);
});

test("a batch that is carried once more counts once", async () => {
  const { watch, silent, alive } = await watching();
  const beats = Array.from({ length: 4 }, () => alive(OWN));
  for (let time = 0; time < 3; time++) for (const beat of beats) watch.see(beat);
  expect(silent()).toEqual([]);
});

test("a silent writer is named again until it is forgotten: a seal may have failed half-way", async () => {
  const { watch, silent, beat } = await watching();
  beat(6);
  expect([silent(), silent()]).toEqual([[OTHER], []]);
  beat(6);
  expect(silent()).toEqual([OTHER]);
  watch.forget([OTHER]);
  beat(6);
  expect(silent()).toEqual([]);
});

test("a writer that lives after all is heard again; one that sealed its own journal is let go", async () => {
  const { watch, silent, event, alive, beat, other } = await watching();
  beat(6);
  silent();
  watch.see(alive(OTHER));
  beat(5);
  expect(silent()).toEqual([]);
  watch.see(event(other, "JournalSealed.v1", { by: "writer" }));
  beat(12);
  expect(silent()).toEqual([]);
});

test("a writer that registers later is watched from then on", async () => {
  const { watch, silent, event, beat } = await watching();
  watch.forget([OTHER]);
  beat(4);
  watch.see(
    event(streams.writers("us"), "WriterStarted.v1", { process: "gateway", instance: "late" }, 9n),
  );
  beat(5);
  expect(silent()).toEqual([]);
  beat(1);
  expect(silent()).toEqual([9]);
});

test("whoever was sealed with every hold ended before the watch began is not looked at", async () => {
  const world = await region(5);
  const { write } = world;
  await write(1, sealBy("writer", 1));
  await write(2, sealBy("ledger", 2));
  const journal = streams.journal("us", 3);
  await write(3, admitted(journal, 3), sealBy("ledger", 3));
  const { silent, beat } = await watching(world);
  beat(6);
  // One whose seal was not followed by the expiry of its hold, and one without a seal.
  expect(silent()).toEqual([3, 4]);
});

test("whoever is heard of while the one before is being sealed is not silent any more", async () => {
  const { watch, alive, beat } = await watching(await region(4));
  beat(6);
  const silent = watch.silent();
  expect(silent.next().value).toBe(1);
  watch.see(alive(2));
  expect([...silent]).toEqual([3]);
});

test("while the journal of a silent writer cannot be read what is recorded is carried on, and a stop ends all", async () => {
  const { clock, store: inner, projector, run } = await region(3);
  const stuck = Promise.withResolvers<never>();
  const isStuck = (stream: string) => stream === streams.journal("us", 1);
  const store: EventStore = {
    ...inner,
    read: (stream, options) =>
      isStuck(stream) && seen.includes("alive") ? stuck.promise : inner.read(stream, options),
  };
  const seen: string[] = [];
  const telemetry = { requestDone: () => {}, alarm: (what: string) => void seen.push(what) };
  const admission = createMemoryAdmission({ clock, server: "server-1" });
  const data = { process: "ledger", instance: "test" } as const;
  const writerEpoch = await registerWriter(store, clock, author, data);
  const journal = await openJournal({ store, clock, telemetry, author, writerEpoch });
  const directory = createMemoryKeyDirectory();
  const parts = { store, clock, telemetry, author, admission, directory, projector };
  let carriedTo: bigint | undefined;
  const onApplied = (_owner: number, position: bigint) => void (carriedTo = position);
  const death = { by: "silence" } as const;
  const ledger = await run(startLedger({ ...parts, writerEpoch, death, onApplied }));
  seen.push("alive");
  const stopBeats = keepAlive(journal, clock, author);
  await clock.advance(75_000);
  const tail = { from: "end", direction: "backward", max: 1 } as const;
  const [last] = await inner.read(streams.journal("us", writerEpoch), tail);
  expect(last?.type).toBe("WriterAlive.v1");
  await clock.advance(1_000);
  expect(carriedTo).toBe(last?.position);
  stuck.reject(new Error("no answer"));
  await clock.advance(1_000);
  expect(seen).toContain("ledger_seal_failed");
  const [sealed] = await inner.read(streams.journal("us", 2), tail);
  expect(sealed?.type).toBe("JournalSealed.v1");
  stopBeats();
  await run(ledger.stop());
});
