import { streams, type Recorded, type RecordedEvent } from "#domain/events/events.ts";
import type { AccountTaking, EventData, EventType } from "#domain/events/schemas.ts";
import type { Report } from "./found.ts";

/** A request's hold as the events tell it. */
export interface AuditedHold {
  readonly requestId: string;
  readonly stream: string;
  totalMicro: number;
  costTotalMicro: number;
  accounts: readonly AccountTaking[];
  /** The event that ended it; undefined while it is open. */
  ended: Terminal["type"] | undefined;
}

/** An event of a request is looked at or does not compile; what else it says of writers is looked at beside it. */
type OfRequests = {
  [T in EventType]: EventData<T> extends { requestId: string } ? T : never;
}[EventType];
type OfWriters = "WriterStarted.v1" | "OwnerChanged.v1" | "OwnerFenced.v1" | "JournalSealed.v1";
type Checks = { readonly [T in OfRequests | OfWriters]: (event: Recorded<T>) => void };

export type Terminal = Extract<
  RecordedEvent,
  { type: "UsageRecorded.v1" | "RequestReleased.v1" | "RequestExpired.v1" }
>;

/**
 * 5 HOLDCAP: a charge is never above its hold with its extensions, and the terminal event repeats exactly that hold.
 * 7 CLOSE: every hold has exactly one terminal event, in its own journal; behind a seal only expiries (and late marks)
 * follow, and an expiry only behind a seal; a late note never goes with a charge.
 * 13 FENCE: no taking under an older owner stands behind a fence, nor in the journal of a writer that registered
 * after the newer owner had claimed.
 */
export function createHoldCheck(report: Report) {
  const holds = new Map<string, AuditedHold>();
  const open = new Set<AuditedHold>();
  const sealed = new Set<string>();
  const fencedBelow = new Map<string, number>();
  const late = new Set<string>();
  let ownerEpoch = 0;

  function taking(stream: string, under: number, requestId: string): void {
    const fence = fencedBelow.get(stream);
    if (fence === undefined) report("FENCE", `${stream} belongs to no writer that registered`);
    else if (under < fence)
      report("FENCE", `${requestId} takes money under owner ${under} behind the fence of ${fence}`);
    if (under > ownerEpoch) report("FENCE", `${requestId} names owner ${under}, who never claimed`);
  }

  function ends(event: Terminal): void {
    const { requestId, holdMicro, accounts } = event.data;
    const hold = holds.get(requestId);
    if (!hold) return report("CLOSE", `${requestId} ends and was never admitted`);
    if (hold.ended !== undefined)
      report("CLOSE", `${requestId} ends by ${event.type} after ${hold.ended}`);
    if (hold.stream !== event.stream)
      report("CLOSE", `${requestId} ends in ${event.stream}, not in ${hold.stream}`);
    if (holdMicro !== hold.totalMicro || JSON.stringify(accounts) !== JSON.stringify(hold.accounts))
      report("HOLDCAP", `${requestId} ends with another hold than it had`);
    if (event.type === "UsageRecorded.v1") {
      if (event.data.chargedMicro > hold.totalMicro)
        report("HOLDCAP", `${requestId} is charged ${event.data.chargedMicro} of ${holdMicro}`);
      if (late.has(requestId)) report("CLOSE", `${requestId} is charged and noted as late`);
    } else if (event.data.unbilledMicro > hold.costTotalMicro) {
      report("HOLDCAP", `${requestId} books more as unbilled than it could cost`);
    }
    if (event.type === "RequestExpired.v1" && event.data.unbilledMicro !== hold.costTotalMicro)
      report("CLOSE", `${requestId} expires without its cost bound`);
    hold.ended = event.type;
    open.delete(hold);
  }

  function take(event: RecordedEvent): void {
    const mayFollowSeal = event.type === "RequestExpired.v1" || event.type === "OwnerFenced.v1";
    if (sealed.has(event.stream) && !mayFollowSeal)
      report("CLOSE", `${event.type} stands behind the seal of ${event.stream}`);
    const check = checks[event.type as keyof Checks] as ((event: never) => void) | undefined;
    check?.(event as never);
  }

  const checks: Checks = {
    "WriterStarted.v1"({ metadata, revision }) {
      fencedBelow.set(streams.journal(metadata.region, Number(revision)), ownerEpoch);
    },
    "OwnerChanged.v1"({ data }) {
      ownerEpoch = Math.max(ownerEpoch, data.ownerEpoch);
    },
    "OwnerFenced.v1"({ stream, data }) {
      fencedBelow.set(stream, Math.max(fencedBelow.get(stream) ?? 0, data.ownerEpoch));
    },
    "JournalSealed.v1": ({ stream }) => void sealed.add(stream),
    "RequestAdmitted.v1"({ stream, data }) {
      const { requestId, holdMicro, holdCostMicro, accounts } = data;
      taking(stream, data.ownerEpoch, requestId);
      const totals = { totalMicro: holdMicro, costTotalMicro: holdCostMicro };
      const hold = { requestId, stream, ...totals, accounts, ended: undefined };
      holds.set(requestId, hold);
      open.add(hold);
    },
    "HoldExtended.v1"({ stream, data }) {
      const { requestId, holdTotalMicro, holdCostTotalMicro, accounts } = data;
      taking(stream, data.ownerEpoch, requestId);
      const hold = holds.get(requestId);
      if (!hold || hold.ended !== undefined)
        return report("CLOSE", `${requestId} is extended and not open`);
      if (holdTotalMicro <= hold.totalMicro)
        report("MONO", `${requestId} is extended to ${holdTotalMicro} from ${hold.totalMicro}`);
      hold.totalMicro = holdTotalMicro;
      hold.costTotalMicro = holdCostTotalMicro;
      hold.accounts = accounts;
    },
    "UsageRecorded.v1": ends,
    "RequestReleased.v1": ends,
    "RequestExpired.v1"(event) {
      if (!sealed.has(event.stream))
        report("CLOSE", `${event.data.requestId} expires in a journal that is not sealed`);
      ends(event);
    },
    "UsageLate.v1"({ data: { requestId } }) {
      if (late.has(requestId)) report("IDEMP", `${requestId} is noted as late twice`);
      late.add(requestId);
      if (holds.get(requestId)?.ended === "UsageRecorded.v1")
        report("CLOSE", `${requestId} is charged and noted as late`);
    },
    "UsageUndelivered.v1": () => {},
  };

  /** The oldest owner under whom a taking can still be recorded: every journal that is not sealed is fenced for older ones. */
  function oldestOwner(): number {
    const fences = [...fencedBelow].filter(([stream]) => !sealed.has(stream));
    return Math.min(ownerEpoch, ...fences.map(([, fence]) => fence));
  }

  return {
    oldestOwner,
    take,
    holds: holds as ReadonlyMap<string, AuditedHold>,
    open: open as ReadonlySet<AuditedHold>,
    /** Journals that are sealed and still have open holds: CLOSE is broken when nobody will write their expiries. */
    sealedWithOpenHolds: (): string[] => {
      const streams = new Set([...open].map(({ stream }) => stream));
      return [...streams.intersection(sealed)];
    },
  };
}
