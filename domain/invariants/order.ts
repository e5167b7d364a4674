import type { RecordedEvent } from "#domain/events/events.ts";
import type { Report } from "./found.ts";

/**
 * 10 MONO: positions and the store's time never go down, revisions of a stream have no gap, owner epochs rise by one,
 * marks of a journal never name an older owner than the mark before.
 * 14 IDEMP: no event id and no request id is there twice; a repeat changes nothing.
 */
export function createOrderCheck(): (event: RecordedEvent, report: Report) => void {
  const revisions = new Map<string, bigint>();
  const marks = new Map<string, number>();
  const ids = new Set<string>();
  const admitted = new Set<string>();
  const lots = new Set<string>();
  let position = -1n;
  let recordedAt = 0;
  let ownerEpoch = 0;
  return (event, report) => {
    if (event.position <= position) report("MONO", `position ${event.position} after ${position}`);
    if (event.recordedAt < recordedAt) report("MONO", "the store's time went back");
    const revision = (revisions.get(event.stream) ?? -1n) + 1n;
    if (event.revision !== revision)
      report("MONO", `${event.stream} has revision ${event.revision} where ${revision} is due`);
    position = event.position;
    recordedAt = event.recordedAt;
    revisions.set(event.stream, event.revision);
    if (ids.has(event.id)) report("IDEMP", `event id ${event.id} is there twice`);
    ids.add(event.id);
    switch (event.type) {
      case "OwnerChanged.v1":
        if (event.data.ownerEpoch !== ownerEpoch + 1)
          report("MONO", `owner ${event.data.ownerEpoch} after ${ownerEpoch}`);
        ownerEpoch = event.data.ownerEpoch;
        return;
      case "OwnerFenced.v1": {
        if (event.data.ownerEpoch > ownerEpoch)
          report("MONO", `a fence names owner ${event.data.ownerEpoch}, who is not there yet`);
        const before = marks.get(event.stream) ?? 0;
        marks.set(event.stream, Math.max(before, event.data.ownerEpoch));
        return;
      }
      case "RequestAdmitted.v1":
        if (admitted.has(event.data.requestId))
          report("IDEMP", `${event.data.requestId} is admitted twice`);
        admitted.add(event.data.requestId);
        return;
      case "CreditToppedUp.v1":
        if (lots.has(event.data.topUpId))
          report("IDEMP", `${event.data.topUpId} is topped up twice`);
        lots.add(event.data.topUpId);
        return;
      case "HoldExtended.v1":
      case "JournalSealed.v1":
      case "KeyIssued.v1":
      case "KeyRevoked.v1":
      case "OrganizationCreated.v1":
      case "RequestExpired.v1":
      case "RequestReleased.v1":
      case "UsageLate.v1":
      case "UsageRecorded.v1":
      case "UsageUndelivered.v1":
      case "WriterAlive.v1":
      case "WriterStarted.v1":
        return;
    }
  };
}
