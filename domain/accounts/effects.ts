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
    case "CreditToppedUp.v1":
      return [
        {
          effect: "credited",
          lotId: event.data.topUpId,
          pot: event.data.pot,
          micro: event.data.amountMicro,
        },
      ];
    case "KeyIssued.v1":
      return [{ effect: "key_issued", keyId: event.data.keyId, limits: limitsOf(event.data) }];
    case "KeyRevoked.v1":
      return [{ effect: "key_revoked", keyId: event.data.keyId }];
    case "RequestAdmitted.v1": {
      const { requestId, keyId, holdMicro, accounts } = event.data;
      const writerEpoch = journalEpoch(event.stream);
      if (writerEpoch === undefined)
        throw new RangeError(`${event.type} at ${event.position} is not in a journal`);
      const revision = Number(event.revision);
      return [
        {
          effect: "hold_opened",
          requestId,
          keyId,
          writerEpoch,
          totalMicro: holdMicro,
          revision,
          accounts,
        },
      ];
    }
    case "HoldExtended.v1": {
      const { requestId, holdTotalMicro, accounts } = event.data;
      const revision = Number(event.revision);
      return [
        { effect: "hold_extended", requestId, totalMicro: holdTotalMicro, revision, accounts },
      ];
    }
    case "UsageRecorded.v1":
      return [
        {
          effect: "hold_closed",
          requestId: event.data.requestId,
          chargedMicro: event.data.chargedMicro,
        },
      ];
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
