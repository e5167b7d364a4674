import { describe, expect, test } from "vitest";
import type { RecordedEvent } from "#domain/events/events.ts";
import { auditAll } from "#domain/invariants.ts";
import { INVARIANTS, type Invariant } from "#domain/invariants/found.ts";
import { runSeed } from "./run.ts";

/** Every checker must be able to fail: each is shown a real history with one thing in it changed. */

type Events = RecordedEvent[];

function first<T extends RecordedEvent["type"]>(
  events: Events,
  type: T,
): { at: number; event: Extract<RecordedEvent, { type: T }> } {
  const at = events.findIndex((event) => event.type === type);
  const event = events[at];
  if (event?.type !== type) throw new Error(`the history has no ${type}`);
  return { at, event: event as Extract<RecordedEvent, { type: T }> };
}

/** Puts one event in another's place with some of its data changed. */
function edit<T extends RecordedEvent["type"]>(
  events: Events,
  type: T,
  change: (data: Extract<RecordedEvent, { type: T }>["data"]) => object,
): Events {
  const { at, event } = first(events, type);
  const data = { ...event.data, ...change(event.data as never) };
  return events.with(at, { ...event, data });
}

/** The history with an event added behind its end, in a stream that goes on. */
function append(events: Events, like: RecordedEvent, changes: Partial<RecordedEvent>): Events {
  const stream = changes.stream ?? like.stream;
  const revision = events.filter((event) => event.stream === stream).at(-1)?.revision ?? -1n;
  const last = events.at(-1);
  if (!last) throw new Error("the history has events");
  const position = last.position + 1n;
  const place = { position, revision: revision + 1n, recordedAt: last.recordedAt };
  return [...events, { ...like, id: "another", ...place, ...changes } as RecordedEvent];
}

const TAMPERINGS: readonly [Invariant, string, (events: Events) => Events][] = [
  [
    "NOSPEND",
    "a top-up that was smaller",
    (all) => edit(all, "CreditToppedUp.v1", () => ({ amountMicro: 1 })),
  ],
  [
    "LIAB",
    "a top-up that is there twice",
    (all) => {
      const { at, event } = first(all, "CreditToppedUp.v1");
      return all.toSpliced(at + 1, 0, event);
    },
  ],
  [
    "HOLDCAP",
    "a charge above its hold",
    (all) => edit(all, "UsageRecorded.v1", (data) => ({ chargedMicro: data.holdMicro + 1 })),
  ],
  ["CLOSE", "a second end", (all) => append(all, first(all, "RequestReleased.v1").event, {})],
  ["CLOSE", "an end that is not there", (all) => sealOpen(all)],
  [
    "MONO",
    "an owner epoch that is passed over",
    (all) => edit(all, "OwnerChanged.v1", () => ({ ownerEpoch: 7 })),
  ],
  ["MONO", "an event that is gone", (all) => all.toSpliced(5, 1)],
  ["FENCE", "a taking under an old owner", (all) => takingUnderOldOwner(all)],
  [
    "IDEMP",
    "a request that is admitted twice",
    (all) => append(all, first(all, "RequestAdmitted.v1").event, {}),
  ],
  [
    "PRICE",
    "one token more",
    (all) =>
      edit(all, "UsageRecorded.v1", (data) => ({
        tokens: { ...data.tokens, output: (data.tokens.output ?? 0) + 1 },
      })),
  ],
  [
    "ROUND",
    "a residual that is another",
    (all) => edit(all, "UsageRecorded.v1", (data) => ({ residualPico: data.residualPico + 1 })),
  ],
];

/** A hold whose end was taken out, in a journal that is then sealed. */
function sealOpen(all: Events): Events {
  const { at, event } = first(all, "RequestReleased.v1");
  const seal = { type: "JournalSealed.v1", data: { by: "ledger" }, stream: event.stream } as const;
  return append(all.toSpliced(at, 1), event, seal);
}

function takingUnderOldOwner(all: Events): Events {
  const { event } = first(all, "RequestAdmitted.v1");
  const requestId = "req_00000000000000000000000000";
  const data = { ...event.data, requestId, ownerEpoch: 0 };
  return append(all, event, { data });
}

describe("the invariants of the books", async () => {
  const { world, broken } = await runSeed(3, 6_000);
  const history = [...world.watch.events];

  test("hold over a real history", () => {
    expect(broken).toBeUndefined();
    expect(history.length).toBeGreaterThan(100);
    expect(auditAll(history)).toEqual([]);
  });

  test.each(TAMPERINGS)("%s finds %s", (invariant, _what, tamper) => {
    const found = auditAll(tamper(history)).map((violation) => violation.invariant);
    expect(found).toContain(invariant);
  });

  test("each has a tampering that it finds", () => {
    const named = new Set(TAMPERINGS.map(([invariant]) => invariant));
    expect(INVARIANTS.filter((invariant) => !named.has(invariant))).toEqual([]);
  });
});
