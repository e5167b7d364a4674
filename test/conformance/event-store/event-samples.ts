import { newEvent, type NewEvent } from "#domain/events/events.ts";
import type { EventMetadata } from "#domain/events/schemas.ts";

/** Events for the stores' tests: valid, of the size that production has, told apart by a number. */

const numbered = (prefix: string, number: number) =>
  `${prefix}_${String(number).padStart(26, "0")}`;

function metadata(correlationId: string): EventMetadata {
  return {
    at: 1_790_000_000_000,
    region: "us",
    actor: "gateway",
    $correlationId: correlationId,
    schema: 1,
  };
}

function requestFields(number: number) {
  return {
    requestId: numbered("req", number),
    orgId: numbered("org", 1),
    homeRegion: "us",
    keyId: numbered("key", 1),
    processingArea: "us",
    ownerEpoch: 3,
    accounts: [
      { account: numbered("key", 1), period: "budget:total", micro: 12_345 },
      {
        account: numbered("org", 1),
        period: "balance",
        micro: 12_345,
        lots: [{ lotId: numbered("lot", 1), pot: "paid" as const, micro: 12_345 }],
      },
    ],
    holdMicro: 12_345,
  };
}

export function admitted(
  stream: string,
  number: number,
  changes: { model?: string } = {},
): NewEvent<"RequestAdmitted.v1"> {
  const requestId = numbered("req", number);
  return newEvent(
    stream,
    `admitted:${requestId}`,
    "RequestAdmitted.v1",
    {
      ...requestFields(number),
      holdCostMicro: 11_111,
      model: "gpt-5-mini",
      bindingIds: ["gpt-5-mini@openai"],
      priceVersion: "2026-11:gpt-5-mini@openai",
      ...changes,
    },
    metadata(requestId),
  );
}

export function usage(stream: string, number: number): NewEvent<"UsageRecorded.v1"> {
  const requestId = numbered("req", number);
  return newEvent(
    stream,
    `usage:${requestId}`,
    "UsageRecorded.v1",
    {
      ...requestFields(number),
      model: "gpt-5-mini",
      bindingId: "gpt-5-mini@openai",
      priceVersion: "2026-11:gpt-5-mini@openai",
      serviceTier: "default",
      tokens: { input: 1_200, output: 300 },
      salePico: { input: 250_000, output: 2_000_000 },
      costPico: { input: 250_000, output: 2_000_000 },
      chargedMicro: 900,
      overHoldMicro: 0,
      residualPico: 0,
      providerCostMicro: 900,
      billedBy: "provider",
      clientGone: false,
      attempts: [{ host: "openai", hostKey: "default", outcome: "answered", status: 200 }],
      firstByteMs: 320,
      durationMs: 900,
      finish: "stop",
    },
    metadata(requestId),
  );
}

/** `count` admissions, numbered from `start`. */
export function admissions(stream: string, start: number, count: number): NewEvent[] {
  return Array.from({ length: count }, (_, offset) => admitted(stream, start + offset));
}

export function fence(stream: string, ownerEpoch: number): NewEvent<"OwnerFenced.v1"> {
  return newEvent(
    stream,
    `fenced:${ownerEpoch}`,
    "OwnerFenced.v1",
    { ownerEpoch },
    metadata("start"),
  );
}

/** One valid event whose text is a little over `bytes` long. */
export function largeEvent(stream: string, number: number, bytes: number): NewEvent {
  const bindingIds = Array.from({ length: Math.ceil(bytes / 203) }, () => "b".repeat(200));
  const { data } = admitted(stream, number);
  return newEvent(
    stream,
    `large:${number}`,
    "RequestAdmitted.v1",
    { ...data, bindingIds },
    metadata(data.requestId),
  );
}
