import { createHash } from "node:crypto";
import { newEvent, streams, type NewEvent } from "#domain/events/events.ts";
import type { EventData } from "#domain/events/schemas.ts";
import { sha256Hex } from "#domain/hash.ts";
import { makeKeyText } from "#domain/key-text.ts";
import {
  idOf,
  metadata,
  organization,
  REGION,
  requestEvents,
  type Append,
} from "#test/bench/replay-events.ts";

/**
 * The life of a region with many customers: organizations with top-ups and a key each, then its processes, life after
 * life, with their requests. All are sealed but the last
 * gateways, which were killed in the middle.
 */

export interface Scale {
  readonly orgs: number;
  readonly events: number;
}

const LIVES = 25;
const GATEWAYS = 2;
/** So many requests of each gateway are running when it dies. */
const OPEN = 50;
const BATCH = 500;
/** Every so many organizations have another top-up. */
const RICH = 3;
const MORE_LOTS = 10_000_000;

/** The key of an organization. */
export function keyTextOf(org: number): string {
  let drawn = 0;
  return makeKeyText(REGION, () => createHash("sha512").update(`${org}/${drawn++}`).digest());
}

export const orgIdOf = (org: number): string => idOf("org", org);

/** All of it, append by append, each at the end of its stream. The number of events is met as nearly as whole lives allow. */
export function* history({ orgs, events }: Scale): Generator<Append> {
  for (let org = 0; org < orgs; org++) {
    const more = org % RICH === 0 ? [org + MORE_LOTS] : [];
    yield* organization(org, sha256Hex(keyTextOf(org)), more);
  }
  const requests = Math.floor((events - orgs * (3 + 1 / RICH)) / 2);
  const each = Math.floor(requests / LIVES / GATEWAYS);
  let number = 0;
  for (let life = 0; life < LIVES; life++) {
    const isLast = life === LIVES - 1;
    const ownerEpoch = life + 1;
    const ledger = life * (GATEWAYS + 2);
    yield begin(ledger, ownerEpoch);
    for (let gateway = 0; gateway < GATEWAYS; gateway++) {
      const writerEpoch = ledger + 2 + gateway;
      const numbers = Array.from({ length: each }, () => number++);
      yield* journal(numbers, { writerEpoch, ownerEpoch, orgs, isLast });
    }
    yield { stream: streams.journal(REGION, ledger), events: [sealed(ledger)] };
  }
}

/** A ledger, its claim, and the gateways: the epochs are the revisions of what they say in the stream of writers. */
function begin(ledger: number, ownerEpoch: number): Append {
  const stream = streams.writers(REGION);
  const by = metadata("bench");
  const started = (process: "ledger" | "gateway", writerEpoch: number) => {
    const instance = `${process}-${writerEpoch}`;
    return newEvent(stream, `started:${instance}`, "WriterStarted.v1", { process, instance }, by);
  };
  const claim = { ownerEpoch, writerEpoch: ledger, servers: [`server ${ownerEpoch}`] };
  const gateways = Array.from({ length: GATEWAYS }, (_, at) => started("gateway", ledger + 2 + at));
  const claimed = newEvent(stream, `owner:${ownerEpoch}:${ledger}`, "OwnerChanged.v1", claim, by);
  return { stream, events: [started("ledger", ledger), claimed, ...gateways] };
}

/** One gateway's journal: its requests, many of few organizations, those that were running at its end, and its seal. */
function* journal(
  numbers: readonly number[],
  life: { writerEpoch: number; ownerEpoch: number; orgs: number; isLast: boolean },
): Generator<Append> {
  const { writerEpoch, ownerEpoch, orgs, isLast } = life;
  const stream = streams.journal(REGION, writerEpoch);
  const running = new Set(numbers.slice(-OPEN));
  const open: NewEvent<"RequestAdmitted.v1">[] = [];
  let events: NewEvent[] = [];
  for (const number of numbers) {
    const org = Math.floor(orgs * drawn(number) ** 2);
    const [admitted, used] = requestEvents(number, { org, writerEpoch, ownerEpoch });
    events.push(admitted);
    if (running.has(number)) open.push(admitted);
    else events.push(used);
    if (events.length < BATCH) continue;
    yield { stream, events };
    events = [];
  }
  if (!isLast) events.push(sealed(writerEpoch), ...open.map((one) => expired(stream, one)));
  if (events.length > 0) yield { stream, events };
}

function sealed(writerEpoch: number): NewEvent {
  const stream = streams.journal(REGION, writerEpoch);
  return newEvent(stream, "sealed", "JournalSealed.v1", { by: "ledger" }, metadata(stream));
}

function expired(stream: string, { data }: NewEvent<"RequestAdmitted.v1">): NewEvent {
  const { requestId, orgId, homeRegion, keyId, processingArea, ownerEpoch, accounts } = data;
  const whose = { requestId, orgId, homeRegion, keyId, processingArea, ownerEpoch, accounts };
  const { holdMicro, holdCostMicro: unbilledMicro } = data;
  const ended: EventData<"RequestExpired.v1"> = { ...whose, holdMicro, unbilledMicro };
  return newEvent(stream, `ended:${requestId}`, "RequestExpired.v1", ended, metadata(requestId));
}

/** From 0 to 1, the same for a number each time. */
function drawn(number: number): number {
  return (Math.imul(number + 1, 0x9e3779b1) >>> 0) / 2 ** 32;
}
