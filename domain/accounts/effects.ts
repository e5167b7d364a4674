import { journalEpoch, type RecordedEvent } from "#domain/events/events.ts";
import { limitsOf } from "#domain/key-limits.ts";
import type { Effect } from "./types.ts";

const NONE: readonly Effect[] = [];

/** The organization that an event belongs to, or undefined for the events of writers and journals themselves. */
export function orgOf(event: RecordedEvent): string | undefined {
  return "orgId" in event.data ? event.data.orgId : undefined;
}

/**
 * What an event does to its organization's accounts. Pure: it never looks at any account, never chooses a lot; the
 * event carries all of it. Notes (UsageLate, UsageUndelivered) and the marks of journals move no money.
 */
export function effectsOf(event: RecordedEvent): readonly Effect[] {
  switch (event.type) {
    case "OrganizationCreated.v1":
      return [{ effect: "created" }];
    case "CreditToppedUp.v1": {
      const { topUpId: lotId, pot, amountMicro: micro } = event.data;
      return [{ effect: "credited", lotId, pot, micro }];
    }
    case "KeyIssued.v1":
      return [{ effect: "key_issued", keyId: event.data.keyId, limits: limitsOf(event.data) }];
    case "KeyRevoked.v1":
      return [{ effect: "key_revoked", keyId: event.data.keyId }];
    case "RequestAdmitted.v1": {
      const { requestId, keyId, holdMicro: totalMicro, accounts } = event.data;
      const writerEpoch = journalEpoch(event.stream);
      if (writerEpoch === undefined)
        throw new RangeError(`${event.type} at ${event.position} is not in a journal`);
      const revision = Number(event.revision);
      const hold = { requestId, keyId, writerEpoch, totalMicro, revision, accounts };
      return [{ effect: "hold_opened", ...hold }];
    }
    case "HoldExtended.v1": {
      const { requestId, holdTotalMicro: totalMicro, accounts } = event.data;
      const revision = Number(event.revision);
      return [{ effect: "hold_extended", requestId, totalMicro, revision, accounts }];
    }
    case "UsageRecorded.v1": {
      const { requestId, chargedMicro } = event.data;
      return [{ effect: "hold_closed", requestId, chargedMicro }];
    }
    case "RequestReleased.v1":
    case "RequestExpired.v1":
      return [{ effect: "hold_closed", requestId: event.data.requestId, chargedMicro: 0 }];
    case "UsageLate.v1":
    case "UsageUndelivered.v1":
    case "WriterStarted.v1":
    case "OwnerChanged.v1":
    case "WriterAlive.v1":
    case "OwnerFenced.v1":
    case "JournalSealed.v1":
      return NONE;
  }
}
