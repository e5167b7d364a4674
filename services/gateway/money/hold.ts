import type { Binding } from "#domain/catalogue/types.ts";
import { newEvent } from "#domain/events/events.ts";
import type { AccountTaking, EventData, EventMetadata } from "#domain/events/schemas.ts";
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
export const FENCED_MS_MAX = 1000;
/** The admission store itself answers within this, or the admission is undone. */
const ADMIT_MS_MAX = 1000;
/** A caller waits this long for the journal; then it gets its error, and the journal goes on trying. */
export const RECORD_MS_MAX = 5000;

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
  /** The id of its RequestAdmitted, which caused every later event of the request. */
  readonly admittedId: string;
  /** Its terminal event is on its way: there must not be a second one. */
  isEnding: boolean;
  /** An extension went unanswered: it may still arrive, at any time. */
  isExtendedLate: boolean;
}

export type OpenOutcome =
  | { readonly outcome: "open"; readonly hold: OpenHold }
  | { readonly outcome: "refused"; readonly refused: AdmitRefused }
  | Unavailable;

interface Unavailable {
  readonly outcome: "unavailable";
  /** Goes on undoing what may have been taken; until it is through, the request is to keep its place in the journal. */
  readonly undoing?: Promise<void>;
}

/** Takes the hold and records it. After `open` the request may be forwarded; after anything else nothing is taken. */
export async function openHold(
  parts: MoneyParts,
  life: WriterLife,
  ask: HoldAsk,
): Promise<OpenOutcome> {
  const { journal } = life;
  const { requestId } = ask;
  const taken = await admitUnderOwner(parts, journal, ask);
  if (taken.outcome !== "admitted") return taken;
  const { admitted, ownerEpoch } = taken;
  const event = newEvent(
    journal.stream,
    `admitted:${requestId}`,
    "RequestAdmitted.v1",
    {
      ...requestFacts(parts, { ask, ownerEpoch, accounts: admitted.accounts }),
      holdMicro: ask.holdMicro,
      holdCostMicro: ask.holdCostMicro,
      model: ask.model,
      bindingIds: ask.bindings.map((binding) => binding.id),
      priceVersion: ask.priceVersion,
      ...(ask.clientRequestId === undefined ? {} : { clientRequestId: ask.clientRequestId }),
    },
    metadataOf(parts.clock, parts.author, requestId),
  );
  const hold: OpenHold = {
    ask,
    journal,
    admitted,
    ownerEpoch,
    totalMicro: ask.holdMicro,
    totalCostMicro: ask.holdCostMicro,
    accounts: admitted.accounts,
    admittedId: event.id,
    isEnding: false,
    isExtendedLate: false,
  };
  const recording = journal.record({ events: [event], takingUnder: ownerEpoch });
  const outcome = await within(parts.clock, RECORD_MS_MAX, recording);
  if (outcome !== TIMED_OUT && outcome.outcome === "recorded") return { outcome: "open", hold };
  const undoing = undoWhenKnown(parts, hold, recording);
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
): Promise<
  | { outcome: "admitted"; admitted: Admitted; ownerEpoch: number }
  | { outcome: "refused"; refused: AdmitRefused }
  | Unavailable
> {
  const { admission, clock, writer } = parts;
  const { writerEpoch } = journal;
  const { requestId, orgId, keyId, holdMicro } = ask;
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
      const undoing = dropHold(parts, orgId, ownerEpoch, requestId);
      parts.background(undoing);
      return { outcome: "unavailable", undoing };
    }
    if (answer.outcome === "admitted") return { outcome: "admitted", admitted: answer, ownerEpoch };
    if (answer.outcome === "refused") return { outcome: "refused", refused: answer };
    if (answer.fenced === "fault" || clock.elapsed() - begun >= FENCED_MS_MAX)
      return { outcome: "unavailable" };
    await renewOwner(parts, orgId, attempt);
  }
}

export async function renewOwner(parts: MoneyParts, orgId: string, attempt: number): Promise<void> {
  await parts.admission.want(orgId).catch(() => {});
  await within(
    parts.clock,
    FENCED_MS_MAX,
    parts.writer.refreshOwner().catch(() => {}),
  );
  await sleep(parts.clock, backOffMs(attempt, 10, 200));
}

/**
 * Repeats the drop until it is acknowledged, or the admission that it undoes can never be let in again: its owner is
 * over. A fence alone does not say so: while the newest owner has not adopted the organization yet, a drop is fenced,
 * and an admission that is still on its way would find it adopted.
 */
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
    if (answer?.outcome === "dropped") return;
    if (answer) {
      if (answer.fenced === "fault") return;
      await parts.writer.refreshOwner().catch(() => {});
      if (parts.writer.ownerEpoch() > ownerEpoch) return;
    }
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
    parts.background(parts.writer.refreshOwner().catch(() => {}));
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
    { ...requestFacts(parts, hold), holdMicro: hold.totalMicro, ...facts },
    metadataAfter(parts, hold),
  );
  hold.isEnding = true;
  const outcome = await hold.journal.record({ events: [event] });
  if (outcome.outcome === "recorded") await closeHold(parts, hold, 0);
}

/**
 * Frees the hold in the admission store; the event is durable, so whatever goes wrong here the ledger sets right. Where
 * an extension may still arrive it is left to the ledger: to extend a hold that was closed and whose end is not applied
 * yet is a fault, while an open one can be raised, and one whose end is applied is gone.
 */
export async function closeHold(
  parts: MoneyParts,
  hold: OpenHold,
  chargedMicro: number,
): Promise<void> {
  if (hold.isExtendedLate) return;
  const { orgId, requestId } = hold.ask;
  const ownerEpoch = parts.writer.ownerEpoch();
  const closing = parts.admission
    .close({ orgId, ownerEpoch, requestId, chargedMicro })
    .catch(() => undefined);
  await within(parts.clock, ADMIT_MS_MAX, closing);
}

/** What every event of a request repeats. */
export function requestFacts(
  parts: MoneyParts,
  hold: Pick<OpenHold, "ask" | "ownerEpoch" | "accounts">,
) {
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

/** The metadata of an event that an admission led to. */
export function metadataAfter(parts: MoneyParts, hold: OpenHold): EventMetadata {
  return metadataOf(parts.clock, parts.author, hold.ask.requestId, hold.admittedId);
}
