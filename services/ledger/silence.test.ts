import { expect, test } from "vitest";
import { createMemoryEventStore } from "#test/memory-event-store.ts";
import { newEvent, streams, type RecordedEvent } from "#domain/events/events.ts";
import type { EventData, EventType } from "#domain/events/schemas.ts";
import { registerWriter } from "#services/writers.ts";
import { manualClock } from "#test/manual-clock.ts";
import { createSilenceWatch } from "./silence.ts";

const author = { region: "us", actor: "ledger" };
const OWN = 0;
const OTHER = 1;

/** A watch of the ledger's own writer and one other, and events for it to see. */
async function watching() {
  const clock = manualClock();
  const store = createMemoryEventStore({ clock });
  for (const instance of ["ledger", "gateway"])
    await registerWriter(store, clock, author, { process: "gateway", instance });
  const watch = await createSilenceWatch({ store, author }, OWN);
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
  return { watch, event, alive, beat, other: streams.journal("us", OTHER) };
}

test("a writer is silent after six of our own signs of life without one of its own, and never ourselves", async () => {
  const { watch, alive, beat } = await watching();
  beat(5);
  expect(watch.silent()).toEqual([]);
  watch.see(alive(OTHER));
  beat(5);
  expect(watch.silent()).toEqual([]);
  beat(1);
  expect(watch.silent()).toEqual([OTHER]);
});

test("anything that a writer writes is a sign of its life; what others put into its journal is none", async () => {
  const { watch, event, beat, other } = await watching();
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
  expect(watch.silent()).toEqual([]);
  beat(3);
  expect(watch.silent()).toEqual([OTHER]);
});

test("a batch that is carried once more counts once", async () => {
  const { watch, alive } = await watching();
  const beats = Array.from({ length: 4 }, () => alive(OWN));
  for (let time = 0; time < 3; time++) for (const beat of beats) watch.see(beat);
  expect(watch.silent()).toEqual([]);
});

test("a silent writer is named again until it is forgotten: a seal may have failed half-way", async () => {
  const { watch, beat } = await watching();
  beat(6);
  expect([watch.silent(), watch.silent()]).toEqual([[OTHER], []]);
  beat(6);
  expect(watch.silent()).toEqual([OTHER]);
  watch.forget([OTHER]);
  beat(6);
  expect(watch.silent()).toEqual([]);
});

test("a writer that lives after all is heard again; one that sealed its own journal is let go", async () => {
  const { watch, event, alive, beat, other } = await watching();
  beat(6);
  watch.silent();
  watch.see(alive(OTHER));
  beat(5);
  expect(watch.silent()).toEqual([]);
  watch.see(event(other, "JournalSealed.v1", { by: "writer" }));
  beat(12);
  expect(watch.silent()).toEqual([]);
});

test("a writer that registers later is watched from then on", async () => {
  const { watch, event, beat } = await watching();
  watch.forget([OTHER]);
  beat(4);
  watch.see(
    event(streams.writers("us"), "WriterStarted.v1", { process: "gateway", instance: "late" }, 9n),
  );
  beat(5);
  expect(watch.silent()).toEqual([]);
  beat(1);
  expect(watch.silent()).toEqual([9]);
});
