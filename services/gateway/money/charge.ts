import type { Binding } from "#domain/catalogue/types.ts";
import { newEvent, type NewEvent } from "#domain/events/events.ts";
import type { EventData, EventMetadata, EventType } from "#domain/events/schemas.ts";
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
  type OpenHold,
} from "./hold.ts";

/** The end of an answered request: what it cost is taken, recorded, and only then is its hold closed. */

type UsageData = EventData<"UsageRecorded.v1">;

/** What an answer used, and how it came to be known. */
export interface UsageFacts {
  readonly tokens: Tokens;
  readonly binding: Binding;
  readonly serviceTier: UsageData["serviceTier"];
  /** The prices that apply: of the served tier and the context tier of these tokens. */
  readonly prices: ContextTier;
  readonly billedBy: UsageData["billedBy"];
  /** What the event repeats as it is. */
  readonly call: Pick<
    UsageData,
    "clientGone" | "attempts" | "firstByteMs" | "durationMs" | "finish"
  >;
}

/**
 * Charges a request: takes what passes the hold like any money, records, closes. Only after it has said what was charged
 * may the last bytes of the answer go out. Undefined when the hold had ended, and nobody is charged; or when the record
 * takes longer than a caller waits: it goes on in the background. The caller then gets an error.
 */
export async function chargeHold(hold: OpenHold, usage: UsageFacts): Promise<number | undefined> {
  const { clock, background, untilRecorded } = hold.money;
  const { requestId, orgId } = hold.ask;
  const charging = untilRecorded(finishCharge(hold, usage));
  const inTime = await within(clock, RECORD_MS_MAX, charging);
  if (inTime !== TIMED_OUT) return inTime;
  background(
    charging.then(async (chargedMicro) => {
      if (chargedMicro === undefined) return;
      await note(hold, "undelivered", "UsageUndelivered.v1", { requestId, orgId });
    }),
  );
  return undefined;
}

async function finishCharge(hold: OpenHold, usage: UsageFacts): Promise<number | undefined> {
  const { clock, writer, background } = hold.money;
  const { requestId, orgId } = hold.ask;
  const { tokens, prices } = usage;
  const sale = costOf(tokens, prices.salePico);
  const cost = costOf(tokens, prices.costPico);
  // From here on nothing throws that would leave the hold without its end: what can be wrong with the figures is behind us.
  hold.isEnding = true;
  let canRaise = true;
  for (let attempt = 0; ; attempt++) {
    const { totalMicro, totalCostMicro, accounts, ownerEpoch } = hold;
    if (canRaise && sale.micro > hold.totalMicro) await takeExcess(hold, sale.micro);
    const metadata = metadataAfter(hold);
    const data = usageEvent(hold, usage, sale, cost.micro);
    const { stream } = hold.journal;
    const ended = newEvent(stream, `ended:${requestId}`, "UsageRecorded.v1", data, metadata);
    const isRaised = hold.totalMicro > totalMicro;
    const events = isRaised ? [extension(hold, cost.micro, metadata), ended] : [ended];
    const outcome = await hold.journal.record({
      events,
      ...(isRaised ? { takingUnder: hold.ownerEpoch } : {}),
    });
    if (outcome.outcome === "recorded") {
      await closeHold(hold, data.chargedMicro);
      return data.chargedMicro;
    }
    // Without the excess it is smaller; too large even so, it ends with the seal of its journal, and charges nobody.
    const isTooLarge = outcome.outcome === "too_large";
    canRaise &&= !isTooLarge;
    if (outcome.outcome === "sealed" || (isTooLarge && !isRaised)) {
      // The company's expense, in the journal of the next life.
      const { writerEpoch: epoch } = hold.journal;
      const facts = { requestId, orgId, epoch, tokens, providerCostMicro: cost.micro };
      background(note(hold, "late", "UsageLate.v1", facts));
      return undefined;
    }
    // The excess was taken under an owner that is over, or the store refused it: computed anew from what is recorded.
    Object.assign(hold, { totalMicro, totalCostMicro, accounts, ownerEpoch });
    await sleep(clock, backOffMs(attempt, 10, 1000));
    const refreshing = writer.refreshOwner().catch(() => {});
    await within(clock, FENCED_MS_MAX, refreshing);
  }
}

/** Takes what a request used beyond its hold, as far as the money of all its accounts goes. */
async function takeExcess(hold: OpenHold, totalMicro: number): Promise<void> {
  const { admission, clock, writer } = hold.money;
  const { orgId, requestId } = hold.ask;
  const begun = clock.elapsed();
  for (let attempt = 0; ; attempt++) {
    const ownerEpoch = writer.ownerEpoch();
    const asked = admission
      .extend({ orgId, ownerEpoch, requestId, totalMicro })
      .catch(() => undefined);
    const answer = await within(clock, FENCED_MS_MAX, asked);
    if (answer === TIMED_OUT || answer === undefined) hold.isExtendedLate = true;
    else if (answer.outcome === "raised") {
      hold.ownerEpoch = ownerEpoch;
      hold.totalMicro = answer.totalMicro;
      hold.accounts = answer.accounts;
      return;
    } else if (answer.outcome === "gone" || answer.fenced === "fault") return;
    if (clock.elapsed() - begun >= FENCED_MS_MAX) return;
    await renewOwner(hold.money, orgId, attempt);
  }
}

function extension(hold: OpenHold, costMicro: number, metadata: EventMetadata): NewEvent {
  hold.totalCostMicro = Math.max(hold.totalCostMicro, costMicro);
  const { totalMicro, totalCostMicro } = hold;
  const key = `extended:${hold.ask.requestId}:${totalMicro}:${hold.ownerEpoch}`;
  const totals = { holdTotalMicro: totalMicro, holdCostTotalMicro: totalCostMicro };
  const data = { ...requestFacts(hold), ...totals };
  return newEvent(hold.journal.stream, key, "HoldExtended.v1", data, metadata);
}

function usageEvent(
  hold: OpenHold,
  usage: UsageFacts,
  sale: ReturnType<typeof costOf>,
  providerCostMicro: number,
): UsageData {
  const { binding, prices, serviceTier, billedBy } = usage;
  const chargedMicro = Math.min(sale.micro, hold.totalMicro);
  const unbilledMicro = Math.max(0, hold.totalCostMicro - providerCostMicro);
  const tokens: Tokens = {};
  const salePico: Partial<Record<TokenClass, number>> = {};
  const costPico: Partial<Record<TokenClass, number>> = {};
  for (const name of TOKEN_CLASSES) {
    const count = usage.tokens[name];
    if (!count) continue;
    tokens[name] = count;
    salePico[name] = prices.salePico[name];
    costPico[name] = prices.costPico[name];
  }
  return {
    ...requestFacts(hold),
    holdMicro: hold.totalMicro,
    model: hold.ask.offer.ask.model,
    bindingId: binding.id,
    priceVersion: binding.priceVersion,
    serviceTier,
    tokens,
    salePico,
    costPico,
    chargedMicro,
    overHoldMicro: sale.micro - chargedMicro,
    residualPico: sale.residualPico,
    providerCostMicro,
    // A provider that was not heard may bill up to what the request could cost; one that was bills what it said.
    ...(billedBy === "estimate" ? { unbilledMicro } : {}),
    billedBy,
    ...usage.call,
  };
}

const NOTE_ATTEMPTS_MAX = 200;

/** Writes a note without money into the journal of whatever life this gateway has by then. */
async function note<T extends EventType>(
  hold: OpenHold,
  what: string,
  type: T,
  data: EventData<T>,
): Promise<void> {
  const { clock, telemetry, writer } = hold.money;
  const key = `${what}:${hold.ask.requestId}`;
  const metadata = metadataAfter(hold);
  for (let attempt = 0; attempt < NOTE_ATTEMPTS_MAX; attempt++) {
    const journal = writer.life()?.journal;
    if (journal) {
      const event = newEvent(journal.stream, key, type, data, metadata);
      const outcome = await journal.record({ events: [event] });
      if (outcome.outcome === "recorded") return;
    }
    await sleep(clock, backOffMs(attempt, 50, 2000));
  }
  telemetry.alarm("note_not_written", {});
}
