import { journalEpoch, type Recorded, type RecordedEvent } from "#domain/events/events.ts";
import type { EventType, NoteType } from "#domain/events/schemas.ts";
import { limitsOf } from "#domain/key-limits.ts";
import type { Effect } from "./types.ts";

const NONE: readonly Effect[] = [];

/** The organization that an event belongs to, or undefined for the events of writers and journals themselves. */
export function orgOf(event: RecordedEvent): string | undefined {
  return "orgId" in event.data ? event.data.orgId : undefined;
}

/** What each event that is no note does. An event that moves money and stands in neither list does not compile. */
const EFFECTS: { [T in Exclude<EventType, NoteType>]: (event: Recorded<T>) => Effect } = {
  "OrganizationCreated.v1": () => ({ effect: "created" }),
  "CreditToppedUp.v1"({ data: { topUpId: lotId, pot, amountMicro: micro } }) {
    return { effect: "credited", lotId, pot, micro };
  },
  "KeyIssued.v1": ({ data }) => ({
    effect: "key_issued",
    keyId: data.keyId,
    limits: limitsOf(data),
  }),
  "KeyRevoked.v1": ({ data: { keyId } }) => ({ effect: "key_revoked", keyId }),
  "RequestAdmitted.v1"({ type, data, stream, position, revision }) {
    const { requestId, keyId, holdMicro: totalMicro, accounts } = data;
    const writerEpoch = journalEpoch(stream);
    if (writerEpoch === undefined)
      throw new RangeError(`${type} at ${position} is not in a journal`);
    const hold = { requestId, keyId, writerEpoch, totalMicro, accounts };
    return { effect: "hold_opened", ...hold, revision: Number(revision) };
  },
  "HoldExtended.v1"({ data: { requestId, holdTotalMicro: totalMicro, accounts }, revision }) {
    return { effect: "hold_extended", requestId, totalMicro, revision: Number(revision), accounts };
  },
  "UsageRecorded.v1": ({ data: { requestId, chargedMicro } }) => ({
    effect: "hold_closed",
    requestId,
    chargedMicro,
  }),
  "RequestReleased.v1": free,
  "RequestExpired.v1": free,
};

function free({ data }: Recorded<"RequestReleased.v1" | "RequestExpired.v1">): Effect {
  return { effect: "hold_closed", requestId: data.requestId, chargedMicro: 0 };
}

/**
 * What an event does to its organization's accounts. Pure: it never looks at any account, never chooses a lot; the
 * event carries all of it.
 */
export function effectsOf(event: RecordedEvent): readonly Effect[] {
  const effect = (EFFECTS as Partial<Record<EventType, (event: never) => Effect>>)[event.type];
  return effect ? [effect(event as never)] : NONE;
}
