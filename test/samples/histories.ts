import { createHash } from "node:crypto";
import { applyEffect } from "#domain/accounts/holds.ts";
import {
  availableMicro,
  budgetAvailableMicro,
  emptyAccounts,
  fromSnapshot,
  take,
  toSnapshot,
  type Accounts,
} from "#domain/accounts/accounts.ts";
import { effectsOf } from "#domain/accounts/effects.ts";
import {
  newEvent,
  readEvent,
  streams,
  type NewEvent,
  type RecordedEvent,
} from "#domain/events/events.ts";
import type { AccountTaking, EventMetadata } from "#domain/events/schemas.ts";
import {
  BINDING,
  common,
  expired,
  PRICE_VERSION,
  REGION,
  released,
  used,
  type Fact,
  type OpenRequest,
} from "./history-facts.ts";

/** One append: events of one stream, to be written at its end. */
export interface Append {
  readonly stream: string;
  readonly events: readonly NewEvent[];
}

/** A random number generator of its own, so that a seed gives the same history for ever: mulberry32. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** An id of the right form that is different for each number. */
function idOf(prefix: string, number: number): string {
  let text = "";
  for (let rest = number; text.length < 26; rest = Math.floor(rest / 32))
    text = DIGITS.charAt(rest % 32) + text;
  return `${prefix}_${text}`;
}

/** The state that a history is made from: real accounts, so that what it records could have happened. */
interface World {
  readonly random: () => number;
  readonly orgs: Map<string, Accounts>;
  readonly open: OpenRequest[];
  /** Requests that ended without usage: a late note may still come for them. */
  readonly ended: OpenRequest[];
  readonly revisions: Map<string, number>;
  position: number;
  made: number;
  atMs: number;
}

/**
 * Appends of a plausible life: organizations, top-ups, keys with and without budget, revocations, requests that are
 * admitted, extended, charged, released or expired, notes that come late. Money is taken by the rules of the domain,
 * so every event holds. The same seed gives the same events; about `count` of them.
 */
export function* histories(seed: number, count: number): Generator<Append> {
  const world: World = {
    random: seeded(seed),
    orgs: new Map(),
    open: [],
    ended: [],
    revisions: new Map(),
    position: 0,
    made: 0,
    atMs: 1_790_000_000_000,
  };
  yield append(world, streams.writers(REGION), [
    ["started", "WriterStarted.v1", { process: "gateway", instance: "one" }],
  ]);
  for (let number = 0; number < 3; number += 1) yield* organization(world);
  while (world.position < count) yield* step(world);
}

function* step(world: World): Generator<Append> {
  const dice = world.random();
  const open = pick(world, world.open);
  if (dice < 0.005) yield* organization(world);
  else if (dice < 0.02) yield* topUp(world, pick(world, [...world.orgs.values()]));
  else if (dice < 0.03) yield* issueKey(world, pick(world, [...world.orgs.values()]));
  else if (dice < 0.035) yield* revokeKey(world);
  else if (dice < 0.04) yield* lateNote(world);
  else if (dice < 0.045)
    yield append(world, journal(1), [[`alive:${world.made}`, "WriterAlive.v1", {}]]);
  else if (dice < 0.52 || !open) yield* admission(world);
  else if (dice < 0.57) yield* extension(world, open);
  else yield* end(world, open);
}

function pick<T>(world: World, from: readonly T[]): T | undefined {
  return from[Math.floor(world.random() * from.length)];
}

const journal = (writerEpoch: number) => streams.journal(REGION, writerEpoch);
const sha = (text: string) => createHash("sha256").update(text).digest("hex");

/** Makes the events and carries them into the world's accounts, as the ledger would. */
function append(world: World, stream: string, facts: readonly Fact[]): Append {
  world.atMs += Math.floor(world.random() * 50);
  const metadata: EventMetadata = {
    at: world.atMs,
    region: REGION,
    actor: "gateway",
    $correlationId: `history-${world.position}`,
    schema: 1,
  };
  const events = facts.map(([key, type, data]) => newEvent(stream, key, type, data, metadata));
  for (const event of events) {
    const recorded = record(world, stream, event);
    if (!("orgId" in recorded.data)) continue;
    const { orgId } = recorded.data;
    let accounts = world.orgs.get(orgId);
    if (!accounts) world.orgs.set(orgId, (accounts = emptyAccounts(orgId)));
    for (const effect of effectsOf(recorded)) applyEffect(accounts, effect);
  }
  return { stream, events };
}

/** An event as a store gives it back: read from its own text. */
function record(
  at: Pick<World, "revisions" | "position" | "atMs">,
  stream: string,
  event: NewEvent,
): RecordedEvent {
  const revision = (at.revisions.get(stream) ?? -1) + 1;
  at.revisions.set(stream, revision);
  at.position += 1;
  const { id, type, dataJson, metadataJson } = event;
  return readEvent(
    {
      id,
      type,
      stream,
      revision: BigInt(revision),
      position: BigInt(at.position),
      recordedAt: at.atMs,
    },
    dataJson,
    metadataJson,
  );
}

/** The events of appends as one store would give them back: positions from 1, revisions by stream. */
export function recorded(appends: Iterable<Append>): RecordedEvent[] {
  const at = { revisions: new Map<string, number>(), position: 0, atMs: 1_790_000_000_000 };
  const events: RecordedEvent[] = [];
  for (const { stream, events: news } of appends)
    for (const event of news) {
      at.atMs += 3;
      events.push(record(at, stream, event));
    }
  return events;
}

function* organization(world: World): Generator<Append> {
  const orgId = idOf("org", (world.made += 1));
  yield append(world, streams.org(orgId), [
    [
      "created",
      "OrganizationCreated.v1",
      { orgId, name: `Org ${world.made}`, homeRegion: REGION, bodySha256: sha(orgId) },
    ],
  ]);
  yield* topUp(world, world.orgs.get(orgId));
  yield* issueKey(world, world.orgs.get(orgId));
  yield* issueKey(world, world.orgs.get(orgId));
}

function* topUp(world: World, org: Accounts | undefined): Generator<Append> {
  if (!org) return;
  const topUpId = idOf("lot", (world.made += 1));
  const amountMicro = 1 + Math.floor(world.random() * 500_000);
  const { orgId } = org;
  yield append(world, streams.org(orgId), [
    [
      `topped:${topUpId}`,
      "CreditToppedUp.v1",
      { orgId, topUpId, amountMicro, source: "manual", pot: "paid", bodySha256: sha(topUpId) },
    ],
  ]);
}

function* issueKey(world: World, org: Accounts | undefined): Generator<Append> {
  if (!org) return;
  const keyId = idOf("key", (world.made += 1));
  const budgetMicro = 1 + Math.floor(world.random() * 1_000_000);
  yield append(world, streams.key(keyId), [
    [
      "issued",
      "KeyIssued.v1",
      {
        keyId,
        orgId: org.orgId,
        scope: "regional",
        homeRegion: REGION,
        name: "key",
        tokenHash: sha(keyId),
        displayPrefix: "relai_sk_us_live_abcd",
        limits: world.random() < 0.5 ? { rpm: 60 } : {},
        ...(world.random() < 0.5
          ? { budget: { period: "total" as const, micro: budgetMicro } }
          : {}),
        ...(world.random() < 0.2 ? { expiresAt: world.atMs + 86_400_000 } : {}),
        bodySha256: sha(`body of ${keyId}`),
      },
    ],
  ]);
}

function* revokeKey(world: World): Generator<Append> {
  const org = pick(world, [...world.orgs.values()]);
  const key = org && pick(world, [...org.keys.values()]);
  if (!org || !key || key.revoked) return;
  const { keyId } = key;
  yield append(world, streams.key(keyId), [
    ["revoked", "KeyRevoked.v1", { keyId, orgId: org.orgId, tokenHash: sha(keyId) }],
  ]);
}

function* admission(world: World): Generator<Append> {
  const org = pick(world, [...world.orgs.values()]);
  const key = org && pick(world, [...org.keys.values()]);
  if (!org || !key || key.revoked) return;
  const spendable = Math.min(availableMicro(org), budgetAvailableMicro(key));
  if (spendable < 1) {
    yield* topUp(world, org);
    return;
  }
  const holdMicro = Math.min(spendable, 1 + Math.floor(world.random() * 40_000));
  const opened: OpenRequest = {
    requestId: idOf("req", (world.made += 1)),
    orgId: org.orgId,
    keyId: key.keyId,
    writerEpoch: Math.floor(world.random() * 3),
    takings: takingsOf(org, key.keyId, holdMicro),
    holdMicro,
  };
  world.open.push(opened);
  yield append(world, journal(opened.writerEpoch), [
    [
      `admitted:${opened.requestId}`,
      "RequestAdmitted.v1",
      {
        ...common(opened),
        holdMicro,
        holdCostMicro: holdMicro,
        model: "gpt-4o-mini",
        bindingIds: [BINDING],
        priceVersion: PRICE_VERSION,
      },
    ],
  ]);
}

/** The split of an amount as admission would choose it now; the accounts themselves change with the event. */
function takingsOf(org: Accounts, keyId: string, micro: number): AccountTaking[] {
  const copy = fromSnapshot(toSnapshot(org));
  const key = copy.keys.get(keyId);
  if (!key) throw new Error(`there is no key ${keyId}`);
  return take(copy, key, micro);
}

/** Raises a hold: what it has is given back and the whole is taken anew, as a new split. */
function* extension(world: World, request: OpenRequest): Generator<Append> {
  const org = world.orgs.get(request.orgId);
  const key = org?.keys.get(request.keyId);
  if (!org || !key) return;
  const spendable = Math.min(availableMicro(org), budgetAvailableMicro(key));
  const more = Math.min(spendable, Math.floor(world.random() * 20_000));
  if (more < 1) return;
  const added = takingsOf(org, request.keyId, more);
  request.takings = request.takings.map((taking, at) => ({
    ...taking,
    micro: taking.micro + more,
    ...(taking.lots ? { lots: [...taking.lots, ...(added[at]?.lots ?? [])] } : {}),
  }));
  request.holdMicro += more;
  yield append(world, journal(request.writerEpoch), [
    [
      `extended:${request.requestId}:${request.holdMicro}:1`,
      "HoldExtended.v1",
      {
        ...common(request),
        holdTotalMicro: request.holdMicro,
        holdCostTotalMicro: request.holdMicro,
      },
    ],
  ]);
}

function* end(world: World, request: OpenRequest): Generator<Append> {
  world.open.splice(world.open.indexOf(request), 1);
  const dice = world.random();
  if (dice >= 0.8) world.ended.push(request);
  const stream = journal(request.writerEpoch);
  const fact =
    dice < 0.8 ? used(world.random, request) : dice < 0.9 ? released(request) : expired(request);
  yield append(world, stream, [fact]);
}

function* lateNote(world: World): Generator<Append> {
  const request = pick(world, world.ended);
  if (!request) return;
  const { requestId, orgId, writerEpoch } = request;
  world.ended.splice(world.ended.indexOf(request), 1);
  yield append(world, journal(writerEpoch + 3), [
    [
      `late:${requestId}`,
      "UsageLate.v1",
      {
        requestId,
        orgId,
        epoch: writerEpoch,
        tokens: { input: 1_200, output: 50 },
        providerCostMicro: 210,
      },
    ],
  ]);
}
