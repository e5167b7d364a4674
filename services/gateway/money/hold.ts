import { newEvent } from "#domain/events/events.ts";
import type { AccountTaking, EventData, EventMetadata } from "#domain/events/schemas.ts";
import type { Admitted, AdmitRefused, RateFigures } from "#domain/accounts/admission-types.ts";
import type { Journal, RecordOutcome } from "#services/journal.ts";
import type { GatewayParts } from "#services/gateway/parts.ts";
import { backOffMs, sleep, TIMED_OUT, within } from "#services/waiting.ts";
import { metadataOf, type Author } from "#services/writers.ts";
import type { Caller } from "#services/gateway/http/authenticate.ts";
import type { Offer } from "./offer.ts";
import type { Writer, WriterLife } from "./writer.ts";

/**
 * The money of one request. The order is the product's promise: taken in the admission store first, recorded in the
 * journal second, forwarded third; at the end recorded first, then closed, and only then the last bytes.
 */

/** Retries on a fence, and the wait for a new owner's money at the end, go on for this long. */
export const FENCED_MS_MAX = 1000;
/** The admission store itself answers within this, or the admission is undone and the ledger is unavailable. */
export const ADMIT_MS_MAX = 1000;
/** A caller waits this long for the journal; then it gets its error, and the journal goes on trying. */
export const RECORD_MS_MAX = 5000;

export interface MoneyParts extends Pick<GatewayParts, "admission" | "clock" | "telemetry"> {
  readonly writer: Writer;
  readonly author: Author;
  /** Work that goes on after the caller has had its answer; a stop waits for it. */
  readonly background: (work: Promise<void>) => void;
  /** Counts an answer as not recorded while it is being charged. */
  readonly untilRecorded: <T>(charge: Promise<T>) => Promise<T>;
}

/** Who is to hold what, and what the events of the request repeat. */
export interface HoldAsk extends Caller {
  readonly requestId: string;
  readonly clientRequestId: string | undefined;
  readonly offer: Offer;
}

/** A hold whose RequestAdmitted is durable. */
export interface OpenHold {
  readonly money: MoneyParts;
  readonly ask: HoldAsk;
  readonly journal: Journal;
  readonly rate: RateFigures | undefined;
  ownerEpoch: number;
  totalMicro: number;
  totalCostMicro: number;
  accounts: readonly AccountTaking[];
  /** The id of its RequestAdmitted, which caused every later event of the request. */
  readonly admittedId: string;
  /** Its terminal event is on its way: there must not be a second one. */
  isEnding: boolean;
  /** An extension went unanswered: it may still arrive, at any time. */
  isExtendedLate: boolean;
}

interface Unavailable {
  readonly outcome: "unavailable";
  /** Goes on undoing what may have been taken; until it is through, the request is to keep its place in the journal. */
  readonly undoing?: Promise<void>;
}

/** Takes the hold and records it. After `open` the request may be forwarded; after anything else nothing is taken. */
export async function openHold(
  parts: MoneyParts,
  { journal }: WriterLife,
  ask: HoldAsk,
): Promise<{ readonly outcome: "open"; readonly hold: OpenHold } | AdmitRefused | Unavailable> {
  const { requestId, clientRequestId, offer } = ask;
  const taken = await admitUnderOwner(parts, journal, ask);
  if (taken.outcome !== "admitted") return taken;
  const { ownerEpoch, accounts, rate } = taken;
  const { holdMicro, holdCostMicro } = offer;
  const event = newEvent(
    journal.stream,
    `admitted:${requestId}`,
    "RequestAdmitted.v1",
    {
      ...requestFacts({ money: parts, ask, ownerEpoch, accounts }),
      holdMicro,
      holdCostMicro,
      model: offer.ask.model,
      bindingIds: offer.candidates.map((binding) => binding.id),
      priceVersion: offer.priceVersion,
      ...(clientRequestId === undefined ? {} : { clientRequestId }),
    },
    metadataOf(parts.clock, parts.author, requestId),
  );
  const hold: OpenHold = {
    money: parts,
    ask,
    journal,
    rate,
    ownerEpoch,
    totalMicro: holdMicro,
    totalCostMicro: holdCostMicro,
    accounts,
    admittedId: event.id,
    isEnding: false,
    isExtendedLate: false,
  };
  const recording = journal.record({ events: [event], takingUnder: ownerEpoch });
  const outcome = await within(parts.clock, RECORD_MS_MAX, recording);
  const isRecorded = outcome !== TIMED_OUT && outcome.outcome === "recorded";
  // Of a process that was stopped meanwhile the journal may be sealed, and this hold be expired: nothing is forwarded.
  if (isRecorded && (journal.isFresh() || (await journal.look()))) return { outcome: "open", hold };
  const undoing = undoWhenKnown(hold, recording);
  if (outcome === TIMED_OUT) parts.background(undoing);
  else if ((await within(parts.clock, ADMIT_MS_MAX, undoing)) === TIMED_OUT)
    parts.background(undoing);
  return { outcome: "unavailable", undoing };
}

/** Asks the admission store under the newest owner; on a fence reads who that is and asks again, for up to a second. */
async function admitUnderOwner(
  parts: MoneyParts,
  journal: Journal,
  ask: HoldAsk,
): Promise<(Admitted & { readonly ownerEpoch: number }) | AdmitRefused | Unavailable> {
  const { admission, clock, writer } = parts;
  const { writerEpoch } = journal;
  const { requestId, orgId, keyId } = ask;
  const { holdMicro } = ask.offer;
  const begun = clock.elapsed();
  for (let attempt = 0; ; attempt++) {
    // What is taken behind our own seal nobody records and only the ledger finds; so a look comes first.
    if (!journal.isFresh() && !(await journal.look())) return { outcome: "unavailable" };
    const ownerEpoch = writer.ownerEpoch();
    const asked = admission
      .admit({ orgId, ownerEpoch, requestId, writerEpoch, keyId, holdMicro })
      .catch(() => undefined);
    const answer = await within(clock, ADMIT_MS_MAX, asked);
    if (answer === TIMED_OUT || answer === undefined) {
      // It may have taken the money; undone until that is acknowledged, and the id is not used again.
      const undoing = dropHold(parts, ask, ownerEpoch);
      parts.background(undoing);
      return { outcome: "unavailable", undoing };
    }
    if (answer.outcome === "admitted") return { ...answer, ownerEpoch };
    if (answer.outcome === "refused") return answer;
    const isOver = answer.fenced === "fault" || answer.fenced === "away";
    if (isOver || clock.elapsed() - begun >= FENCED_MS_MAX) return { outcome: "unavailable" };
    await renewOwner(parts, orgId, attempt);
  }
}

export async function renewOwner(parts: MoneyParts, orgId: string, attempt: number): Promise<void> {
  await parts.admission.want(orgId).catch(() => {});
  const refreshing = parts.writer.refreshOwner().catch(() => {});
  await within(parts.clock, FENCED_MS_MAX, refreshing);
  await sleep(parts.clock, backOffMs(attempt, 10, 200));
}

/**
 * Repeats the drop until it is acknowledged, or the admission that it undoes can never be let in again: its owner is
 * over. A fence alone does not say so: while the newest owner has not adopted the organization yet, a drop is fenced,
 * and an admission that is still on its way would find it adopted. Who gets no answer reads the newest owner too: the
 * server may be gone for good, and another one in its place.
 */
async function dropHold(parts: MoneyParts, ask: HoldAsk, ownerEpoch: number): Promise<void> {
  const { orgId, requestId } = ask;
  for (let attempt = 0; ; attempt++) {
    const answer = await parts.admission
      .drop({ orgId, ownerEpoch, requestId })
      .catch(() => undefined);
    if (answer?.outcome === "dropped" || answer?.fenced === "fault") return;
    await parts.writer.lookForOwner().catch(() => {});
    if (parts.writer.ownerEpoch() > ownerEpoch) return;
    await sleep(parts.clock, backOffMs(attempt, 50, 2000));
  }
}

/**
 * The caller gets its 503. If the admission turns out to be recorded after all, it is released; else dropped, in a
 * sealed journal too: the sweep after the seal may have been before this admission.
 */
async function undoWhenKnown(hold: OpenHold, recording: Promise<RecordOutcome>): Promise<void> {
  const { money, ask, ownerEpoch } = hold;
  const outcome = await recording;
  if (outcome.outcome === "recorded") {
    return finishRelease(hold, {
      reason: "ledger_timeout",
      forwarded: false,
      clientGone: false,
      attempts: [],
      unbilledMicro: 0,
    });
  }
  // The admission store took the money under an owner that is over: the next request must not ask under it again.
  if (outcome.outcome === "dropped" && outcome.why === "fenced")
    money.background(money.writer.refreshOwner().catch(() => {}));
  await dropHold(money, ask, ownerEpoch);
}

export type ReleaseFacts = Pick<
  EventData<"RequestReleased.v1">,
  "reason" | "forwarded" | "clientGone" | "attempts" | "unbilledMicro"
>;

/**
 * Ends a hold without a charge. Comes back when that is durable and the money is free again, or after the limit, and
 * then goes on by itself.
 */
export async function releaseHold(hold: OpenHold, facts: ReleaseFacts): Promise<void> {
  const { clock, background } = hold.money;
  const finishing = finishRelease(hold, facts);
  if ((await within(clock, RECORD_MS_MAX, finishing)) === TIMED_OUT) background(finishing);
}

async function finishRelease(hold: OpenHold, facts: ReleaseFacts): Promise<void> {
  const { stream } = hold.journal;
  const key = `ended:${hold.ask.requestId}`;
  const data = { ...requestFacts(hold), holdMicro: hold.totalMicro, ...facts };
  const event = newEvent(stream, key, "RequestReleased.v1", data, metadataAfter(hold));
  hold.isEnding = true;
  const outcome = await hold.journal.record({ events: [event] });
  if (outcome.outcome === "recorded") await closeHold(hold, 0);
}

/**
 * Frees the hold in the admission store; the event is durable, so whatever goes wrong here the ledger sets right. Where
 * an extension may still arrive it is left to the ledger: to extend a hold that was closed and whose end is not applied
 * yet is a fault, while an open one can be raised, and one whose end is applied is gone.
 */
export async function closeHold(hold: OpenHold, chargedMicro: number): Promise<void> {
  if (hold.isExtendedLate) return;
  const { admission, clock, writer } = hold.money;
  const { orgId, requestId } = hold.ask;
  const ask = { orgId, ownerEpoch: writer.ownerEpoch(), requestId, chargedMicro };
  const closing = admission.close(ask).catch(() => undefined);
  await within(clock, ADMIT_MS_MAX, closing);
}

/** What every event of a request repeats. */
export function requestFacts(hold: Pick<OpenHold, "money" | "ask" | "ownerEpoch" | "accounts">) {
  const { requestId, orgId, keyId, offer } = hold.ask;
  return {
    requestId,
    orgId,
    homeRegion: hold.money.author.region,
    keyId,
    processingArea: offer.processingArea,
    ownerEpoch: hold.ownerEpoch,
    accounts: [...hold.accounts],
  };
}

/** The metadata of an event that an admission led to. */
export function metadataAfter({ money, ask, admittedId }: OpenHold): EventMetadata {
  return metadataOf(money.clock, money.author, ask.requestId, admittedId);
}
