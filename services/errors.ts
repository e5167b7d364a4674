import type { Socket } from "node:net";

/**
 * Every error that relai itself answers with, in the order in which it is looked for. docs/errors.md is held to this
 * table by a test, both ways. `final`: the same request will fail again. `retryable`: it may succeed later.
 */
export const ERRORS = {
  loopback_only: final(403, "permission_error", "This listener serves its own machine only"),
  invalid_api_key: final(401, "invalid_api_key", "Invalid API key provided"),
  region_mismatch: final(403, "region_mismatch", "API key is for another region"),
  key_revoked: final(401, "invalid_api_key", "This API key has been revoked"),
  key_expired: final(401, "invalid_api_key", "This API key has expired"),
  home_region_unreachable: retryable(503, "api_error", "Home region unreachable for global key"),
  method_not_allowed: final(405, "invalid_request_error", "Method not allowed"),
  request_too_large: final(413, "invalid_request_error", "Request body is too large"),
  unsupported_media_type: final(415, "invalid_request_error", "Send the body as application/json"),
  request_timeout: retryable(
    408,
    "invalid_request_error",
    "The body of the request arrived too slowly",
  ),
  invalid_request: final(400, "invalid_request_error", "Invalid request"),
  not_found: final(404, "invalid_request_error", "Unknown request URL"),
  model_not_found: final(404, "invalid_request_error", "The model does not exist"),
  residency_violation: final(
    403,
    "permission_error",
    "Prompts of a regional key never leave its region",
  ),
  rate_limit_exceeded: retryable(429, "rate_limit_exceeded", "Rate limit exceeded"),
  key_budget_exceeded: final(
    402,
    "insufficient_balance",
    "The budget of this key does not cover this request",
  ),
  insufficient_balance: final(402, "insufficient_balance", "Insufficient credit balance"),
  balance_held: final(
    402,
    "insufficient_balance",
    "Insufficient credit balance beside the requests that are running",
  ),
  idempotency_error: final(
    400,
    "invalid_request_error",
    "This Idempotency-Key was used before with another body",
  ),
  upstream_rate_limited: retryable(429, "api_error", "The upstream is limiting our requests"),
  upstream_error: retryable(502, "api_error", "The upstream failed"),
  upstream_timeout: retryable(502, "api_error", "The upstream did not answer in time"),
  ledger_unavailable: retryable(503, "api_error", "The ledger cannot record requests right now"),
  overloaded: retryable(503, "api_error", "This gateway is handling as much as it can"),
  // Only the control API: whoever manages has another credential than whoever asks a model.
  invalid_admin_token: final(401, "invalid_request_error", "Invalid admin token provided"),
  internal_error: retryable(500, "api_error", "Internal error"),
};

function final(status: number, type: string, message: string) {
  return { status, type, message, again: "final" as const };
}

function retryable(status: number, type: string, message: string) {
  return { status, type, message, again: "retryable" as const };
}

export type ErrorCode = keyof typeof ERRORS;

/** One refusal or failure, ready to be told: what the table says, and what this case adds. */
export interface ApiError {
  readonly code: ErrorCode;
  /** In place of the table's sentence. Never a credential, never text of a prompt or an answer. */
  readonly message?: string;
  readonly param?: string | null;
  /** Further members of the error object, by their public names. */
  readonly extra?: Readonly<Record<string, string | number | boolean | null>>;
  /** Whole seconds; becomes the header `Retry-After`. */
  readonly retryAfterSeconds?: number;
  /** The call was or will be charged, or it fails for good: tells client libraries not to repeat it. */
  readonly doNotRetry?: boolean;
  /** Only for a refusal of the upstream that passes through: its status, type and code. */
  readonly upstream?: Readonly<{ status: number; type: string; code: string | null }>;
}

/** The status that an error answers with. */
export function statusOf(error: ApiError): number {
  return error.upstream?.status ?? ERRORS[error.code].status;
}

/** The body of an error in OpenAI's shape: the four keys always, what the case adds beside them. */
export function openaiErrorBody(error: ApiError): string {
  const known = ERRORS[error.code];
  return JSON.stringify({
    error: {
      message: error.message ?? known.message,
      type: error.upstream?.type ?? known.type,
      code: error.upstream ? error.upstream.code : (error.extra?.["code"] ?? error.code),
      param: error.param ?? null,
      ...error.extra,
    },
  });
}

/** The headers that an error brings beside its body. */
export function errorHeaders(error: ApiError): Record<string, string> {
  return {
    "content-type": "application/json; charset=utf-8",
    ...(error.retryAfterSeconds !== undefined && {
      "retry-after": String(error.retryAfterSeconds),
    }),
    ...(error.doNotRetry ? { "x-should-retry": "false" } : {}),
    ...(typeof error.extra?.["allow"] === "string" ? { allow: error.extra["allow"] } : {}),
  };
}

/** Answers on a connection what is no HTTP request, or none that came whole in time, in our shape; then closes it. */
export function refuseConnection(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
  const refusal: ApiError =
    error.code === "HPE_HEADER_OVERFLOW"
      ? { code: "request_too_large", message: "The headers of the request are too large" }
      : { code: "invalid_request", message: "This is not a valid HTTP request" };
  const body = openaiErrorBody(refusal);
  const headers = {
    ...errorHeaders(refusal),
    connection: "close",
    "content-length": String(Buffer.byteLength(body)),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${statusOf(refusal)} Refused\r\n${lines.join("")}\r\n${body}`);
}
