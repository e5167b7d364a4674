import { expect } from "vitest";
import { buildCatalogue } from "#domain/catalogue/build.ts";
import { newEvent, streams, type NewEvent, type RecordedEvent } from "#domain/events/events.ts";
import type { EventMetadata } from "#domain/events/schemas.ts";
import { sha256Hex } from "#domain/hash.ts";
import { makeKeyText } from "#domain/key-text.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import type { GatewayLimits, GatewayRequest } from "#services/gateway/parts.ts";
import type { Ledger } from "#services/ledger/ledger.ts";
import type { AdmissionStore, AppendOutcome, EventStore, Random } from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import { openEmbedded, type RegionParts } from "#services/start/embedded.ts";
import { chat } from "#test/samples/chat-bodies.ts";
import { answerTo, exchange, type Handle, type SeenAnswer, type SeenCall } from "./gateway-ends.ts";
import { manualClock, type ManualClock } from "#test/doubles/manual-clock.ts";

/** One gateway and its ledger on parts in memory, under a clock, a store, an upstream and clients that obey the test. */

export const ORG = "org_00000000000000000000000001";
export const KEYS = ["key_00000000000000000000000001", "key_00000000000000000000000002"] as const;
const LOT = "lot_00000000000000000000000001";
export const FUNDED_MICRO = 100_000;
export const CREDENTIAL = "our-credential-at-the-upstream";
const metadata: EventMetadata = {
  at: 1,
  region: "us",
  actor: "control",
  $correlationId: "setup",
  schema: 1,
};

/** Bytes that differ with every draw. */
function counting(): Random {
  let drawn = 0;
  return {
    bytes(count) {
      drawn += 1;
      return Uint8Array.from({ length: count }, (_, at) => (at < 3 ? drawn >> (8 * at) : at) & 255);
    },
  };
}

export interface GatewayWorld {
  readonly clock: ManualClock;
  readonly gateway: Gateway;
  readonly ledger: Ledger;
  readonly admission: AdmissionStore;
  readonly store: EventStore;
  readonly calls: SeenCall[];
  readonly alarms: string[];
  readonly counted: { status: number; code: string }[];
  readonly keys: readonly [plain: string, limited: string];
  /** Decides over each append from now on; undefined lets it pass. */
  judge: ((events: readonly NewEvent[]) => AppendOutcome | undefined) | undefined;
  /** Appends wait from now on until `release`. */
  stall(): void;
  release(): void;
  /** The events of every journal, in the order of the store. */
  recorded(): Promise<RecordedEvent[]>;
  types(): Promise<string[]>;
  balance(): Promise<{ available: number; held: number; spent: number }>;
  request(changes?: RequestChanges): GatewayRequest;
  ask(handle: Handle, changes?: RequestChanges & { slow?: boolean; left?: boolean }): SeenAnswer;
  /** Everything that the world promises when it rests: no open hold, no room taken, every hold ended once. */
  expectAtRest(): Promise<void>;
}

/** `more` adds headers; one that is undefined is left out. */
export type RequestChanges = Partial<GatewayRequest> & {
  text?: string;
  more?: Record<string, string | undefined>;
};

const LIMITS: GatewayLimits = {
  bodyBytesMax: 10_000,
  bodyDepthMax: 64,
  answerBytesMax: 10_000,
  inFlightBytesMax: 100_000,
  readOnMs: 60_000,
  readOnBytesMax: 4_000,
  clientIdleMs: 30_000,
};

/** The events that fund the organization and issue its keys, by the stream that they begin. */
export function foundingEvents(
  keyText: (at: number) => string,
  fundedMicro: number,
): [string, NewEvent[]][] {
  const org = streams.org(ORG);
  const sha = sha256Hex("body");
  const common = { orgId: ORG, bodySha256: sha };
  return [
    [
      org,
      [
        newEvent(
          org,
          "created",
          "OrganizationCreated.v1",
          { ...common, name: "test", homeRegion: "us" },
          metadata,
        ),
        newEvent(
          org,
          LOT,
          "CreditToppedUp.v1",
          { ...common, topUpId: LOT, amountMicro: fundedMicro, source: "manual", pot: "paid" },
          metadata,
        ),
      ],
    ],
    ...KEYS.map((keyId, at): [string, NewEvent[]] => {
      const stream = streams.key(keyId);
      const limits = at === 1 ? { rpm: 2 } : {};
      const facts = {
        ...common,
        keyId,
        scope: "regional",
        homeRegion: "us",
        name: "test",
        displayPrefix: "relai_sk_us",
        limits,
      } as const;
      return [
        stream,
        [
          newEvent(
            stream,
            "issued",
            "KeyIssued.v1",
            { ...facts, tokenHash: sha256Hex(keyText(at)) },
            metadata,
          ),
        ],
      ];
    }),
  ];
}

export async function gatewayWorld(
  options: {
    limits?: Partial<GatewayLimits>;
    parts?: Partial<RegionParts>;
    fundedMicro?: number;
  } = {},
): Promise<GatewayWorld> {
  const clock = manualClock();
  const random = counting();
  const inner = createMemoryEventStore({ clock });
  let gate: Promise<void> | undefined;
  let open = () => {};
  const store: EventStore = {
    ...inner,
    async append(stream, events, expected) {
      await gate;
      return world.judge?.(events) ?? inner.append(stream, events, expected);
    },
  };
  const alarms: string[] = [];
  const counted: { status: number; code: string }[] = [];
  const telemetry = {
    requestDone: ({ status, code }: { status: number; code: string }) =>
      void counted.push({ status, code }),
    alarm: (what: string) => void alarms.push(what),
  };
  const keyText = (at: number) => makeKeyText("us", (count) => new Uint8Array(count).fill(at + 1));
  const admission = createMemoryAdmission({
    clock,
    server: "server-1",
    onFault: () => alarms.push("fault"),
  });
  const directory = createMemoryKeyDirectory();
  const calls: SeenCall[] = [];
  const world: Partial<GatewayWorld> & Pick<GatewayWorld, "judge"> = { judge: undefined };
  for (const [stream, events] of foundingEvents(keyText, options.fundedMicro ?? FUNDED_MICRO))
    await inner.append(stream, events, "no_stream");

  async function begin() {
    const projector = await startProjector({
      store,
      clock,
      readModels: createMemoryReadModels(),
      signal: new AbortController().signal,
      onAlarm: telemetry.alarm,
    });
    const region = await openEmbedded({
      region: "us",
      knownRegions: new Set(["us", "eu"]),
      instance: "test",
      store,
      admission,
      directory,
      catalogue: buildCatalogue({ openai: false, simulator: true, processingArea: "us" }),
      hosts: new Map([
        ["simulator", { baseUrl: "http://127.0.0.1:1/v1", credential: CREDENTIAL, hostKey: "sim" }],
      ]),
      upstream: { send: (call, receiver) => exchange(calls, call, receiver) },
      clock,
      random,
      telemetry,
      limits: { ...LIMITS, ...options.limits },
      ...options.parts,
      projector,
      gatewayCount: 1,
    });
    const [gateway] = region.gateways;
    if (!gateway) throw new Error("the region has no gateway");
    if (!(await region.ledger.filled("all", 5_000))) throw new Error("the stores are not filled");
    return { ledger: region.ledger, gateway };
  }
  let opened: Awaited<ReturnType<typeof begin>> | undefined;
  void begin().then((all) => (opened = all));
  for (let turn = 0; !opened && turn < 200; turn++) await clock.advance(50);
  if (!opened) throw new Error("the gateway did not open");

  let places = 0;
  const life = opened.gateway.writer.life();
  if (life) {
    const { reserve, release } = life.journal;
    life.journal.reserve = () => {
      const isThere = reserve();
      if (isThere) places += 1;
      return isThere;
    };
    life.journal.release = () => {
      places -= 1;
      release();
    };
  }

  const all: GatewayWorld = Object.assign(world, {
    ...opened,
    clock,
    admission,
    store,
    calls,
    alarms,
    counted,
    keys: [keyText(0), keyText(1)] as const,
    stall() {
      gate = new Promise((resolve) => (open = resolve));
    },
    release() {
      gate = undefined;
      open();
    },
    async recorded() {
      const events: RecordedEvent[] = [];
      for (let epoch = 0; epoch < 10; epoch++)
        events.push(
          ...(await inner.read(streams.journal("us", epoch), {
            from: "start",
            direction: "forward",
            max: 1_000,
          })),
        );
      return events.filter((event) => event.type !== "OwnerFenced.v1");
    },
    types: async () => (await all.recorded()).map((event) => event.type),
    async balance() {
      const found = await admission.figures({ orgId: ORG });
      if (found.outcome !== "figures")
        throw new Error(`the organization is fenced: ${found.fenced}`);
      const { availableMicro, heldMicro, spentMicro } = found.balance;
      return { available: availableMicro, held: heldMicro, spent: spentMicro };
    },
    request({ text = chat(), more = {}, ...changes } = {}) {
      const request: GatewayRequest = {
        method: "POST",
        headers: {
          authorization: `Bearer ${all.keys[0]}`,
          "content-type": "application/json",
          ...more,
        },
        remoteAddress: "10.0.0.1",
        async body(bytesMax, room) {
          const bytes = Buffer.from(text);
          if (bytes.length > bytesMax) return "too_large";
          return room.take(bytes.length, bytes.length) ? bytes : "no_room";
        },
        ...changes,
      };
      return request;
    },
    ask: (handle: Handle, { slow = false, left = false, ...changes } = {}) =>
      answerTo(all.gateway, handle, { slow, left }, all.request(changes)),
    async expectAtRest() {
      await clock.advance(1_000);
      const { held } = await all.balance();
      expect(held).toBe(0);
      const { inFlight } = all.gateway;
      expect([inFlight.bytes(), inFlight.organizations(), places]).toEqual([0, 0, 0]);
      const events = await all.recorded();
      const named = (types: string[]) =>
        events
          .flatMap((event) =>
            types.includes(event.type) && "requestId" in event.data ? [event.data.requestId] : [],
          )
          .sort();
      expect(named(["UsageRecorded.v1", "RequestReleased.v1", "RequestExpired.v1"])).toEqual(
        named(["RequestAdmitted.v1"]),
      );
      expect(
        alarms.filter((what) => what === "fault" || what === "background_work_failed"),
      ).toEqual([]);
    },
  } satisfies Omit<GatewayWorld, "judge">);
  return all;
}

export { chat, chunk, completion, DONE } from "#test/samples/chat-bodies.ts";
export { settled } from "#test/doubles/manual-clock.ts";
