/**
 * Every error that relai itself answers with, in the order in which it is looked for. docs/errors.md is held to this
 * table by a test, both ways. `final`: the same request will fail again. `retryable`: it may succeed later.
 */
export const ERRORS = {
  loopback_only: {
    status: 403,
    type: "permission_error",
    message: "This listener serves its own machine only",
    again: "final",
  },
  invalid_api_key: {
    status: 401,
    type: "invalid_api_key",
    message: "Invalid API key provided",
    again: "final",
  },
  region_mismatch: {
    status: 403,
    type: "region_mismatch",
    message: "API key is for another region",
    again: "final",
  },
  key_revoked: {
    status: 401,
    type: "invalid_api_key",
    message: "This API key has been revoked",
    again: "final",
  },
  key_expired: {
    status: 401,
    type: "invalid_api_key",
    message: "This API key has expired",
    again: "final",
  },
  home_region_unreachable: {
    status: 503,
    type: "api_error",
    message: "Home region unreachable for global key",
    again: "retryable",
  },
  method_not_allowed: {
    status: 405,
    type: "invalid_request_error",
    message: "Method not allowed",
    again: "final",
  },
  request_too_large: {
    status: 413,
    type: "invalid_request_error",
    message: "Request body is too large",
    again: "final",
  },
  unsupported_media_type: {
    status: 415,
    type: "invalid_request_error",
    message: "Send the body as application/json",
    again: "final",
  },
  request_timeout: {
    status: 408,
    type: "invalid_request_error",
    message: "The body of the request arrived too slowly",
    again: "retryable",
  },
  invalid_request: {
    status: 400,
    type: "invalid_request_error",
    message: "Invalid request",
    again: "final",
  },
  not_found: {
    status: 404,
    type: "invalid_request_error",
    message: "Unknown request URL",
    again: "final",
  },
  model_not_found: {
    status: 404,
    type: "invalid_request_error",
    message: "The model does not exist",
    again: "final",
  },
  residency_violation: {
    status: 403,
    type: "permission_error",
    message: "Prompts of a regional key never leave its region",
    again: "final",
  },
  rate_limit_exceeded: {
    status: 429,
    type: "rate_limit_exceeded",
    message: "Rate limit exceeded",
    again: "retryable",
  },
  key_budget_exceeded: {
    status: 402,
    type: "insufficient_balance",
    message: "The budget of this key does not cover this request",
    again: "final",
  },
  insufficient_balance: {
    status: 402,
    type: "insufficient_balance",
    message: "Insufficient credit balance",
    again: "final",
  },
  balance_held: {
    status: 402,
    type: "insufficient_balance",
    message: "Insufficient credit balance beside the requests that are running",
    again: "final",
  },
  idempotency_error: {
    status: 400,
    type: "invalid_request_error",
    message: "This Idempotency-Key was used before with another body",
    again: "final",
  },
  upstream_rate_limited: {
    status: 429,
    type: "api_error",
    message: "The upstream is limiting our requests",
    again: "retryable",
  },
  upstream_error: {
    status: 502,
    type: "api_error",
    message: "The upstream failed",
    again: "retryable",
  },
  upstream_timeout: {
    status: 502,
    type: "api_error",
    message: "The upstream did not answer in time",
    again: "retryable",
  },
  ledger_unavailable: {
    status: 503,
    type: "api_error",
    message: "The ledger cannot record requests right now",
    again: "retryable",
  },
  overloaded: {
    status: 503,
    type: "api_error",
    message: "This gateway is handling as much as it can",
    again: "retryable",
  },
  // Only the control API: whoever manages has another credential than whoever asks a model.
  invalid_admin_token: {
    status: 401,
    type: "invalid_request_error",
    message: "Invalid admin token provided",
    again: "final",
  },
  internal_error: { status: 500, type: "api_error", message: "Internal error", again: "retryable" },
} as const satisfies Record<
  string,
  { status: number; type: string; message: string; again: "final" | "retryable" }
>;

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
  readonly upstream?: {
    readonly status: number;
    readonly type: string;
    readonly code: string | null;
  };
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
    ...(error.retryAfterSeconds === undefined
      ? {}
      : { "retry-after": String(error.retryAfterSeconds) }),
    ...(error.doNotRetry ? { "x-should-retry": "false" } : {}),
    ...(typeof error.extra?.["allow"] === "string" ? { allow: error.extra["allow"] } : {}),
  };
}
