import type { AccountTaking, EventData, EventType } from "#domain/events/schemas.ts";

/** What the events of a made-up request say. */

export const REGION = "us";
export const BINDING = "gpt-4o-mini@openai";
export const PRICE_VERSION = `2026-10-01:${BINDING}`;

/** A request that was admitted and has not ended. */
export interface OpenRequest {
  readonly requestId: string;
  readonly orgId: string;
  readonly keyId: string;
  readonly writerEpoch: number;
  takings: readonly AccountTaking[];
  holdMicro: number;
}

/** An event in the making: its key within the stream, its type and its data. */
export type Fact<T extends EventType = EventType> = { [K in T]: [string, K, EventData<K>] }[T];

/** What every event of a request says of it. */
export function common({ requestId, orgId, keyId, takings }: OpenRequest) {
  return {
    requestId,
    orgId,
    homeRegion: REGION,
    keyId,
    processingArea: REGION,
    ownerEpoch: 1,
    accounts: [...takings],
  };
}

export function used(random: () => number, request: OpenRequest): Fact {
  const { holdMicro } = request;
  const all = random() < 0.2;
  const chargedMicro = all ? holdMicro : Math.floor(random() * holdMicro);
  return [
    `ended:${request.requestId}`,
    "UsageRecorded.v1",
    {
      ...common(request),
      holdMicro,
      model: "gpt-4o-mini",
      bindingId: BINDING,
      priceVersion: PRICE_VERSION,
      serviceTier: "default",
      tokens: { input: 1 + Math.floor(random() * 5_000), cacheRead: 600, output: 340 },
      salePico: { input: 150_000, cacheRead: 75_000, output: 600_000 },
      costPico: { input: 150_000, cacheRead: 75_000, output: 600_000 },
      chargedMicro,
      overHoldMicro: all ? 17 : 0,
      residualPico: Math.floor(random() * 999_999) - 499_999,
      providerCostMicro: chargedMicro,
      billedBy: "provider",
      clientGone: random() < 0.1,
      attempts: [
        { host: "openai", hostKey: "env:OPENAI_API_KEY", outcome: "answered", status: 200 },
      ],
      firstByteMs: 312,
      durationMs: 2_418,
      finish: "stop",
    },
  ];
}

export function released(request: OpenRequest): Fact {
  return [
    `ended:${request.requestId}`,
    "RequestReleased.v1",
    {
      ...common(request),
      holdMicro: request.holdMicro,
      reason: "upstream_error",
      forwarded: true,
      clientGone: false,
      attempts: [{ host: "openai", hostKey: "env:OPENAI_API_KEY", outcome: "failed", status: 500 }],
      unbilledMicro: 0,
    },
  ];
}

export function expired(request: OpenRequest): Fact {
  const { holdMicro, requestId } = request;
  return [
    `ended:${requestId}`,
    "RequestExpired.v1",
    { ...common(request), holdMicro, unbilledMicro: holdMicro },
  ];
}
