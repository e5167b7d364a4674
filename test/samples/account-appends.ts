import { newEvent } from "#domain/events/events.ts";
import type { EventData, EventMetadata } from "#domain/events/schemas.ts";
import type { Append } from "./histories.ts";

/** Appends of one event each, for the accounts of one organization or two. */

export const id = (prefix: string, number: number) =>
  `${prefix}_${String(number).padStart(26, "0")}`;
export const [org, other, key, lot] = [id("org", 1), id("org", 2), id("key", 1), id("lot", 1)];
export const metadata: EventMetadata = {
  at: 1,
  region: "us",
  actor: "test",
  $correlationId: "c",
  schema: 1,
};
export const sha = "0".repeat(64);

export function topUp(orgId: string, lotId: string, amountMicro: number): Append {
  const data = {
    orgId,
    topUpId: lotId,
    amountMicro,
    source: "manual" as const,
    pot: "paid" as const,
    bodySha256: sha,
  };
  return {
    stream: `org-${orgId}`,
    events: [newEvent(`org-${orgId}`, lotId, "CreditToppedUp.v1", data, metadata)],
  };
}

export function issued(orgId: string, keyId: string): Append {
  const data: EventData<"KeyIssued.v1"> = {
    keyId,
    orgId,
    scope: "regional",
    homeRegion: "us",
    name: "",
    tokenHash: sha,
    displayPrefix: "",
    limits: {},
    bodySha256: sha,
  };
  return {
    stream: `key-${keyId}`,
    events: [newEvent(`key-${keyId}`, "issued", "KeyIssued.v1", data, metadata)],
  };
}

export function common(requestId: string, micro: number, orgId = org) {
  return {
    requestId,
    orgId,
    homeRegion: "us",
    keyId: key,
    processingArea: "us",
    ownerEpoch: 1,
    accounts: [
      {
        account: `${orgId}/balance`,
        period: "total",
        micro,
        lots: [{ lotId: lot, pot: "paid" as const, micro }],
      },
    ],
    holdMicro: micro,
  };
}

export function admitted(requestId: string, micro: number, orgId = org): Append {
  const data = {
    ...common(requestId, micro, orgId),
    holdCostMicro: micro,
    model: "m",
    bindingIds: ["m@h"],
    priceVersion: "1",
  };
  const event = newEvent("journal-us-4", `a${requestId}`, "RequestAdmitted.v1", data, metadata);
  return { stream: "journal-us-4", events: [event] };
}

export function used(requestId: string, micro: number): Append {
  const data: EventData<"UsageRecorded.v1"> = {
    ...common(requestId, micro),
    model: "m",
    bindingId: "m@h",
    priceVersion: "1",
    serviceTier: "default",
    tokens: {},
    salePico: {},
    costPico: {},
    chargedMicro: micro,
    overHoldMicro: 0,
    residualPico: 0,
    providerCostMicro: micro,
    billedBy: "provider",
    clientGone: false,
    attempts: [],
    firstByteMs: 1,
    durationMs: 1,
    finish: "stop",
  };
  const event = newEvent("journal-us-4", `e${requestId}`, "UsageRecorded.v1", data, metadata);
  return { stream: "journal-us-4", events: [event] };
}

export function expired(requestId: string, micro: number): Append {
  const data = { ...common(requestId, micro), unbilledMicro: micro };
  const event = newEvent("journal-us-4", `e${requestId}`, "RequestExpired.v1", data, metadata);
  return { stream: "journal-us-4", events: [event] };
}
