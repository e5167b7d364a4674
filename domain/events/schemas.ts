import { z } from "zod";
import { STORED_LIMITS } from "#domain/key-limits.ts";
import { isMicro } from "#domain/money.ts";
import { TOKEN_CLASSES, type TokenClass } from "#domain/prices.ts";

/**
 * Every event that relai writes, with the schema it is held to in full before it is appended.
 * Names are past tense and carry their version; a change of meaning is a new version, never an edit.
 * No event holds prompt or answer text or a usable credential; strings that callers choose are bounded.
 */

const micro = z.int().min(0);
const ms = z.int().min(0);
const id = (prefix: string) => z.string().regex(new RegExp(`^${prefix}_[0-9A-HJKMNP-TV-Z]{26}$`));
const orgId = id("org");
const keyId = id("key");
const requestId = id("req");
const epoch = z.int().min(0);
const region = z.string().regex(/^[a-z][a-z0-9-]{0,15}$/);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const short = z.string().max(256);

/** What one request holds on one account; on the organization's balance also the lots it was taken from, in order. */
const accountTaking = z.object({
  account: short,
  period: short,
  micro,
  lots: z.array(z.object({ lotId: id("lot"), pot: z.literal("paid"), micro })).exactOptional(),
});

const attempt = z.object({
  host: short,
  hostKey: short,
  outcome: z.enum([
    "answered",
    "refused",
    "rate_limited",
    "failed",
    "unreachable",
    "reset",
    "timed_out",
    "garbage",
    "aborted",
  ]),
  status: z.int().exactOptional(),
});

/**
 * Token counts or prices by class; a class that is absent is zero, or was not needed. One check for the whole object:
 * it stands in every usage event, and a schema of eight optional members would be most of what such an event costs.
 */
const byClass = z.custom<Partial<Record<TokenClass, number>>>((value) => {
  if (typeof value !== "object" || value === null) return false;
  for (const name of TOKEN_CLASSES) {
    const each = (value as Partial<Record<string, unknown>>)[name];
    if (each !== undefined && !isMicro(each)) return false;
  }
  return true;
});

/** What every event of a request repeats, so that it stands for itself. */
const request = {
  requestId,
  orgId,
  homeRegion: region,
  keyId,
  processingArea: region,
  ownerEpoch: epoch,
  accounts: z.array(accountTaking).min(1),
};

export const EVENT_SCHEMAS = {
  // writers-<region>: the revision of WriterStarted is the writer's epoch.
  "WriterStarted.v1": z.object({
    process: z.enum(["gateway", "ledger", "control"]),
    instance: short,
  }),
  "OwnerChanged.v1": z.object({
    ownerEpoch: epoch,
    writerEpoch: epoch,
    servers: z.array(short).min(1),
  }),

  // journal-<region>-<epoch>: one writer each.
  "RequestAdmitted.v1": z.object({
    ...request,
    holdMicro: micro,
    holdCostMicro: micro,
    model: short,
    bindingIds: z.array(short).min(1),
    priceVersion: short,
    clientRequestId: short.exactOptional(),
  }),
  "HoldExtended.v1": z.object({ ...request, holdTotalMicro: micro, holdCostTotalMicro: micro }),
  "UsageRecorded.v1": z.object({
    ...request,
    holdMicro: micro,
    model: short,
    bindingId: short,
    priceVersion: short,
    serviceTier: short,
    tokens: byClass,
    salePico: byClass,
    costPico: byClass,
    chargedMicro: micro,
    overHoldMicro: micro,
    residualPico: z.int(),
    providerCostMicro: micro,
    billedBy: z.enum(["provider", "estimate"]),
    /** Only with an estimate: what the provider may bill beyond it, up to what the hold could cost. */
    unbilledMicro: micro.exactOptional(),
    clientGone: z.boolean(),
    attempts: z.array(attempt),
    firstByteMs: ms,
    durationMs: ms,
    finish: short,
  }),
  "RequestReleased.v1": z.object({
    ...request,
    holdMicro: micro,
    reason: z.enum([
      "client_gone",
      "upstream_refused",
      "upstream_error",
      "upstream_timeout",
      "ledger_timeout",
      "overloaded",
      "stopping",
      "internal_error",
    ]),
    forwarded: z.boolean(),
    clientGone: z.boolean(),
    attempts: z.array(attempt),
    unbilledMicro: micro,
  }),
  "RequestExpired.v1": z.object({ ...request, holdMicro: micro, unbilledMicro: micro }),
  "UsageLate.v1": z.object({
    requestId,
    orgId,
    epoch,
    tokens: byClass,
    providerCostMicro: micro,
  }),
  "UsageUndelivered.v1": z.object({ requestId, orgId }),
  "WriterAlive.v1": z.object({}),
  "OwnerFenced.v1": z.object({ ownerEpoch: epoch }),
  "JournalSealed.v1": z.object({ by: z.enum(["writer", "ledger"]) }),

  // org-<orgId>
  "OrganizationCreated.v1": z.object({
    orgId,
    name: z.string().min(1).max(256),
    homeRegion: region,
    bodySha256: sha256,
  }),
  "CreditToppedUp.v1": z.object({
    orgId,
    topUpId: id("lot"),
    amountMicro: micro.min(1),
    source: z.literal("manual"),
    pot: z.literal("paid"),
    bodySha256: sha256,
  }),

  // key-<keyId>
  "KeyIssued.v1": z.object({
    keyId,
    orgId,
    scope: z.literal("regional"),
    homeRegion: region,
    name: z.string().max(256),
    tokenHash: sha256,
    displayPrefix: z.string().max(64),
    ...STORED_LIMITS,
    bodySha256: sha256,
  }),
  "KeyRevoked.v1": z.object({ keyId, orgId, tokenHash: sha256 }),
} as const;

export type EventType = keyof typeof EVENT_SCHEMAS;
/** The events that say nothing about any account: notes, and the marks of writers and journals. */
export type NoteType =
  | "UsageLate.v1"
  | "UsageUndelivered.v1"
  | "WriterStarted.v1"
  | "OwnerChanged.v1"
  | "WriterAlive.v1"
  | "OwnerFenced.v1"
  | "JournalSealed.v1";
export type EventData<T extends EventType = EventType> = z.infer<(typeof EVENT_SCHEMAS)[T]>;
export type AccountTaking = z.infer<typeof accountTaking>;
export type LotShare = NonNullable<AccountTaking["lots"]>[number];
export type Attempt = z.infer<typeof attempt>;

/** What stands beside the data of every event. `at` is the writer's own clock and is information only. */
export interface EventMetadata {
  readonly at: number;
  readonly region: string;
  /** Who caused it: a process ("gateway"), or a principal of the control API. */
  readonly actor: string;
  /** The request or command that this event belongs to. */
  readonly $correlationId: string;
  readonly $causationId?: string;
  readonly schema: 1;
}
