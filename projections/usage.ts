import type { Recorded } from "#domain/events/events.ts";
import type { EventData } from "#domain/events/schemas.ts";
import { settingProjection } from "./projection.ts";
import type { ReadModelRow } from "./rows.ts";

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

/** One row per request, keyed by its id. Amounts are set from one event, never added up, so a replay is exact. */
export const usageProjection = settingProjection<"usage", UsageRow>({
  name: "usage",
  version: 2,
  writes: {
    "UsageRecorded.v1": (event) => requestRow(event, "charged"),
    "RequestReleased.v1": (event) => requestRow(event, "released"),
    "RequestExpired.v1": (event) => requestRow(event, "expired"),
    "UsageLate.v1": ({ data, recordedAt: atMs }) => {
      const { requestId, orgId, tokens, providerCostMicro } = data;
      const value = { requestId, orgId, atMs, providerCostMicro, tokens };
      return { table: "late", key: requestId, value };
    },
  },
});

function requestRow(
  event: Recorded<"UsageRecorded.v1" | "RequestReleased.v1" | "RequestExpired.v1">,
  outcome: RequestRow["outcome"],
): UsageRow {
  const { requestId, orgId, keyId, processingArea } = event.data;
  /** What only some of the ways to end have to say. */
  const said: Partial<Usage & EventData<"RequestReleased.v1">> = event.data;
  const value: RequestRow = {
    requestId,
    orgId,
    keyId,
    region: event.metadata.region,
    processingArea,
    atMs: event.recordedAt,
    reason: said.reason ?? null,
    model: said.model ?? null,
    bindingId: said.bindingId ?? null,
    host: said.attempts?.at(-1)?.host ?? null,
    priceVersion: said.priceVersion ?? null,
    tokens: said.tokens ?? {},
    chargedMicro: said.chargedMicro ?? 0,
    overHoldMicro: said.overHoldMicro ?? 0,
    providerCostMicro: said.providerCostMicro ?? 0,
    unbilledMicro: said.unbilledMicro ?? 0,
    billedBy: said.billedBy ?? null,
    clientGone: said.clientGone ?? null,
    finish: said.finish ?? null,
    firstByteMs: said.firstByteMs ?? null,
    durationMs: said.durationMs ?? null,
    outcome,
  };
  return { table: "requests", key: requestId, value };
}
