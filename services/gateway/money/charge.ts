import type { Binding } from "#domain/catalogue/types.ts";
import { newEvent, type NewEvent } from "#domain/events/events.ts";
import type { EventData, EventMetadata } from "#domain/events/schemas.ts";
import {
  costOf,
  TOKEN_CLASSES,
  type ContextTier,
  type TokenClass,
  type Tokens,
} from "#domain/prices.ts";
import { backOffMs, sleep, TIMED_OUT, within } from "#services/waiting.ts";
import {
  closeHold,
  FENCED_MS_MAX,
  metadataAfter,
  RECORD_MS_MAX,
  renewOwner,
  requestFacts,
  type MoneyParts,
  type OpenHold,
} from "./hold.ts";

/** The end of an answered request: what it cost is taken, recorded, and only then is its hold closed. */

/** What an answer used, and how it came to be known. */
export interface UsageFacts extends Pick<
  EventData<"UsageRecorded.v1">,
  "serviceTier" | "billedBy" | "clientGone" | "attempts" | "firstByteMs" | "durationMs" | "finish"
> {
  readonly tokens: Tokens;
  readonly binding: Binding;
  /** The prices that apply: of the served tier and the context tier of these tokens. */
  readonly prices: ContextTier;
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
      const metadata = metadataAfter(parts, hold);
      const facts = { requestId, orgId };
      const key = `undelivered:${requestId}`;
      await note(parts, (to) => newEvent(to, key, "UsageUndelivered.v1", facts, metadata));
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
  let canRaise = true;
  for (let attempt = 0; ; attempt++) {
    const recorded = { totalMicro: hold.totalMicro, accounts: hold.accounts };
    if (canRaise && sale.micro > hold.totalMicro) await takeExcess(parts, hold, sale.micro);
    const metadata = metadataAfter(parts, hold);
    const chargedMicro = Math.min(sale.micro, hold.totalMicro);
    const unbilledMicro = Math.max(0, hold.totalCostMicro - cost.micro);
    const ended = newEvent(
      hold.journal.stream,
      `ended:${requestId}`,
      "UsageRecorded.v1",
      usageEvent(parts, hold, usage, {
        chargedMicro,
        overHoldMicro: sale.micro - chargedMicro,
        residualPico: sale.residualPico,
        providerCostMicro: cost.micro,
        // A provider that was not heard may bill up to what the request could cost; one that was bills what it said.
        ...(usage.billedBy === "estimate" ? { unbilledMicro } : {}),
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
    // Without the excess it is smaller; too large even so, it ends with the seal of its journal, and charges nobody.
    const isTooLarge = outcome.outcome === "too_large";
    canRaise &&= !isTooLarge;
    if (outcome.outcome === "sealed" || (isTooLarge && !isRaised)) {
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
    if (answer === TIMED_OUT || answer === undefined) hold.isExtendedLate = true;
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
  const { totalMicro, totalCostMicro } = hold;
  const key = `extended:${hold.ask.requestId}:${totalMicro}:${hold.ownerEpoch}`;
  const data = {
    ...requestFacts(parts, hold),
    holdTotalMicro: totalMicro,
    holdCostTotalMicro: totalCostMicro,
  };
  return newEvent(hold.journal.stream, key, "HoldExtended.v1", data, metadata);
}

function usageEvent(
  parts: MoneyParts,
  hold: OpenHold,
  usage: UsageFacts,
  amounts: Pick<
    EventData<"UsageRecorded.v1">,
    "chargedMicro" | "overHoldMicro" | "residualPico" | "providerCostMicro" | "unbilledMicro"
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
    ...requestFacts(parts, hold),
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

/** Usage that came after its hold had ended: the company's expense, in the journal of the next life. */
async function noteLate(
  parts: MoneyParts,
  hold: OpenHold,
  tokens: Tokens,
  providerCostMicro: number,
): Promise<void> {
  const { requestId, orgId } = hold.ask;
  const epoch = hold.journal.writerEpoch;
  const facts = { requestId, orgId, epoch, tokens, providerCostMicro };
  const metadata = metadataAfter(parts, hold);
  const key = `late:${requestId}`;
  parts.background(note(parts, (to) => newEvent(to, key, "UsageLate.v1", facts, metadata)));
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
