import type { Binding } from "#domain/catalogue/types.ts";
import {
  costOf,
  TOKEN_CLASSES,
  type ContextTier,
  type TokenClass,
  type Tokens,
} from "#domain/prices.ts";
import { newEvent, type NewEvent } from "#domain/events/events.ts";
import type { AccountTaking, Attempt, EventData, EventMetadata } from "#domain/events/schemas.ts";
import type { Admitted, AdmitRefused } from "#domain/accounts/admission-types.ts";
import type { Journal, RecordOutcome } from "#services/journal.ts";
import type { AdmissionStore, Clock, Telemetry } from "#services/ports.ts";
import { backOffMs, sleep, TIMED_OUT, within } from "#services/waiting.ts";
import { metadataOf, type Author } from "#services/writers.ts";
import type { Writer, WriterLife } from "./writer.ts";

/**
 * The money of one request. The order is the product's promise: taken in the admission store first, recorded in the
 * journal second, forwarded third; at the end recorded first, then closed, and only then the last bytes.
 */

/** Retries on a fence, and the wait for a new owner's money at the end, go on for this long. */
const FENCED_MS_MAX = 1000;
/** The admission store itself answers within this, or the admission is undone. */
const ADMIT_MS_MAX = 1000;
/** A caller waits this long for the journal; then it gets its error, and the journal goes on trying. */
const RECORD_MS_MAX = 5000;

export interface MoneyParts {
  readonly admission: AdmissionStore;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly writer: Writer;
  readonly author: Author;
  /** Work that goes on after the caller has had its answer; a stop waits for it. */
  readonly background: (work: Promise<void>) => void;
}

/** What a request is to hold, and what its events repeat. */
export interface HoldAsk {
  readonly requestId: string;
  readonly orgId: string;
  readonly keyId: string;
  readonly processingArea: string;
  readonly model: string;
  readonly bindings: readonly Binding[];
  readonly priceVersion: string;
  readonly holdMicro: number;
  readonly holdCostMicro: number;
  readonly clientRequestId: string | undefined;
}

/** A hold whose RequestAdmitted is durable. */
export interface OpenHold {
  readonly ask: HoldAsk;
  readonly journal: Journal;
  readonly admitted: Admitted;
  ownerEpoch: number;
  totalMicro: number;
  totalCostMicro: number;
  accounts: readonly AccountTaking[];
  /** Its terminal event is on its way: there must not be a second one. */
  isEnding: boolean;
}

export type OpenOutcome =
  | { readonly outcome: "open"; readonly hold: OpenHold }
  | { readonly outcome: "refused"; readonly refused: AdmitRefused }
  | { readonly outcome: "unavailable" };

/** Takes the hold and records it. After `open` the request may be forwarded; after anything else nothing is taken. */
export async function openHold(
  parts: MoneyParts,
  life: WriterLife,
  ask: HoldAsk,
): Promise<OpenOutcome> {
  const { journal } = life;
  const { requestId } = ask;
  const taken = await admitUnderOwner(parts, journal.writerEpoch, ask);
  if (taken.outcome !== "admitted") return taken;
  const { admitted, ownerEpoch } = taken;
  const hold: OpenHold = {
    ask,
    journal,
    admitted,
    ownerEpoch,
    totalMicro: ask.holdMicro,
    totalCostMicro: ask.holdCostMicro,
    accounts: admitted.accounts,
    isEnding: false,
  };
  const event = newEvent(
    journal.stream,
    `admitted:${requestId}`,
    "RequestAdmitted.v1",
    {
      ...common(parts, hold),
      holdMicro: ask.holdMicro,
      holdCostMicro: ask.holdCostMicro,
      model: ask.model,
      bindingIds: ask.bindings.map((binding) => binding.id),
      priceVersion: ask.priceVersion,
      ...(ask.clientRequestId === undefined ? {} : { clientRequestId: ask.clientRequestId }),
    },
    metadataOf(parts.clock, parts.author, requestId),
  );
  const recording = journal.record({ events: [event], takingUnder: ownerEpoch });
  const outcome = await within(parts.clock, RECORD_MS_MAX, recording);
  if (outcome !== TIMED_OUT && outcome.outcome === "recorded") return { outcome: "open", hold };
  const undoing = undoWhenKnown(parts, hold, recording);
  if (outcome === TIMED_OUT) parts.background(undoing);
  else if ((await within(parts.clock, ADMIT_MS_MAX, undoing)) === TIMED_OUT)
    parts.background(undoing);
  return { outcome: "unavailable" };
}

/** Asks the admission store under the newest owner; on a fence reads who that is and asks again, for up to a second. */
async function admitUnderOwner(
  parts: MoneyParts,
  writerEpoch: number,
  ask: HoldAsk,
): Promise<
  | { outcome: "admitted"; admitted: Admitted; ownerEpoch: number }
  | { outcome: "refused"; refused: AdmitRefused }
  | { outcome: "unavailable" }
> {
  const { admission, clock, writer } = parts;
  const { requestId, orgId, keyId, holdMicro } = ask;
  const begun = clock.elapsed();
  for (let attempt = 0; ; attempt++) {
    const ownerEpoch = writer.ownerEpoch();
    const asked = admission
      .admit({ orgId, ownerEpoch, requestId, writerEpoch, keyId, holdMicro })
      .catch(() => undefined);
    const answer = await within(clock, ADMIT_MS_MAX, asked);
    if (answer === TIMED_OUT || answer === undefined) {
      // It may have taken the money; undone until that is acknowledged, and the id is not used again.
      parts.background(dropHold(parts, orgId, ownerEpoch, requestId));
      return { outcome: "unavailable" };
    }
    if (answer.outcome === "admitted") return { outcome: "admitted", admitted: answer, ownerEpoch };
    if (answer.outcome === "refused") return { outcome: "refused", refused: answer };
    if (answer.fenced === "fault" || clock.elapsed() - begun >= FENCED_MS_MAX)
      return { outcome: "unavailable" };
    await renewOwner(parts, orgId, attempt);
  }
}

async function renewOwner(parts: MoneyParts, orgId: string, attempt: number): Promise<void> {
  await parts.admission.want(orgId).catch(() => {});
  await within(
    parts.clock,
    FENCED_MS_MAX,
    parts.writer.refreshOwner().catch(() => {}),
  );
  await sleep(parts.clock, backOffMs(attempt, 10, 200));
}

/** Repeats the drop until it is acknowledged; under a fence there is nothing left to drop. */
async function dropHold(
  parts: MoneyParts,
  orgId: string,
  ownerEpoch: number,
  requestId: string,
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const answer = await parts.admission
      .drop({ orgId, ownerEpoch, requestId })
      .catch(() => undefined);
    if (answer) return;
    await sleep(parts.clock, backOffMs(attempt, 50, 2000));
  }
}

/**
 * The caller gets its 503. If the admission turns out to be recorded after all, it is released; else dropped, in a
 * sealed journal too: the sweep after the seal may have been before this admission.
 */
async function undoWhenKnown(
  parts: MoneyParts,
  hold: OpenHold,
  recording: Promise<RecordOutcome>,
): Promise<void> {
  const outcome = await recording;
  if (outcome.outcome === "recorded") {
    return finishRelease(parts, hold, {
      reason: "ledger_timeout",
      forwarded: false,
      clientGone: false,
      attempts: [],
      unbilledMicro: 0,
    });
  }
  // The admission store took the money under an owner that is over: the next request must not ask under it again.
  if (outcome.outcome === "dropped" && outcome.why === "fenced")
    parts.background(parts.writer.refreshOwner());
  await dropHold(parts, hold.ask.orgId, hold.ownerEpoch, hold.ask.requestId);
}

export type ReleaseFacts = Pick<
  EventData<"RequestReleased.v1">,
  "reason" | "forwarded" | "clientGone" | "attempts" | "unbilledMicro"
>;

/**
 * Ends a hold without a charge. Comes back when that is durable and the money is free again, or after the limit, and
 * then goes on by itself.
 */
export async function releaseHold(
  parts: MoneyParts,
  hold: OpenHold,
  facts: ReleaseFacts,
): Promise<void> {
  const finishing = finishRelease(parts, hold, facts);
  if ((await within(parts.clock, RECORD_MS_MAX, finishing)) === TIMED_OUT)
    parts.background(finishing);
}

async function finishRelease(
  parts: MoneyParts,
  hold: OpenHold,
  facts: ReleaseFacts,
): Promise<void> {
  const { requestId } = hold.ask;
  const event = newEvent(
    hold.journal.stream,
    `ended:${requestId}`,
    "RequestReleased.v1",
    { ...common(parts, hold), holdMicro: hold.totalMicro, ...facts },
    metadataOf(parts.clock, parts.author, requestId),
  );
  hold.isEnding = true;
  const outcome = await hold.journal.record({ events: [event] });
  if (outcome.outcome === "recorded") await closeHold(parts, hold, 0);
}

/** What an answer used, and how it came to be known. */
export interface UsageFacts {
  readonly tokens: Tokens;
  readonly binding: Binding;
  readonly serviceTier: string;
  /** The prices that apply: of the served tier and the context tier of these tokens. */
  readonly prices: ContextTier;
  readonly billedBy: "provider" | "estimate";
  readonly clientGone: boolean;
  readonly attempts: Attempt[];
  readonly firstByteMs: number;
  readonly durationMs: number;
  readonly finish: string;
}

/** `undelivered`: charged, but not within the time that a caller waits. `late`: the hold had ended; nobody is charged. */
export type ChargeOutcome =
  | { readonly outcome: "charged"; readonly chargedMicro: number }
  | { readonly outcome: "undelivered" }
  | { readonly outcome: "late" };

/**
 * Charges a request: takes what passes the hold like any money, records, closes. Only after `charged` may the last
 * bytes of the answer go out. Otherwise the record goes on in the background, and the caller gets an error.
 */
export async function chargeHold(
  parts: MoneyParts,
  hold: OpenHold,
  usage: UsageFacts,
): Promise<ChargeOutcome> {
  const charging = finishCharge(parts, hold, usage);
  const outcome = await within(parts.clock, RECORD_MS_MAX, charging);
  if (outcome !== TIMED_OUT) return outcome;
  parts.background(
    charging.then(async (late) => {
      if (late.outcome !== "charged") return;
      const { requestId, orgId } = hold.ask;
      const metadata = metadataOf(parts.clock, parts.author, requestId);
      await note(parts, (stream) =>
        newEvent(
          stream,
          `undelivered:${requestId}`,
          "UsageUndelivered.v1",
          { requestId, orgId },
          metadata,
        ),
      );
    }),
  );
  return { outcome: "undelivered" };
}

async function finishCharge(
  parts: MoneyParts,
  hold: OpenHold,
  usage: UsageFacts,
): Promise<ChargeOutcome> {
  const sale = costOf(usage.tokens, usage.prices.salePico);
  const cost = costOf(usage.tokens, usage.prices.costPico);
  const { requestId } = hold.ask;
  // From here on nothing throws that would leave the hold without its end: what can be wrong with the figures is behind us.
  hold.isEnding = true;
  for (let attempt = 0; ; attempt++) {
    const recorded = { totalMicro: hold.totalMicro, accounts: hold.accounts };
    if (sale.micro > hold.totalMicro) await takeExcess(parts, hold, sale.micro);
    const metadata = metadataOf(parts.clock, parts.author, requestId);
    const chargedMicro = Math.min(sale.micro, hold.totalMicro);
    const ended = newEvent(
      hold.journal.stream,
      `ended:${requestId}`,
      "UsageRecorded.v1",
      usageEvent(parts, hold, usage, {
        chargedMicro,
        overHoldMicro: sale.micro - chargedMicro,
        residualPico: sale.residualPico,
        providerCostMicro: cost.micro,
      }),
      metadata,
    );
    const isRaised = hold.totalMicro > recorded.totalMicro;
    const events = isRaised ? [extension(parts, hold, cost.micro, metadata), ended] : [ended];
    const outcome = await hold.journal.record({
      events,
      ...(isRaised ? { takingUnder: hold.ownerEpoch } : {}),
    });
    if (outcome.outcome === "recorded") {
      await closeHold(parts, hold, chargedMicro);
      return { outcome: "charged", chargedMicro };
    }
    if (outcome.outcome === "sealed") {
      await noteLate(parts, hold, usage.tokens, cost.micro);
      return { outcome: "late" };
    }
    // The excess was taken under an owner that is over, or the store refused it: computed anew from what is recorded.
    Object.assign(hold, recorded);
    await sleep(parts.clock, backOffMs(attempt, 10, 1000));
    await within(
      parts.clock,
      FENCED_MS_MAX,
      parts.writer.refreshOwner().catch(() => {}),
    );
  }
}

/** Takes what a request used beyond its hold, as far as the money of all its accounts goes. */
async function takeExcess(parts: MoneyParts, hold: OpenHold, totalMicro: number): Promise<void> {
  const { orgId, requestId } = hold.ask;
  const begun = parts.clock.elapsed();
  for (let attempt = 0; ; attempt++) {
    const ownerEpoch = parts.writer.ownerEpoch();
    const asked = parts.admission
      .extend({ orgId, ownerEpoch, requestId, totalMicro })
      .catch(() => undefined);
    const answer = await within(parts.clock, FENCED_MS_MAX, asked);
    if (answer !== TIMED_OUT && answer?.outcome === "raised") {
      hold.ownerEpoch = ownerEpoch;
      hold.totalMicro = answer.totalMicro;
      hold.accounts = answer.accounts;
      return;
    }
    const isOver =
      answer !== TIMED_OUT && (answer?.outcome === "gone" || answer?.fenced === "fault");
    if (isOver || parts.clock.elapsed() - begun >= FENCED_MS_MAX) return;
    await renewOwner(parts, orgId, attempt);
  }
}

function extension(
  parts: MoneyParts,
  hold: OpenHold,
  costMicro: number,
  metadata: EventMetadata,
): NewEvent {
  hold.totalCostMicro = Math.max(hold.totalCostMicro, costMicro);
  const { requestId } = hold.ask;
  return newEvent(
    hold.journal.stream,
    `extended:${requestId}:${hold.totalMicro}:${hold.ownerEpoch}`,
    "HoldExtended.v1",
    {
      ...common(parts, hold),
      holdTotalMicro: hold.totalMicro,
      holdCostTotalMicro: hold.totalCostMicro,
    },
    metadata,
  );
}

function usageEvent(
  parts: MoneyParts,
  hold: OpenHold,
  usage: UsageFacts,
  amounts: Pick<
    EventData<"UsageRecorded.v1">,
    "chargedMicro" | "overHoldMicro" | "residualPico" | "providerCostMicro"
  >,
): EventData<"UsageRecorded.v1"> {
  const tokens: Tokens = {};
  const salePico: Partial<Record<TokenClass, number>> = {};
  const costPico: Partial<Record<TokenClass, number>> = {};
  for (const name of TOKEN_CLASSES) {
    const count = usage.tokens[name];
    if (!count) continue;
    tokens[name] = count;
    salePico[name] = usage.prices.salePico[name];
    costPico[name] = usage.prices.costPico[name];
  }
  return {
    ...common(parts, hold),
    holdMicro: hold.totalMicro,
    model: hold.ask.model,
    bindingId: usage.binding.id,
    priceVersion: usage.binding.priceVersion,
    serviceTier: usage.serviceTier,
    tokens,
    salePico,
    costPico,
    ...amounts,
    billedBy: usage.billedBy,
    clientGone: usage.clientGone,
    attempts: usage.attempts,
    firstByteMs: usage.firstByteMs,
    durationMs: usage.durationMs,
    finish: usage.finish,
  };
}

/** Frees the hold in the admission store; the event is durable, so whatever goes wrong here the ledger sets right. */
async function closeHold(parts: MoneyParts, hold: OpenHold, chargedMicro: number): Promise<void> {
  const { orgId, requestId } = hold.ask;
  const ownerEpoch = parts.writer.ownerEpoch();
  const closing = parts.admission
    .close({ orgId, ownerEpoch, requestId, chargedMicro })
    .catch(() => undefined);
  await within(parts.clock, ADMIT_MS_MAX, closing);
}

/** Usage that came after its hold had ended: the company's expense, in the journal of the next life. */
async function noteLate(
  parts: MoneyParts,
  hold: OpenHold,
  tokens: Tokens,
  providerCostMicro: number,
): Promise<void> {
  const { requestId, orgId } = hold.ask;
  const epoch = hold.journal.writerEpoch;
  const metadata = metadataOf(parts.clock, parts.author, requestId);
  parts.background(
    note(parts, (stream) =>
      newEvent(
        stream,
        `late:${requestId}`,
        "UsageLate.v1",
        { requestId, orgId, epoch, tokens, providerCostMicro },
        metadata,
      ),
    ),
  );
}

const NOTE_ATTEMPTS_MAX = 200;

/** Writes a note without money into the journal of whatever life this gateway has by then. */
async function note(parts: MoneyParts, make: (stream: string) => NewEvent): Promise<void> {
  for (let attempt = 0; attempt < NOTE_ATTEMPTS_MAX; attempt++) {
    const journal = parts.writer.life()?.journal;
    if (journal) {
      const outcome = await journal.record({ events: [make(journal.stream)] });
      if (outcome.outcome === "recorded") return;
    }
    await sleep(parts.clock, backOffMs(attempt, 50, 2000));
  }
  parts.telemetry.alarm("note_not_written", {});
}

function common(parts: MoneyParts, hold: OpenHold) {
  const { requestId, orgId, keyId, processingArea } = hold.ask;
  return {
    requestId,
    orgId,
    homeRegion: parts.author.region,
    keyId,
    processingArea,
    ownerEpoch: hold.ownerEpoch,
    accounts: [...hold.accounts],
  };
}
