import { expect, test } from "vitest";
import type { RecordedEvent } from "#domain/events/events.ts";
import { histories, recorded } from "#test/samples/histories.ts";
import { usageProjection } from "./usage.ts";

const events = recorded(histories(5, 3_000));

function rowsOf(some: readonly RecordedEvent[]) {
  const fold = usageProjection.open(
    () => [],
    () => undefined,
  );
  for (const event of some) if (usageProjection.handles.has(event.type)) fold.apply(event);
  return fold.takeWrites();
}

const requestsOf = (some: readonly RecordedEvent[]) =>
  rowsOf(some).flatMap((row) => (row.table === "requests" && row.value ? [row.value] : []));

test("one row for each request that ended, with the outcome of its last event", () => {
  const ended = events.flatMap((event) => {
    if (event.type === "UsageRecorded.v1") return [[event.data.requestId, "charged"]];
    if (event.type === "RequestReleased.v1") return [[event.data.requestId, "released"]];
    return event.type === "RequestExpired.v1" ? [[event.data.requestId, "expired"]] : [];
  });
  const rows = requestsOf(events);
  expect(rows.map((row) => [row.requestId, row.outcome])).toEqual(ended);
  expect(new Set(rows.map((row) => row.outcome)).size).toBe(3);
});

test("a charged request carries everything that its event says", () => {
  const event = events.find((one) => one.type === "UsageRecorded.v1");
  if (event?.type !== "UsageRecorded.v1") throw new Error("the history has no usage");
  const { data } = event;
  expect(requestsOf([event])).toEqual([
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
    },
  ]);
});

test("a late note stands in a row of its own under its request's id, whichever of the two was recorded first", () => {
  const note = events.find((one) => one.type === "UsageLate.v1");
  if (note?.type !== "UsageLate.v1") throw new Error("the history has no late note");
  const { requestId, orgId } = note.data;
  const end = events.find(
    (one) =>
      (one.type === "RequestReleased.v1" || one.type === "RequestExpired.v1") &&
      one.data.requestId === requestId,
  );
  if (!end) throw new Error("the note has no request");
  const tokens = { input: 1_200, output: 50 };
  const value = { requestId, orgId, atMs: note.recordedAt, providerCostMicro: 210, tokens };
  const late = { table: "late", key: requestId, value };
  const request = { table: "requests", key: requestId, value: requestsOf([end])[0] };
  expect(rowsOf([end, note])).toEqual([request, late]);
  expect(rowsOf([note, end])).toEqual([late, request]);
});

test("what a provider may bill beyond an estimate stands in the row; an event from before it was known says zero", () => {
  const event = events.find((one) => one.type === "UsageRecorded.v1");
  if (event?.type !== "UsageRecorded.v1") throw new Error("the history has no usage");
  const estimated = { ...event.data, billedBy: "estimate", unbilledMicro: 41 } as const;
  const unbilled = (data: typeof event.data) =>
    requestsOf([{ ...event, data, metadata: event.metadata }])[0]?.unbilledMicro;
  expect([unbilled(estimated), unbilled(event.data)]).toEqual([41, 0]);
});
