import { describe, expect, test } from "vitest";
import { openaiErrorBody, statusOf } from "#services/errors.ts";
import { OPENAI_ERRORS } from "#services/gateway/shapes/openai/errors.ts";
import { refusedByUpstream } from "./upstream-refusals.ts";

const CREDENTIAL = "Ab3-our-credential-at-the-provider";

function refused(status: number, error?: unknown, retryAfter?: string) {
  const body = Buffer.from(typeof error === "string" ? error : JSON.stringify({ error }));
  return refusedByUpstream(OPENAI_ERRORS, { status, retryAfter, body }, CREDENTIAL);
}

describe("a fault of the request passes, in our shape", () => {
  test.each([400, 404, 409, 413, 422])("%i", (status) => {
    const told = {
      message: "No such parameter",
      type: "invalid_request_error",
      code: "bad",
      param: "top_p",
    };
    const { outcome, error } = refused(status, told);
    expect(outcome).toBe("refused");
    expect(statusOf(error)).toBe(status);
    expect(JSON.parse(openaiErrorBody(error))).toEqual({ error: told });
  });

  test.each([
    "",
    "<html>",
    "[]",
    '"text"',
    "null",
    '{"error":null}',
    '{"error":{"message":7,"type":[],"code":{}}}',
  ])("also when its body is %j", (body) => {
    const { error } = refused(400, body);
    expect(JSON.parse(openaiErrorBody(error))).toEqual({
      error: {
        message: "The upstream refused the request",
        type: "invalid_request_error",
        code: null,
        param: null,
      },
    });
  });

  test("within bounds", () => {
    const long = "x".repeat(10_000);
    const { error } = refused(400, { message: long, type: long, code: long, param: long });
    expect(openaiErrorBody(error).length).toBeLessThan(2_600);
  });
});

describe("our credential and our account never pass", () => {
  const SECRETS = [
    CREDENTIAL,
    "sk-proj-abc123DEF456",
    "sk_live_abcdef123",
    "org-AbCdEf123456",
    "proj_AbCdEf123456",
    "sk-ab****wxyz",
  ];
  test.each(SECRETS)("%s", (secret) => {
    for (const name of ["message", "type", "code", "param"] as const) {
      const { error } = refused(400, { [name]: `in ${secret}, and again ${secret}.` });
      expect(JSON.stringify(error)).not.toContain(secret.slice(3));
      expect(openaiErrorBody(error)).not.toContain(secret.slice(3));
    }
  });

  test("not even where the cut of a long message would leave a part of it", () => {
    for (let before = 1_960; before <= 2_000; before++) {
      const { error } = refused(400, { message: "m".repeat(before) + CREDENTIAL });
      expect(error.message).not.toContain(CREDENTIAL.slice(0, 8));
    }
  });
});

test.each([301, 302, 307, 401, 402, 403, 405, 408, 500, 502, 503, 529])(
  "%i is our business: the caller hears only that the upstream failed",
  (status) => {
    const { outcome, error } = refused(status, {
      message: `secret of ${status}`,
      code: "account_deactivated",
    });
    expect(error).toEqual({ code: "upstream_error" });
    expect(statusOf(error)).toBe(502);
    expect(outcome).toBe(status < 500 ? "refused" : "failed");
  },
);

test.each([
  [undefined, 1],
  ["0", 1],
  ["7", 7],
  ["1.2", 2],
  ["-5", 1],
  ["Wed, 21 Oct 2026 07:28:00 GMT", 1],
  ["999999", 86_400],
  ["99999999999", 1],
])("429 with Retry-After %j is a wait of %i s", (header, seconds) => {
  expect(refused(429, { message: "our limit" }, header)).toEqual({
    outcome: "rate_limited",
    error: { code: "upstream_rate_limited", retryAfterSeconds: seconds },
  });
});
