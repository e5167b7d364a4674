import type { Recorded, RecordedEvent } from "#domain/events/events.ts";
import type { Attempt, EventData } from "#domain/events/schemas.ts";
import { settingFold, type Projection } from "./projection.ts";
import type { ReadModelRow, ReadModelWrite } from "./rows.ts";

/** What one request used and cost, as its last event says. Null stands where that event has nothing to say. Money in micro. */
export type RequestRow = Pick<
  Usage,
  "requestId" | "orgId" | "keyId" | "processingArea" | Counted
> & {
  readonly [Member in Said]: Usage[Member] | null;
} & {
  /** Where the event was written. */
  readonly region: string;
  /** When the request's end was recorded, by the store's own time. */
  readonly atMs: number;
  readonly outcome: "charged" | "released" | "expired";
  /** Why a released request was released. */
  readonly reason: string | null;
  /** The host that was tried last. */
  readonly host: string | null;
  readonly unbilledMicro: number;
};
type Usage = EventData<"UsageRecorded.v1">;
type Counted = "tokens" | "chargedMicro" | "overHoldMicro" | "providerCostMicro";
type Said =
  | "model"
  | "bindingId"
  | "priceVersion"
  | "billedBy"
  | "clientGone"
  | "finish"
  | "firstByteMs"
  | "durationMs";

/**
 * Late notes stand in a table of their own and are joined by whoever reads: a note may be recorded before the event that ends
 * its request, and no fold has to keep rows in memory to find one again.
 */
type LateRow = Omit<EventData<"UsageLate.v1">, "epoch"> & { readonly atMs: number };
export type UsageRow = ReadModelRow<"requests", RequestRow> | ReadModelRow<"late", LateRow>;
type Write = ReadModelWrite<UsageRow>;

/** One row per request, keyed by its id. Amounts are set from one event, never added up, so a replay is exact. */
export const usageProjection: Projection<"usage", UsageRow> = {
  name: "usage",
  version: 2,
  handles: new Set(["UsageRecorded.v1", "RequestReleased.v1", "RequestExpired.v1", "UsageLate.v1"]),
  resumes: false,
  open: () => settingFold<UsageRow>(writeOf),
};

function writeOf(event: RecordedEvent): Write | undefined {
  if (event.type === "UsageRecorded.v1") return request(charged(event));
  if (event.type === "RequestReleased.v1") return request(released(event));
  if (event.type === "RequestExpired.v1") {
    const { unbilledMicro } = event.data;
    return request({ ...ended(event), outcome: "expired", unbilledMicro });
  }
  return event.type === "UsageLate.v1" ? late(event) : undefined;
}

function late(event: Recorded<"UsageLate.v1">): Write {
  const { requestId, orgId, tokens, providerCostMicro } = event.data;
  const value = { requestId, orgId, atMs: event.recordedAt, providerCostMicro, tokens };
  return { table: "late", key: requestId, value };
}

function request(value: RequestRow): Write {
  return { table: "requests", key: value.requestId, value };
}

/** What every way to end has in common, and null or zero for what only some of them say. */
function ended(
  event: Recorded<"UsageRecorded.v1" | "RequestReleased.v1" | "RequestExpired.v1">,
): Omit<RequestRow, "outcome"> {
  const { requestId, orgId, keyId, processingArea } = event.data;
  return {
    requestId,
    orgId,
    keyId,
    region: event.metadata.region,
    processingArea,
    atMs: event.recordedAt,
    reason: null,
    model: null,
    bindingId: null,
    host: null,
    priceVersion: null,
    tokens: {},
    chargedMicro: 0,
    overHoldMicro: 0,
    providerCostMicro: 0,
    unbilledMicro: 0,
    billedBy: null,
    clientGone: null,
    finish: null,
    firstByteMs: null,
    durationMs: null,
  };
}

function charged(event: Recorded<"UsageRecorded.v1">): RequestRow {
  const { data } = event;
  return {
    ...ended(event),
    outcome: "charged",
    model: data.model,
    bindingId: data.bindingId,
    host: lastHost(data.attempts),
    priceVersion: data.priceVersion,
    tokens: data.tokens,
    chargedMicro: data.chargedMicro,
    overHoldMicro: data.overHoldMicro,
    providerCostMicro: data.providerCostMicro,
    unbilledMicro: data.unbilledMicro ?? 0,
    billedBy: data.billedBy,
    clientGone: data.clientGone,
    finish: data.finish,
    firstByteMs: data.firstByteMs,
    durationMs: data.durationMs,
  };
}

function released(event: Recorded<"RequestReleased.v1">): RequestRow {
  const { reason, attempts, unbilledMicro, clientGone } = event.data;
  const host = lastHost(attempts);
  return { ...ended(event), outcome: "released", reason, host, unbilledMicro, clientGone };
}

function lastHost(attempts: readonly Attempt[]): string | null {
  return attempts.at(-1)?.host ?? null;
}
