import type { ApiError } from "#services/errors.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";
import type { Caller } from "./authenticate.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import type { Clock } from "#services/ports.ts";
import { ADMIT_MS_MAX, FENCED_MS_MAX, renewOwner } from "#services/gateway/money/hold.ts";
import type { GatewayRequest } from "#services/gateway/parts.ts";
import { refusalWithoutMeans } from "#services/gateway/money/refusals.ts";

const NO_BYTES = Buffer.alloc(0);
/** Who had something available is not looked at again for so long. */
const MEANS_MS = 1_000;
const CALLERS_MAX = 10_000;

/** A request's body, and the room that it takes. */
export interface Body {
  /** Nothing once they were taken or given up. */
  readonly bytes: () => Buffer;
  /** The bytes, which are not kept here any longer; their room stays. */
  readonly take: () => Buffer;
  /** Gives the bytes and their room up, when the upstream has them or nobody will; once is enough, more does no harm. */
  readonly give: () => void;
}

/**
 * 405, 413 and 415 are decided by the method and the headers, then 402 for a caller who has nothing available at all;
 * only then is the body read, within its organization's share of the room.
 */
export async function readBody(
  gateway: Gateway,
  caller: Caller,
  request: GatewayRequest,
): Promise<Body | ApiError | { readonly gone: true }> {
  const { bodyBytesMax } = gateway.parts.limits;
  const tooLarge: ApiError = { code: "request_too_large", extra: { limit_bytes: bodyBytesMax } };
  if (request.method !== "POST") return { code: "method_not_allowed", extra: { allow: "POST" } };
  if (Number(request.headers["content-length"] ?? 0) > bodyBytesMax) return tooLarge;
  const { "content-type": type, "content-encoding": encoding } = request.headers;
  const isJson =
    typeof type === "string" && /^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i.test(type);
  if (!isJson || (encoding !== undefined && encoding !== "identity"))
    return { code: "unsupported_media_type" };
  const withoutMeans = await refuseWithoutMeans(gateway, caller);
  if (withoutMeans) return withoutMeans;
  const room = gateway.inFlight.bodiesOf(caller.orgId);
  const read = await request.body(bodyBytesMax, room);
  if (typeof read === "string") return read === "too_large" ? tooLarge : UNREAD[read];
  let bytes = read;
  let taken = bytes.length;
  const take = () => {
    const all = bytes;
    bytes = NO_BYTES;
    return all;
  };
  return {
    bytes: () => bytes,
    take,
    give() {
      take();
      room.give(taken);
      taken = 0;
    },
  };
}

const UNREAD = {
  too_slow: { code: "request_timeout" },
  gone: { gone: true },
  no_room: { code: "overloaded", retryAfterSeconds: 1 },
} as const;

/** The keys that had something available when that was last looked at; the one that was looked at first is forgotten first. */
export function createMeansSeen(clock: Pick<Clock, "elapsed">) {
  const seenMs = new Map<string, number>();
  return {
    /** Whether that was less than {@link MEANS_MS} ago. */
    has(keyId: string): boolean {
      const atMs = seenMs.get(keyId);
      return atMs !== undefined && clock.elapsed() - atMs < MEANS_MS;
    },
    note(keyId: string): void {
      seenMs.delete(keyId);
      seenMs.set(keyId, clock.elapsed());
      const [oldest] = seenMs.keys();
      if (seenMs.size > CALLERS_MAX && oldest !== undefined) seenMs.delete(oldest);
    },
  };
}

/**
 * The refusal of a caller whose organization, or whose key's budget, has nothing available: whatever it asks, admission
 * would refuse it, so its body takes no room. Where the organization is fenced, it is asked for and waited for as in an
 * admission. Undefined when there is something, or was a moment ago, or the key has a fault that admission will name.
 */
async function refuseWithoutMeans(gateway: Gateway, caller: Caller): Promise<ApiError | undefined> {
  const { admission, clock } = gateway.parts;
  if (gateway.meansSeen.has(caller.keyId)) return undefined;
  const begun = clock.elapsed();
  for (let attempt = 0; ; attempt++) {
    const asked = admission.figures(caller).catch(() => undefined);
    const found = await within(clock, ADMIT_MS_MAX, asked);
    if (found !== TIMED_OUT && found?.outcome === "figures") {
      const refusal = refusalWithoutMeans(found);
      if (!refusal) gateway.meansSeen.note(caller.keyId);
      return refusal;
    }
    const isUnknown = found === TIMED_OUT || found === undefined;
    const isOver = isUnknown || found.fenced === "fault" || found.fenced === "away";
    if (isOver || clock.elapsed() - begun >= FENCED_MS_MAX)
      return { code: "ledger_unavailable", retryAfterSeconds: 1 };
    await renewOwner(gateway.money, caller.orgId, attempt);
  }
}
