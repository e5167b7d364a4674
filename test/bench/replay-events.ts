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
const REGION = "us";
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
function idOf(prefix: string, number: number): string {
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

const metadata = ($correlationId: string): EventMetadata => ({
  at: AT,
  region: REGION,
  actor: "gateway",
  $correlationId,
  schema: 1,
});

/** What stands before the first request: organizations, top-ups of $100,000 and keys. */
function* preamble(): Generator<Append> {
  for (let number = 0; number < ORGS; number++) {
    const orgId = idOf("org", number);
    const keyId = idOf("key", number);
    const lotId = idOf("lot", number);
    const org = streams.org(orgId);
    const key = streams.key(keyId);
    const by = metadata("bench");
    yield {
      stream: org,
      events: [
        newEvent(
          org,
          "created",
          "OrganizationCreated.v1",
          { orgId, name: "bench", homeRegion: REGION, bodySha256: SHA },
          by,
        ),
        newEvent(
          org,
          `topped:${lotId}`,
          "CreditToppedUp.v1",
          {
            orgId,
            topUpId: lotId,
            amountMicro: 1e11,
            source: "manual",
            pot: "paid",
            bodySha256: SHA,
          },
          by,
        ),
      ],
    };
    const issued: EventData<"KeyIssued.v1"> = {
      keyId,
      orgId,
      scope: "regional",
      homeRegion: REGION,
      name: "bench",
      tokenHash: SHA,
      displayPrefix: "relai_sk_us_live_abcd",
      limits: { rpm: 600 },
      bodySha256: SHA,
    };
    yield { stream: key, events: [newEvent(key, "issued", "KeyIssued.v1", issued, by)] };
  }
}

/** Both events of one request. */
function requestEvents(number: number): [NewEvent, NewEvent] {
  const requestId = idOf("req", number);
  const org = number % ORGS;
  const orgId = idOf("org", org);
  const journal = streams.journal(REGION, JOURNAL_EPOCH);
  const common = {
    requestId,
    orgId,
    homeRegion: REGION,
    keyId: idOf("key", org),
    processingArea: REGION,
    ownerEpoch: 1,
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
  yield* preamble();
  const stream = streams.journal(REGION, JOURNAL_EPOCH);
  let events: NewEvent[] = [];
  for (let number = 0; number < count / 2; number++) {
    events.push(...requestEvents(number));
    if (events.length < BATCH) continue;
    yield { stream, events };
    events = [];
  }
  if (events.length > 0) yield { stream, events };
}
