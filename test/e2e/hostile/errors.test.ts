import { crc32 } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeKeyText } from "#domain/key-text.ts";
import { ERRORS, type ErrorCode } from "#services/errors.ts";
import { bookIn } from "#test/e2e/money/books.ts";
import {
  balanceOf,
  leavesNothingRunning,
  manage,
  newOrganization,
  post,
  startRelai,
  type RelaiProcess,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

let relai: RelaiProcess;
beforeAll(async () => {
  relai = await startRelai({
    settings: { RELAI_BODY_BYTES_MAX: "4096", RELAI_IN_FLIGHT_BYTES_MAX: "6000" },
  });
});
afterAll(() => relai.stop());

const seen = new Set<ErrorCode>();

/** Asks, and holds the answer to the table: status, the four keys and nothing beside what is named, the headers. */
async function expectError(
  answer: Response,
  code: ErrorCode,
  expected: { message?: string; param?: string; extra?: object; retryAfter?: string } = {},
): Promise<void> {
  const known = ERRORS[code];
  const body: unknown = await answer.json();
  expect([answer.status, body]).toEqual([
    known.status,
    {
      error: {
        message: expected.message ?? known.message,
        type: known.type,
        code,
        param: expected.param ?? null,
        ...expected.extra,
      },
    },
  ]);
  expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
  expect(answer.headers.get("x-request-id")).toMatch(/^req_/);
  expect(answer.headers.get("retry-after")).toBe(expected.retryAfter ?? null);
  expect(answer.headers.get("x-should-retry")).toBeNull();
  seen.add(code);
}

/** A request with a body of our own making. */
const send = (body: string | undefined, init: RequestInit = {}, path = "/v1/chat/completions") =>
  fetch(relai.gateway + path, {
    method: "POST",
    headers: { authorization: `Bearer ${relai.key}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body }),
    ...init,
  });

/** A key text with a right checksum; nobody has issued it. */
const keyText = (region: string) =>
  makeKeyText(region, (count) => crypto.getRandomValues(new Uint8Array(count)));
/** The same of global scope: its checksum is made over another beginning. */
function globalKeyText(region: string): string {
  const secret = keyText("xx").slice("relai_sk_xx_live_".length, -6);
  const body = `relai_sk_gbl_${region}_live_${secret}`;
  const characters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  let [rest, sum] = [crc32(Buffer.from(body)), ""];
  for (let place = 0; place < 6; place += 1) {
    sum = characters.charAt(rest % 62) + sum;
    rest = Math.floor(rest / 62);
  }
  return body + sum;
}

const sayHello = '{"model":"sim-flat","messages":[{"role":"user","content":"Hello"}]}';

describe("who asks", () => {
  test.each([
    ["no key at all", ""],
    ["a text that is no key", "Bearer sk-1234567890"],
    ["a key with a wrong checksum", "Bearer relai_sk_us_live_" + "A".repeat(38)],
    ["another scheme", "Basic dXNlcjpwYXNz"],
    ["a key of a region that does not exist", `Bearer ${keyText("mars")}`],
    ["a key that nobody issued", `Bearer ${keyText("us")}`],
    ["an older key that nobody issued", `Bearer rk-us-${"a".repeat(32)}`],
    ["a global key that nobody issued", `Bearer ${globalKeyText("us")}`],
  ])("with %s is told no more than that", async (_what, authorization) => {
    for (const path of ["/v1/chat/completions", "/v1/models", "/v1/balance", "/v1/bogus"])
      await expectError(
        await send(sayHello, { headers: { authorization } }, path),
        "invalid_api_key",
      );
  });

  test("with a key of another region is told where it belongs", async () => {
    const extra = {
      hint: "send this request to the endpoint of region EU, or use a key of region US",
    };
    const message = "API key is for region EU, but request was made to US";
    const headers = { authorization: `Bearer ${keyText("eu")}` };
    for (const path of ["/v1/chat/completions", "/v1/models", "/v1/bogus"])
      await expectError(await send(sayHello, { headers }, path), "region_mismatch", {
        message,
        extra,
      });
    const older = await send(sayHello, { headers: { "x-api-key": `rk-eu-${"a".repeat(32)}` } });
    expect([older.status, await older.json()]).toEqual([
      403,
      { error: { message, type: "region_mismatch", code: 403, param: null, ...extra } },
    ]);
  });

  test("with a global key of another region has to wait for that region", async () => {
    const headers = { authorization: `Bearer ${globalKeyText("eu")}` };
    await expectError(await send(sayHello, { headers }), "home_region_unreachable", {
      retryAfter: "5",
    });
  });

  test("with a revoked or an expired key is told so", async () => {
    const soon = new Date(Date.now() + 3000).toISOString();
    const short = await newOrganization(relai, { creditMicro: 1000, key: { expires_at: soon } });
    expect((await post(short, "[sim output=1]", { max_tokens: 5 })).status).toBe(200);
    const gone = await newOrganization(relai, { creditMicro: 1000 });
    await manage(relai, "DELETE", `/v1/keys/${gone.keyId}`);
    await expectError(await post(gone, "Hello"), "key_revoked");
    await expect
      .poll(() => post(short, "Hello", { max_tokens: 5 }).then(({ status }) => status), {
        timeout: 20_000,
      })
      .toBe(401);
    await expectError(await post(short, "Hello", { max_tokens: 5 }), "key_expired");
    const headers = { authorization: `Bearer ${short.key}` };
    for (const path of ["/v1/models", "/v1/balance"])
      await expectError(await fetch(`${relai.gateway}${path}`, { headers }), "key_expired");
  });

  test("is looked at before the region's body limit, its type, and the body itself", async () => {
    const headers = { authorization: `Bearer ${keyText("eu")}`, "content-type": "text/plain" };
    const answer = await send("x".repeat(9000), { headers });
    expect(answer.status).toBe(403);
    await answer.body?.cancel();
  });
});

describe("what is asked", () => {
  const authorization = () => `Bearer ${relai.key}`;

  test("in another way than POST, or where only GET is", async () => {
    const headers = { authorization: authorization() };
    for (const method of ["GET", "PUT", "DELETE"])
      await expectError(await send(undefined, { method, headers }), "method_not_allowed", {
        extra: { allow: "POST" },
      });
    for (const path of ["/v1/models", "/v1/models/sim-flat", "/v1/balance"])
      await expectError(await send(sayHello, {}, path), "method_not_allowed", {
        extra: { allow: "GET" },
      });
  });

  test("with too large a body, whether or not its length is told", async () => {
    const large = `${sayHello.slice(0, -1)},"user":"${"x".repeat(5000)}"}`;
    const extra = { limit_bytes: 4096 };
    await expectError(await send(large), "request_too_large", { extra });
    const pieces = new ReadableStream({
      start(controller) {
        for (let at = 0; at < large.length; at += 1000)
          controller.enqueue(Buffer.from(large.slice(at, at + 1000)));
        controller.close();
      },
    });
    await expectError(
      await send(undefined, { body: pieces, duplex: "half" }),
      "request_too_large",
      {
        extra,
      },
    );
  });

  test.each([
    ["text/plain", undefined],
    ["multipart/form-data; boundary=x", undefined],
    ["application/x-www-form-urlencoded", undefined],
    ["application/json", "gzip"],
  ])("as %s with encoding %s", async (type, encoding) => {
    const headers: Record<string, string> = {
      authorization: authorization(),
      "content-type": type,
    };
    if (encoding !== undefined) headers["content-encoding"] = encoding;
    await expectError(await send(sayHello, { headers }), "unsupported_media_type");
  });

  test.each([
    ["not JSON", "Hello", null],
    ["cut off", '{"model":"sim-flat","messages":[', null],
    ["a list", "[]", null],
    ["without a model", '{"messages":[{"role":"user","content":"a"}]}', "model"],
    ["without messages", '{"model":"sim-flat"}', "messages"],
    ["with no message", '{"model":"sim-flat","messages":[]}', "messages"],
    ["with n of nothing", sayHello.replace("{", '{"n":0,'), "n"],
    ["with half a token", sayHello.replace("{", '{"max_tokens":0.5,'), "max_tokens"],
    ["with two models", sayHello.replace("{", '{"model":"sim-small",'), "model"],
    ["with another region", sayHello.replace("{", '{"model_region":"eu",'), "model_region"],
    [
      "with a tool of the provider",
      sayHello.replace("{", '{"tools":[{"type":"web_search"}],'),
      "tools",
    ],
    ["nested too deep", sayHello.replace("{", `{"x":${"[".repeat(70)}${"]".repeat(70)},`), null],
  ])("%s", async (_what, body, param) => {
    const answer = await send(body);
    const { error } = (await answer.json()) as { error: Record<string, unknown> };
    const { message, ...rest } = error;
    expect([answer.status, rest]).toEqual([
      400,
      { type: "invalid_request_error", code: "invalid_request", param },
    ]);
    expect(message).toMatch(/\w{3}/);
    seen.add("invalid_request");
  });

  test("on a route that does not exist", async () => {
    const message =
      "Unknown request URL; relai serves /v1/chat/completions, /v1/embeddings, /v1/models and /v1/balance";
    for (const path of ["/v1/bogus", "/", "/v1", "/openai/v1/balance"])
      await expectError(await send(sayHello, {}, path), "not_found", { message });
  });

  test("of a model that does not exist", async () => {
    const message = "The model does not exist here; GET /v1/models lists what this key can use";
    await expectError(await send(sayHello.replace("sim-flat", "gpt-4o-mini")), "model_not_found", {
      message,
      param: "model",
    });
    const read = await fetch(`${relai.gateway}/v1/models/a%2Fb`, {
      headers: { authorization: authorization() },
    });
    await expectError(read, "model_not_found", { message, param: "model" });
  });

  test("to be processed anywhere in the world, with a regional key", async () => {
    const body = sayHello.replace("{", '{"model_region":"global",');
    await expectError(await send(body), "residency_violation", {
      param: "model_region",
      message:
        "Global routing is off for regional keys: prompts of a regional key never leave its region",
    });
    // A region that is none is refused before the model is looked for; global only after it.
    const [bad, other] = ['"model_region":"mars",', '"model_region":"global",'].map((member) =>
      send(sayHello.replace("{", `{${member}`).replace("sim-flat", "gpt-0")),
    );
    expect((await bad)?.status).toBe(400);
    expect((await other)?.status).toBe(404);
  });

  test("while there is no room for its body", async () => {
    // Two bodies of 3,500 bytes do not fit into 6,000: the one that waits in the upstream has given its room back.
    const body = `${sayHello.slice(0, -1)},"user":"${"x".repeat(3000)}"}`;
    const finish = Promise.withResolvers<void>();
    const half = new ReadableStream({
      async start(controller) {
        controller.enqueue(Buffer.from(body.slice(0, 3050)));
        await finish.promise;
        controller.enqueue(Buffer.from(body.slice(3050)));
        controller.close();
      },
    });
    const first = send(undefined, { body: half, duplex: "half" });
    await expect.poll(() => send(body).then(({ status }) => status), { timeout: 20_000 }).toBe(503);
    await expectError(await send(body), "overloaded", { retryAfter: "1" });
    finish.resolve();
    expect((await first).status).toBe(200);
    expect((await send(body)).status).toBe(200);
  });
});

describe("the order of the checks", () => {
  /** Everything is wrong with this request; each line takes the first fault away. */
  test("is that of the table", async () => {
    const org = await newOrganization(relai, {
      creditMicro: 30,
      key: { rpm: 1, budget_micro: 25 },
    });
    const ask = (changes: {
      key?: string;
      method?: string;
      type?: string;
      body?: string;
    }): Promise<Response> =>
      send(changes.body ?? "nonsense", {
        method: changes.method ?? "PUT",
        headers: {
          authorization: `Bearer ${changes.key ?? "nonsense"}`,
          "content-type": changes.type ?? "text/plain",
        },
      });
    const codeOf = async (answer: Response) =>
      ((await answer.json()) as { error: { code: unknown } }).error.code;
    const { key } = org;
    const [method, type] = ["POST", "application/json"];
    const body = (model: string, max_tokens: number, model_region?: string) =>
      JSON.stringify({
        model,
        max_tokens,
        model_region,
        messages: [{ role: "user", content: "Hi" }],
      });
    expect(await codeOf(await ask({}))).toBe("invalid_api_key");
    expect(await codeOf(await ask({ key: keyText("eu") }))).toBe("region_mismatch");
    expect(await codeOf(await ask({ key }))).toBe("method_not_allowed");
    const large = "x".repeat(5000);
    expect(await codeOf(await ask({ key, method, body: large }))).toBe("request_too_large");
    expect(await codeOf(await ask({ key, method }))).toBe("unsupported_media_type");
    expect(await codeOf(await ask({ key, method, type }))).toBe("invalid_request");
    const asked = async (text: string) => codeOf(await ask({ key, method, type, body: text }));
    expect(await asked(body("gpt-0", 9, "mars"))).toBe("invalid_request");
    expect(await asked(body("gpt-0", 9, "global"))).toBe("model_not_found");
    expect(await asked(body("sim-flat", 9, "global"))).toBe("residency_violation");
    // The hold is 25 and the output: more than the budget and the balance; the budget comes first.
    expect(await asked(body("sim-flat", 9))).toBe("key_budget_exceeded");
    // Neither of all these was counted against one request a minute.
    const flat = await newOrganization(relai, { creditMicro: 26, key: { rpm: 1 } });
    expect((await post(flat, "Hi", { max_tokens: 9 })).status).toBe(402);
    expect((await post(flat, "Hi", { max_tokens: 1 })).status).toBe(200);
    // The rate limit comes before the money.
    expect((await post(flat, "Hi", { max_tokens: 9 })).status).toBe(429);
    for (const code of ["key_budget_exceeded", "insufficient_balance"] as const) seen.add(code);
  });
});

test("a caller that only fails is told to stop, and a right request still passes", async () => {
  const org = await newOrganization(relai, { creditMicro: 1000, key: { rpm: 2 } });
  const codes: unknown[] = [];
  // Twenty refusals a minute for two requests a minute; a minute may begin anew on the way.
  for (let number = 0; number < 45; number += 1) {
    const answer = await post(org, "Hello", { max_tokens: 5000 });
    codes.push(((await answer.json()) as { error: { code: unknown } }).error.code);
    if (answer.status === 429)
      expect(Number(answer.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  }
  expect(codes.slice(0, 20)).toEqual(Array.from({ length: 20 }, () => "insufficient_balance"));
  expect(codes).toContain("rate_limit_exceeded");
  expect((await post(org, "[sim output=1]", { max_tokens: 5 })).status).toBe(200);
  seen.add("rate_limit_exceeded");
});

test("refusals reach no upstream, hold nothing and cost nothing", async () => {
  const calls = bookIn(relai).length;
  const before = await balanceOf(relai);
  for (const body of ["", "{}", sayHello.replace("sim-flat", "none")]) await send(body);
  expect(bookIn(relai).length).toBe(calls);
  expect(await balanceOf(relai)).toMatchObject({
    credits_micro: before.credits_micro,
    held_micro: 0,
  });
});

test("every error of the table that a gateway of one region can give was seen", () => {
  // What this file does not provoke, and who does.
  const elsewhere: Partial<Record<ErrorCode, string>> = {
    loopback_only: "foreign.test.ts",
    balance_held: "money.test.ts",
    request_timeout: "shares.test.ts",
    upstream_rate_limited: "upstream-faults.test.ts",
    upstream_error: "upstream-faults.test.ts",
    upstream_timeout: "upstream-faults.test.ts",
    idempotency_error: "money.test.ts, at the control API",
    invalid_admin_token: "the control API's own tests",
    ledger_unavailable: "the simulation, which takes the store away",
    internal_error: "a defect, if ever",
  };
  const missing = Object.keys(ERRORS).filter(
    (code) => !seen.has(code as ErrorCode) && !Object.hasOwn(elsewhere, code),
  );
  expect(missing).toEqual([]);
  expect(Object.keys(elsewhere).filter((code) => seen.has(code as ErrorCode))).toEqual([]);
});
