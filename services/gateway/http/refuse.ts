import { statusOf, type ApiError } from "#services/errors.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import type { GatewayRequest } from "#services/gateway/parts.ts";
import type { Answer } from "#services/gateway/way/answer.ts";
import type { Caller } from "./authenticate.ts";

/** A failed login is counted per caller address. */
export function refuseLogin(
  gateway: Gateway,
  answer: Answer,
  request: GatewayRequest,
  error: ApiError,
): void {
  const capped = statusOf(error) === 401 ? gateway.capLogin(request.remoteAddress) : undefined;
  answer.fail(capped ?? error);
}

/** A refusal after the login is counted per key; a fault of the server (any 5xx) is nobody's doing and never counts. */
export function refuse(
  gateway: Gateway,
  answer: Answer,
  caller: Caller,
  error: ApiError,
  rpm?: number,
): void {
  const capped = statusOf(error) < 500 ? gateway.capRefusal(caller.keyId, rpm) : undefined;
  answer.fail(capped ?? error);
}
