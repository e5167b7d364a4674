import type { Recorded, RecordedEvent } from "#domain/events/events.ts";
import type { Attempt, EventData } from "#domain/events/schemas.ts";
import { settingFold, type Projection } from "./projection.ts";
import type { JsonValue, ReadModelRow, ReadModelWrite } from "./rows.ts";

/** What one request used and cost, as its last event says. Null stands where that event has nothing to say. Money in micro. */
export type UsageRow = {
  readonly requestId: string;
  readonly orgId: string;
  readonly keyId: string;
  /** Where the event was written. */
  readonly region: string;
  readonly processingArea: string;
  /** When the request's end was recorded, by the store's own time. */
  readonly atMs: number;
  readonly outcome: "charged" | "released" | "expired";
  /** Why a released request was released. */
  readonly reason: string | null;
  readonly model: string | null;
  readonly bindingId: string | null;
  /** The host that was tried last. */
  readonly host: string | null;
  readonly priceVersion: string | null;
  readonly tokens: EventData<"UsageRecorded.v1">["tokens"];
  readonly chargedMicro: number;
  readonly overHoldMicro: number;
  readonly providerCostMicro: number;
  readonly unbilledMicro: number;
  readonly billedBy: "provider" | "estimate" | null;
  readonly clientGone: boolean | null;
  readonly finish: string | null;
  readonly firstByteMs: number | null;
  readonly durationMs: number | null;
};

/** A request with what a note said about it after it had ended. */
export type UsageRowWithLate = UsageRow & {
  readonly lateProviderCostMicro: number;
  readonly lateTokens: EventData<"UsageLate.v1">["tokens"];
};

const REQUESTS = "requests";
/**
 * Late notes stand in a table of their own and are joined when read: a note may be recorded before the event that ends
 * its request, and no fold has to keep rows in memory to find one again.
 */
const LATE = "late";

/** One row per request, keyed by its id. Amounts are set from one event, never added up, so a replay is exact. */
export const usageProjection: Projection = {
  name: "usage",
  version: 2,
  handles: new Set(["UsageRecorded.v1", "RequestReleased.v1", "RequestExpired.v1", "UsageLate.v1"]),
  resumes: false,
  open: () => settingFold(writeOf),
};

function writeOf(event: RecordedEvent): ReadModelWrite | undefined {
  if (event.type === "UsageRecorded.v1") return request(charged(event));
  if (event.type === "RequestReleased.v1") return request(released(event));
  if (event.type === "RequestExpired.v1") {
    const { unbilledMicro } = event.data;
    return request({ ...ended(event), outcome: "expired", unbilledMicro });
  }
  return event.type === "UsageLate.v1" ? late(event) : undefined;
}

function late(event: Recorded<"UsageLate.v1">): ReadModelWrite {
  const { requestId, orgId, tokens, providerCostMicro } = event.data;
  const value = { requestId, orgId, atMs: event.recordedAt, providerCostMicro, tokens };
  return { table: LATE, key: requestId, value };
}

function request(row: UsageRow): ReadModelWrite {
  return { table: REQUESTS, key: row.requestId, value: row satisfies JsonValue };
}

/** What every way to end has in common, and null or zero for what only some of them say. */
function ended(
  event: Recorded<"UsageRecorded.v1" | "RequestReleased.v1" | "RequestExpired.v1">,
): Omit<UsageRow, "outcome"> {
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

function charged(event: Recorded<"UsageRecorded.v1">): UsageRow {
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

function released(event: Recorded<"RequestReleased.v1">): UsageRow {
  const { reason, attempts, unbilledMicro, clientGone } = event.data;
  return {
    ...ended(event),
    outcome: "released",
    reason,
    host: lastHost(attempts),
    unbilledMicro,
    clientGone,
  };
}

function lastHost(attempts: readonly Attempt[]): string | null {
  return attempts.at(-1)?.host ?? null;
}

/**
 * The requests that the rows of this read model hold, with their late notes: zero and no tokens where there is none. A
 * note whose request has not ended yet is left out until it has.
 */
export function usageRows(rows: readonly ReadModelRow[]): UsageRowWithLate[] {
  // Rows of this version were written above, so they have these shapes.
  const notes = new Map(
    rows
      .filter((row) => row.table === LATE)
      .map((row) => [row.key, row.value as unknown as EventData<"UsageLate.v1">]),
  );
  return rows
    .filter((row) => row.table === REQUESTS)
    .map((row) => ({
      ...(row.value as unknown as UsageRow),
      lateProviderCostMicro: notes.get(row.key)?.providerCostMicro ?? 0,
      lateTokens: notes.get(row.key)?.tokens ?? {},
    }));
}
