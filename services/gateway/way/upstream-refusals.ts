import type { Attempt } from "#domain/events/schemas.ts";
import type { ApiError } from "#services/errors.ts";
import type { ErrorShape } from "#services/gateway/shapes/shape.ts";
import type { WholeBody } from "./forward.ts";

/** Statuses whose fault is in the request: they and their message pass to the caller. */
const PASSED: ReadonlySet<number> = new Set([400, 404, 409, 413, 422]);
const MESSAGE_MAX = 2000;
const WORD_MAX = 128;
const RETRY_AFTER_SECONDS_MAX = 86_400;

/**
 * What an upstream's refusal becomes for the caller. A fault of the request passes, in our shape; our own credential,
 * its account and its limits are our business, so anything else says only that the upstream failed.
 */
export function refusedByUpstream(
  errors: ErrorShape,
  answer: WholeBody,
  credential: string,
): { outcome: Attempt["outcome"]; error: ApiError } {
  const { status } = answer;
  if (PASSED.has(status)) return { outcome: "refused", error: passed(errors, answer, credential) };
  if (status === 429) {
    const error = { retryAfterSeconds: retryAfterSeconds(answer.retryAfter) };
    return { outcome: "rate_limited", error: { code: "upstream_rate_limited", ...error } };
  }
  return { outcome: status < 500 ? "refused" : "failed", error: { code: "upstream_error" } };
}

function retryAfterSeconds(header: string | undefined): number {
  const seconds =
    header !== undefined && /^\d{1,6}(?:\.\d+)?$/.test(header) ? Math.ceil(Number(header)) : 1;
  return Math.min(Math.max(seconds, 1), RETRY_AFTER_SECONDS_MAX);
}

function passed(errors: ErrorShape, { status, body }: WholeBody, credential: string): ApiError {
  const told = errors.told(body);
  const textOf = (name: string, most: number): string | undefined => {
    const text = told[name];
    if (typeof text !== "string" || text === "") return undefined;
    return clean(text, credential).slice(0, most);
  };
  return {
    code: "upstream_error",
    message: textOf("message", MESSAGE_MAX) ?? "The upstream refused the request",
    param: textOf("param", WORD_MAX) ?? null,
    upstream: {
      status,
      type: textOf("type", WORD_MAX) ?? "invalid_request_error",
      code: textOf("code", WORD_MAX) ?? null,
    },
  };
}

/** Takes out what belongs to our account at the provider. */
function clean(message: string, credential: string): string {
  const without = credential.length >= 8 ? message.replaceAll(credential, "…") : message;
  return without.replaceAll(/\b(?:sk|org|proj)[-_][A-Za-z0-9_*-]{6,}/g, "…");
}
