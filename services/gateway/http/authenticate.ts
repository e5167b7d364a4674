import { sha256Hex } from "#domain/hash.ts";
import { parseKeyText } from "#domain/key-text.ts";
import type { ApiError } from "#services/errors.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import type { GatewayRequest } from "#services/gateway/parts.ts";
import type { KeyEntry } from "#services/ports.ts";
import { sleep } from "#services/waiting.ts";

export interface Caller {
  readonly keyId: string;
  readonly orgId: string;
}

const KEY_BYTES_MAX = 256;

type LoginParts = Pick<Gateway, "parts" | "writer" | "waitAsStranger">;
type Found = KeyEntry | undefined | "unavailable";

/**
 * Who calls, from the headers alone: the key's text says whether it belongs here, before any look-up; then the
 * directory says which key it is. A body is not read before this has passed. Where the directory does not answer nobody is
 * told that a key is wrong, and its server is looked for again: it is the admission store's.
 */
export async function authenticate(
  gateway: LoginParts,
  headers: GatewayRequest["headers"],
): Promise<Caller | ApiError> {
  const { parts } = gateway;
  const text = keyText(headers);
  if (text === undefined || text.length > KEY_BYTES_MAX) return { code: "invalid_api_key" };
  const parsed = parseKeyText(text);
  if (!parsed.ok || !parts.knownRegions.has(parsed.region)) return { code: "invalid_api_key" };
  if (parsed.region !== parts.region) {
    if (parsed.scope === "global") return { code: "home_region_unreachable", retryAfterSeconds: 5 };
    return regionMismatch(parsed.region, parts.region, parsed.older);
  }
  const entry = await lookUp(gateway, sha256Hex(text));
  // Nobody can say whose key it is, or that it is nobody's, so it must not sound final.
  if (entry === "unavailable") return { code: "ledger_unavailable", retryAfterSeconds: 1 };
  if (!entry) return { code: "invalid_api_key" };
  if (entry.revoked) return { code: "key_revoked" };
  if (entry.expiresAt !== undefined && entry.expiresAt <= parts.clock.now())
    return { code: "key_expired" };
  return { keyId: entry.keyId, orgId: entry.orgId };
}

/** A directory that is being filled, or does not answer, is asked again after these times, as a fenced store is. */
const AGAIN_MS = [50, 100, 200, 400];
/** One that takes so long to say nothing is not asked again. */
const ASKING_MS_MAX = 1000;

/** Nobody is known here yet: what a wrong key sets going is bounded, however many come. */
async function lookUp(gateway: LoginParts, tokenHash: string): Promise<Found> {
  const { directory, clock } = gateway.parts;
  const ask = (): Promise<Found> => directory.lookup(tokenHash).catch(() => "unavailable");
  const begunMs = clock.elapsed();
  let found = await ask();
  if (found !== "unavailable") return found;
  void gateway.writer.lookForOwner().catch(() => {});
  const leave = gateway.waitAsStranger();
  if (!leave) return found;
  for (const delayMs of AGAIN_MS) {
    if (found !== "unavailable" || clock.elapsed() - begunMs >= ASKING_MS_MAX) break;
    await sleep(clock, delayMs);
    found = await ask();
  }
  leave();
  return found;
}

/** `Authorization: Bearer …`, else `x-api-key`. */
function keyText(headers: GatewayRequest["headers"]): string | undefined {
  const { authorization } = headers;
  if (typeof authorization === "string") return /^Bearer +(\S+) *$/i.exec(authorization)?.[1];
  const other = headers["x-api-key"];
  return typeof other === "string" ? other.trim() : undefined;
}

function regionMismatch(keyRegion: string, region: string, older: boolean): ApiError {
  const [of, to] = [keyRegion.toUpperCase(), region.toUpperCase()];
  return {
    code: "region_mismatch",
    message: `API key is for region ${of}, but request was made to ${to}`,
    extra: {
      ...(older ? { code: 403 } : {}),
      hint: `send this request to the endpoint of region ${of}, or use a key of region ${to}`,
    },
  };
}
