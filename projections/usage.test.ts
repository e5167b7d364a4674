import { expect, test } from "vitest";
import type { RecordedEvent } from "#domain/events/events.ts";
import { histories, recorded } from "#test/histories.ts";
import { packRows } from "#test/pack-rows.ts";
import { usageProjection, usageRows } from "./usage.ts";

const events = recorded(histories(5, 3_000));

function rowsOf(some: readonly RecordedEvent[]) {
  const fold = usageProjection.open([], () => undefined);
  for (const event of some) if (usageProjection.handles.has(event.type)) fold.apply(event);
  return usageRows(packRows(fold.takeWrites()));
}

test("one row for each request that ended, with the outcome of its last event", () => {
  const ended = events.flatMap((event) => {
    if (event.type === "UsageRecorded.v1") return [[event.data.requestId, "charged"]];
    if (event.type === "RequestReleased.v1") return [[event.data.requestId, "released"]];
    return event.type === "RequestExpired.v1" ? [[event.data.requestId, "expired"]] : [];
  });
  const rows = rowsOf(events);
  expect(rows.map((row) => [row.requestId, row.outcome])).toEqual(ended);
  expect(new Set(rows.map((row) => row.outcome)).size).toBe(3);
});

test("a charged request carries everything that its event says", () => {
  const event = events.find((one) => one.type === "UsageRecorded.v1");
  if (event?.type !== "UsageRecorded.v1") throw new Error("the history has no usage");
  const { data } = event;
  expect(rowsOf([event])).toEqual([
    {
      requestId: data.requestId,
      orgId: data.orgId,
      keyId: data.keyId,
      region: "us",
      processingArea: "us",
      atMs: event.recordedAt,
      outcome: "charged",
      reason: null,
      model: "gpt-4o-mini",
      bindingId: "gpt-4o-mini@openai",
      host: "openai",
      priceVersion: data.priceVersion,
      tokens: data.tokens,
      chargedMicro: data.chargedMicro,
      overHoldMicro: data.overHoldMicro,
      providerCostMicro: data.providerCostMicro,
      unbilledMicro: 0,
      billedBy: "provider",
      clientGone: data.clientGone,
      finish: "stop",
      firstByteMs: 312,
      durationMs: 2_418,
      lateProviderCostMicro: 0,
      lateTokens: {},
    },
  ]);
});

test("a late note joins its request, whichever of the two was recorded first", () => {
  const note = events.find((one) => one.type === "UsageLate.v1");
  if (note?.type !== "UsageLate.v1") throw new Error("the history has no late note");
  const end = events.find(
    (one) =>
      (one.type === "RequestReleased.v1" || one.type === "RequestExpired.v1") &&
      one.data.requestId === note.data.requestId,
  );
  if (!end) throw new Error("the note has no request");
  for (const some of [
    [end, note],
    [note, end],
  ]) {
    expect(rowsOf(some)).toMatchObject([
      {
        requestId: note.data.requestId,
        lateProviderCostMicro: 210,
        lateTokens: { input: 1_200, output: 50 },
      },
    ]);
  }
  expect(rowsOf([note])).toEqual([]);
});

test("what a provider may bill beyond an estimate stands in the row; an event from before it was known says zero", () => {
  const event = events.find((one) => one.type === "UsageRecorded.v1");
  if (event?.type !== "UsageRecorded.v1") throw new Error("the history has no usage");
  const estimated = { ...event.data, billedBy: "estimate", unbilledMicro: 41 } as const;
  const unbilled = (data: typeof event.data) =>
    rowsOf([{ ...event, data, metadata: event.metadata }])[0]?.unbilledMicro;
  expect([unbilled(estimated), unbilled(event.data)]).toEqual([41, 0]);
});
