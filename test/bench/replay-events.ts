import { balanceAccount } from "#domain/accounts/accounts.ts";
import { type NewEvent, newEvent, streams } from "#domain/events/events.ts";
import type { EventData, EventMetadata } from "#domain/events/schemas.ts";

/**
 * A made-up history in the form that the store holds: some organizations with money and a key each, then requests,
 * RequestAdmitted and UsageRecorded in turn, with every field that a real request writes.
 */

const ORGS = 20;
const AT = 1_790_000_000_000;
const HOLD_MICRO = 3_400;
const CHARGED_MICRO = 1_234;
const BATCH = 500;
export const REGION = "us";
const JOURNAL_EPOCH = 1;
const SHA = "0123456789abcdef".repeat(4);
const BINDING = "gpt-4o-mini@openai";
const PRICE_VERSION = `2026-10-01:${BINDING}`;

/** One append: events of one stream, to be written at its end. */
export interface Append {
  readonly stream: string;
  readonly events: readonly NewEvent[];
}

/** An id of our form that is different for each number. */
export function idOf(prefix: string, number: number): string {
  const digits = number
    .toString(32)
    .toUpperCase()
    .replaceAll(/[A-V]/g, (letter) => CROCKFORD[letter] ?? letter);
  return `${prefix}_${digits.padStart(26, "0")}`;
}
// Base 32 as JavaScript writes it, in Crockford's letters, which leave out I, L, O and U.
const CROCKFORD: Readonly<Record<string, string>> = Object.fromEntries(
  Array.from("ABCDEFGHIJKLMNOPQRSTUV", (letter, index) => [
    letter,
    "ABCDEFGHJKMNPQRSTVWXYZ".charAt(index),
  ]),
);

export const metadata = ($correlationId: string): EventMetadata => ({
  at: AT,
  region: REGION,
  actor: "gateway",
  $correlationId,
  schema: 1,
});

/** An organization with a top-up of $100,000 and a key, and more top-ups where asked for. */
export function* organization(
  number: number,
  tokenHash: string = SHA,
  moreTopUps: readonly number[] = [],
): Generator<Append> {
  const orgId = idOf("org", number);
  const keyId = idOf("key", number);
  const org = streams.org(orgId);
  const key = streams.key(keyId);
  const by = metadata("bench");
  const created = { orgId, name: "bench", homeRegion: REGION, bodySha256: SHA };
  const topUps = [number, ...moreTopUps].map((lot) => {
    const topUpId = idOf("lot", lot);
    return newEvent(
      org,
      `topped:${topUpId}`,
      "CreditToppedUp.v1",
      { orgId, topUpId, amountMicro: 1e11, source: "manual", pot: "paid", bodySha256: SHA },
      by,
    );
  });
  const issued: EventData<"KeyIssued.v1"> = {
    keyId,
    orgId,
    scope: "regional",
    homeRegion: REGION,
    name: "bench",
    tokenHash,
    displayPrefix: "relai_sk_us_live_abcd",
    limits: { rpm: 600 },
    bodySha256: SHA,
  };
  yield {
    stream: org,
    events: [newEvent(org, "created", "OrganizationCreated.v1", created, by), ...topUps],
  };
  yield { stream: key, events: [newEvent(key, "issued", "KeyIssued.v1", issued, by)] };
}

/** Whose a request is, and whose journal it stands in. */
interface Place {
  readonly org: number;
  readonly writerEpoch: number;
  readonly ownerEpoch: number;
}

/** Both events of one request. */
export function requestEvents(
  number: number,
  { org, writerEpoch, ownerEpoch }: Place,
): [NewEvent<"RequestAdmitted.v1">, NewEvent<"UsageRecorded.v1">] {
  const requestId = idOf("req", number);
  const orgId = idOf("org", org);
  const journal = streams.journal(REGION, writerEpoch);
  const common = {
    requestId,
    orgId,
    homeRegion: REGION,
    keyId: idOf("key", org),
    processingArea: REGION,
    ownerEpoch,
    accounts: [
      {
        account: balanceAccount(orgId),
        period: "total",
        micro: HOLD_MICRO,
        lots: [{ lotId: idOf("lot", org), pot: "paid" as const, micro: HOLD_MICRO }],
      },
    ],
    holdMicro: HOLD_MICRO,
    model: "gpt-4o-mini",
    priceVersion: PRICE_VERSION,
  };
  const admitted: EventData<"RequestAdmitted.v1"> = {
    ...common,
    holdCostMicro: HOLD_MICRO,
    bindingIds: [BINDING],
  };
  const used: EventData<"UsageRecorded.v1"> = {
    ...common,
    bindingId: BINDING,
    serviceTier: "default",
    tokens: { input: 1_200, cacheRead: 600, output: 340 },
    salePico: { input: 150_000, cacheRead: 75_000, output: 600_000 },
    costPico: { input: 150_000, cacheRead: 75_000, output: 600_000 },
    chargedMicro: CHARGED_MICRO,
    overHoldMicro: 0,
    residualPico: 0,
    providerCostMicro: CHARGED_MICRO,
    billedBy: "provider",
    clientGone: false,
    attempts: [{ host: "openai", hostKey: "env:OPENAI_API_KEY", outcome: "answered", status: 200 }],
    firstByteMs: 312,
    durationMs: 2_418,
    finish: "stop",
  };
  const by = metadata(requestId);
  return [
    newEvent(journal, `admitted:${requestId}`, "RequestAdmitted.v1", admitted, by),
    newEvent(journal, `used:${requestId}`, "UsageRecorded.v1", used, by),
  ];
}

/** The whole history, append by append; `count` events of requests after what stands before them. */
export function* history(count: number): Generator<Append> {
  for (let number = 0; number < ORGS; number++) yield* organization(number);
  const stream = streams.journal(REGION, JOURNAL_EPOCH);
  let events: NewEvent[] = [];
  for (let number = 0; number < count / 2; number++) {
    const place = { org: number % ORGS, writerEpoch: JOURNAL_EPOCH, ownerEpoch: 1 };
    events.push(...requestEvents(number, place));
    if (events.length < BATCH) continue;
    yield { stream, events };
    events = [];
  }
  if (events.length > 0) yield { stream, events };
}
