import { buildCatalogue } from "#domain/catalogue/build.ts";
import { newEvent, streams, type NewEvent, type RecordedEvent } from "#domain/events/events.ts";
import type { EventData } from "#domain/events/schemas.ts";
import { sha256Hex } from "#domain/hash.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { systemClock } from "#infra/clock.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { createRedisKeyDirectory } from "#infra/key-directory/redis.ts";
import { createRedisProgress } from "#infra/redis/progress.ts";
import { openRedis, type RedisConnection } from "#infra/redis/connection.ts";
import {
  openHold,
  releaseHold,
  type MoneyParts,
  type OpenHold,
} from "#services/gateway/money/hold.ts";
import { makeOffer } from "#services/gateway/money/offer.ts";
import { openWriter, registerGateway } from "#services/gateway/money/writer.ts";
import { isSeen } from "#services/seen.ts";
import { OPENAI_CHAT } from "#services/gateway/shapes/openai-chat/shape.ts";
import { startLedger, type Ledger } from "#services/ledger/ledger.ts";
import type { AdmissionStore, KeyEntry } from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import { sleep } from "#services/waiting.ts";
import { registerWriter } from "#services/writers.ts";
import { chat } from "#test/samples/chat-bodies.ts";
import { foundingEvents, KEYS, ORG } from "./gateway-world.ts";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";

/**
 * A region's ledger and gateways as processes apart would run, on Redis servers that fail: each with connections of its
 * own, all on one event store in memory, by the machine's clock.
 */

export const PREFIX = "relai:";
/** What every hold here takes. */
export const HOLD_MICRO = 100;
const COMMAND_MS_MAX = 1000;
const RETRY_MS = 20;
const REGION = "us";

/** An admission that a Redis let in. */
export interface Admit {
  readonly requestId: string;
  readonly ownerEpoch: number;
  /** By `performance.now()`. */
  readonly askedAtMs: number;
}

export interface GatewayOnRedis {
  readonly redis: RedisConnection;
  /** What its admission store let in, whether or not it was recorded then. */
  readonly admits: readonly Admit[];
  /** Takes a hold as a request does: admitted and recorded, or the money is refused, or the ledger unavailable. */
  open(orgId?: string): Promise<OpenHold | "refused" | "unavailable">;
  /** Whose key has this hash, by the directory. Rejects where that cannot be said. */
  lookup(tokenHash: string): Promise<KeyEntry | undefined>;
  /** Opens holds and releases them, one after the other, until the signal; gives the longest time without one, in ms. */
  load(until: AbortSignal): Promise<{ opened: number; longestMs: number }>;
  /** Waits for what goes on after callers have had their answer. */
  atRest(): Promise<unknown>;
}

export type FailoverWorld = Awaited<ReturnType<typeof failoverWorld>>;

const metadata = {
  at: 1,
  region: REGION,
  actor: "control",
  $correlationId: "c",
  schema: 1,
} as const;

/** An organization beside the first, with as much credit, and its key. */
export function otherOrg(number: number) {
  const digits = `9${String(number).padStart(25, "0")}`;
  const [orgId, keyId] = [`org_${digits}`, `key_${digits}`];
  return { orgId, keyId, topUpId: `lot_${digits}`, tokenHash: sha256Hex(keyId) };
}

function otherOrgEvents(number: number, amountMicro: number): [string, NewEvent[]][] {
  const { orgId, keyId, topUpId, tokenHash } = otherOrg(number);
  const [org, key] = [streams.org(orgId), streams.key(keyId)];
  const [home, sha] = [{ homeRegion: REGION, name: "test" }, { bodySha256: sha256Hex("body") }];
  const money = { topUpId, amountMicro, source: "manual", pot: "paid" } as const;
  const facts = { ...home, ...sha, orgId, keyId, tokenHash, displayPrefix: "x", limits: {} };
  return [
    [
      org,
      [
        newEvent(org, "created", "OrganizationCreated.v1", { orgId, ...home, ...sha }, metadata),
        newEvent(org, topUpId, "CreditToppedUp.v1", { orgId, ...money, ...sha }, metadata),
      ],
    ],
    [key, [newEvent(key, "issued", "KeyIssued.v1", { ...facts, scope: "regional" }, metadata)]],
  ];
}

/**
 * `holds` of {@link HOLD_MICRO} is what each organization can pay for. With `isCluster` the addresses are servers of a
 * cluster, on which the key directory is too, and there are so many `others` beside the one organization.
 */
export async function failoverWorld(holds: number, { isCluster = false, others = 0 } = {}) {
  const clock = systemClock();
  const store = createMemoryEventStore({ clock });
  const ending = new AbortController();
  const alarms: string[] = [];
  const telemetry = { requestDone() {}, alarm: (what: string) => void alarms.push(what) };
  const founding = foundingEvents((at) => `key-${at}`, holds * HOLD_MICRO);
  for (let number = 0; number < others; number += 1)
    founding.push(...otherOrgEvents(number, holds * HOLD_MICRO));
  for (const [stream, events] of founding) await store.append(stream, events, "no_stream");
  const catalogue = buildCatalogue({ openai: false, simulator: true, processingArea: REGION });
  const sized = makeOffer(OPENAI_CHAT, catalogue, REGION, Buffer.from(chat()), 64);
  if ("code" in sized) throw new Error(`the request is refused: ${sized.code}`);
  const offer = { ...sized, holdMicro: HOLD_MICRO, holdCostMicro: HOLD_MICRO };
  const undo: (() => Promise<unknown>)[] = [];
  let requests = 0;
  let isOver = false;

  async function connect(urls: readonly string[]) {
    const redis = await openRedis({ urls, isCluster, commandMsMax: COMMAND_MS_MAX });
    undo.push(() => redis.close());
    const onFault = () => alarms.push("fault");
    return {
      redis,
      admission: createRedisAdmission({ redis, prefix: PREFIX, onFault }),
      directory: isCluster
        ? createRedisKeyDirectory({ redis, prefix: PREFIX, clock })
        : createMemoryKeyDirectory(),
      progress: createRedisProgress({ redis, prefix: PREFIX }),
    };
  }

  async function ledgerOn(urls: readonly string[], instance: string): Promise<Ledger> {
    const { admission, directory, progress } = await connect(urls);
    const author = { region: REGION, actor: "ledger" };
    const registered = { process: "ledger", instance } as const;
    const writerEpoch = await registerWriter(store, clock, author, registered);
    const projector = await startProjector({
      store,
      readModels: createMemoryReadModels(),
      clock,
      batchMs: 5,
      signal: ending.signal,
      onAlarm: telemetry.alarm,
    });
    const parts = { store, clock, telemetry, author, admission, directory, projector };
    const ledger = await startLedger({
      ...parts,
      writerEpoch,
      death: { by: "silence" },
      onApplied: (...told) => void progress.tell(...told).catch(() => {}),
    });
    undo.push(() => ledger.stop());
    return ledger;
  }

  async function gatewayOn(urls: readonly string[], name: string): Promise<GatewayOnRedis> {
    const { redis, admission: inner, directory } = await connect(urls);
    const author = { region: REGION, actor: "gateway" };
    const admits: Admit[] = [];
    const admission: AdmissionStore = {
      ...inner,
      async admit(ask) {
        const askedAtMs = performance.now();
        const answer = await inner.admit(ask);
        const { requestId, ownerEpoch } = ask;
        if (answer.outcome === "admitted") admits.push({ requestId, ownerEpoch, askedAtMs });
        return answer;
      },
    };
    // No signs of life: a gateway learns of a new owner by what it takes, and by nothing else.
    const beats = false;
    const writerParts = { store, admission, clock, telemetry, author, instance: name, beats };
    const writer = await openWriter(writerParts, await registerGateway(writerParts));
    undo.push(() => writer.stop());
    const background = new Set<Promise<void>>();
    const money: MoneyParts = {
      admission,
      clock,
      telemetry,
      writer,
      author,
      background: (work) => void background.add(work),
      untilRecorded: (charge) => charge,
    };
    async function open(orgId: string = ORG) {
      const life = writer.life();
      if (!life || isOver) throw new Error("the gateway has no journal");
      requests += 1;
      const requestId = `req_${String(requests).padStart(26, "0")}`;
      const keyId = orgId === ORG ? KEYS[0] : orgId.replace("org_", "key_");
      const caller = { orgId, keyId, clientRequestId: undefined };
      const opened = await openHold(money, life, { ...caller, requestId, offer });
      // A caller waits before it asks again.
      if (opened.outcome === "unavailable") await sleep(clock, RETRY_MS);
      return opened.outcome === "open" ? opened.hold : opened.outcome;
    }
    return {
      redis,
      admits,
      open,
      lookup: (tokenHash) => directory.lookup(tokenHash),
      async load(until) {
        let [opened, longestMs, last] = [0, 0, performance.now()];
        while (!until.aborted) {
          const hold = await open();
          longestMs = Math.max(longestMs, performance.now() - last);
          if (typeof hold === "string") continue;
          last = performance.now();
          opened += 1;
          const facts = { forwarded: false, clientGone: false, attempts: [], unbilledMicro: 0 };
          await releaseHold(hold, { reason: "client_gone", ...facts });
        }
        return { opened, longestMs };
      },
      atRest: () => Promise.all(background),
    };
  }

  /** Everything recorded, in its order. */
  async function events(): Promise<RecordedEvent[]> {
    const head = await store.head();
    const all: RecordedEvent[] = [];
    for await (const batch of store.follow({ after: "start", signal: ending.signal })) {
      all.push(...batch);
      if (head === "start" || (all.at(-1)?.position ?? -1n) >= head) break;
    }
    return all;
  }

  return {
    alarms,
    ledgerOn,
    gatewayOn,
    events,
    /** A control process' view: whether what was recorded of an organization up to a position can be seen. */
    async controlOn(urls: readonly string[]) {
      const { admission, directory, progress } = await connect(urls);
      return (...asked: [orgId: string, position: bigint, limitMs: number, tokenHash?: string]) =>
        isSeen({ admission, directory, progress, clock }, ...asked);
    },
    /** Adds a micro-dollar of credit; gives the position. */
    async topUp(orgId: string): Promise<bigint> {
      const stream = streams.org(orgId);
      const [last] = await store.read(stream, { from: "end", direction: "backward", max: 1 });
      const topUpId = `lot_8${orgId.slice(-12)}${String(last?.revision).padStart(13, "0")}`;
      const money = { amountMicro: 1, source: "manual", pot: "paid" } as const;
      const data = { orgId, topUpId, ...money, bodySha256: sha256Hex("body") };
      const event = newEvent(stream, topUpId, "CreditToppedUp.v1", data, metadata);
      const answer = await store.append(stream, [event], last?.revision ?? "no_stream");
      if (answer.outcome !== "appended") throw new Error(`not written: ${answer.outcome}`);
      return answer.position;
    },
    async owners(): Promise<EventData<"OwnerChanged.v1">[]> {
      const stream = streams.writers(REGION);
      const all = await store.read(stream, { from: "start", direction: "forward", max: 500 });
      return all.flatMap((event) => (event.type === "OwnerChanged.v1" ? [event.data] : []));
    },
    async close() {
      isOver = true;
      for (const each of undo.reverse()) await each();
      ending.abort();
      await store.close();
    },
  };
}
