import type { RecordedEvent } from "#domain/events/events.ts";
import type { Report } from "./found.ts";

/**
 * 10 MONO: positions and the store's time never go down, revisions of a stream have no gap, owner epochs rise by one,
 * and no mark of a journal names an owner who is not there yet.
 * 14 IDEMP: no event id and no request id is there twice; a repeat changes nothing.
 */
export function createOrderCheck(report: Report): (event: RecordedEvent) => void {
  const revisions = new Map<string, bigint>();
  const ids = new Set<string>();
  const admitted = new Set<string>();
  const lots = new Set<string>();
  let position = -1n;
  let recordedAt = 0;
  let ownerEpoch = 0;
  return (event) => {
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
    if (event.type === "OwnerChanged.v1") {
      if (event.data.ownerEpoch !== ownerEpoch + 1)
        report("MONO", `owner ${event.data.ownerEpoch} after ${ownerEpoch}`);
      ownerEpoch = event.data.ownerEpoch;
    } else if (event.type === "OwnerFenced.v1") {
      if (event.data.ownerEpoch > ownerEpoch)
        report("MONO", `a fence names owner ${event.data.ownerEpoch}, who is not there yet`);
    } else if (event.type === "RequestAdmitted.v1") {
      if (admitted.has(event.data.requestId))
        report("IDEMP", `${event.data.requestId} is admitted twice`);
      admitted.add(event.data.requestId);
    } else if (event.type === "CreditToppedUp.v1") {
      if (lots.has(event.data.topUpId)) report("IDEMP", `${event.data.topUpId} is topped up twice`);
      lots.add(event.data.topUpId);
    }
  };
}
