import { describe, expect, test } from "vitest";
import { crc32 } from "#domain/hash.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { openaiErrorBody } from "#services/errors.ts";
import {
  chat,
  completion,
  gatewayWorld,
  settled,
  type GatewayWorld,
  type RequestChanges,
} from "#test/worlds/gateway-world.ts";
import { handleChat } from "#test/worlds/chat-way.ts";
import {
  handleBalance,
  handleModel,
  handleModels,
  handleUnknown,
} from "#services/gateway/http/reads.ts";

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** A key that is well formed and that nobody issued. */
function keyOf(scope: string): string {
  const body = `relai_sk_${scope}_live_${"7".repeat(32)}`;
  let text = "";
  for (let rest = crc32(body); text.length < 6; rest = Math.floor(rest / 62))
    text = BASE62.charAt(rest % 62) + text;
  return body + text;
}

async function refused(world: GatewayWorld, changes: RequestChanges, handle = handleChat) {
  const answer = world.ask(handle, changes);
  await answer.done;
  const { error } = answer.json();
  expect(Object.keys(error)).toEqual(expect.arrayContaining(["message", "type", "code", "param"]));
  expect(answer.headers["x-request-id"]).toMatch(/^req_/);
  expect(answer.headers["content-type"]).toBe("application/json; charset=utf-8");
  return { answer, status: answer.status, code: error["code"], error };
}

const bearer = (key: string) => ({ more: { authorization: `Bearer ${key}` } });

describe("who asks is looked at first, by the headers alone", () => {
  test.each<[string, RequestChanges, number, unknown]>([
    ["no key", { more: { authorization: undefined } }, 401, "invalid_api_key"],
    ["another scheme", { more: { authorization: "Basic abc" } }, 401, "invalid_api_key"],
    ["a malformed key", bearer("sk-abc"), 401, "invalid_api_key"],
    ["a key of 10,000 characters", bearer("a".repeat(10_000)), 401, "invalid_api_key"],
    ["a wrong checksum", bearer(`${keyOf("us").slice(0, -1)}_`), 401, "invalid_api_key"],
    ["an unknown region", bearer(keyOf("xx")), 401, "invalid_api_key"],
    ["an unknown key", bearer(keyOf("us")), 401, "invalid_api_key"],
    ["a key of another region", bearer(keyOf("eu")), 403, "region_mismatch"],
    ["an older key of another region", bearer("rk-eu-0123456789abcdef"), 403, 403],
    [
      "a global key whose home is elsewhere",
      bearer(keyOf("gbl_eu")),
      503,
      "home_region_unreachable",
    ],
  ])("%s", async (_name, changes, status, code) => {
    const world = await gatewayWorld();
    let isRead = false;
    const body = () => {
      isRead = true;
      return Promise.resolve("gone" as const);
    };
    // Wrong in every later way too: the method, the type, the body.
    const found = await refused(world, { method: "DELETE", body, ...changes });
    expect([found.status, found.code, isRead]).toEqual([status, code, false]);
    if (code === "region_mismatch")
      expect(found.error).toMatchObject({
        message: "API key is for region EU, but request was made to US",
        type: "region_mismatch",
      });
    expect(await world.types()).toEqual([]);
  });

  test("also for a route that does not exist, and for one that reads", async () => {
    const world = await gatewayWorld();
    const stranger = bearer(keyOf("us"));
    expect((await refused(world, stranger, handleUnknown)).status).toBe(401);
    expect((await refused(world, { method: "DELETE", ...stranger }, handleModels)).status).toBe(
      401,
    );
    expect((await refused(world, {}, handleUnknown)).code).toBe("not_found");
  });

  test("a key may come as x-api-key", async () => {
    const world = await gatewayWorld();
    const answer = world.ask(handleModels, {
      method: "GET",
      more: { authorization: undefined, "x-api-key": world.keys[0] },
    });
    await answer.done;
    expect(answer.status).toBe(200);
  });

  test("a key that the directory cannot say anything of is not refused for good", async () => {
    const directory = createMemoryKeyDirectory();
    const world = await gatewayWorld({ parts: { directory } });
    const { lookup } = directory;
    directory.lookup = () => Promise.reject(new Error("the key directory has not been filled yet"));
    const inTime = world.ask(handleModels, { method: "GET" });
    await world.clock.advance(300);
    directory.lookup = lookup;
    await world.clock.advance(300);
    expect(inTime.status).toBe(200);
    directory.lookup = () => Promise.reject(new Error("CANARY"));
    const sought: (readonly string[])[] = [];
    world.admission.seek = async (meant) => {
      sought.push(meant);
      return meant;
    };
    const never = refused(world, {});
    await world.clock.advance(1_000);
    const { status, code, answer } = await never;
    expect([status, code]).toEqual([503, "ledger_unavailable"]);
    expect(answer.headers).toMatchObject({ "retry-after": "1" });
    expect(JSON.stringify([answer.text, answer.headers])).not.toContain("CANARY");
    // Its server is the admission store's.
    expect(sought).toContainEqual(["server-1"]);
    // The text alone says that this one can never be a key.
    const wrong = { more: { authorization: "Bearer nonsense" } };
    expect(await refused(world, wrong)).toMatchObject({ status: 401, code: "invalid_api_key" });
  });

  test("a revoked key is told so, before anything else", async () => {
    const world = await gatewayWorld();
    const { directory } = world.gateway.parts;
    const { sha256Hex } = await import("#domain/hash.ts");
    const entry = await directory.lookup(sha256Hex(world.keys[0]));
    if (!entry) throw new Error("the key is not in the directory");
    await directory.put([[sha256Hex(world.keys[0]), { ...entry, revoked: true }]]);
    expect(await refused(world, { method: "PUT" })).toMatchObject({
      status: 401,
      code: "key_revoked",
    });
  });
});

describe("then the method, the size, the type, the body, the model, the area, the money", () => {
  const large = "x".repeat(10_001);
  /** From the top, each row puts one thing right, and meets the next refusal. */
  test.each<[number, string, RequestChanges]>([
    [
      405,
      "method_not_allowed",
      {
        method: "GET",
        text: large,
        more: { "content-length": "10001", "content-type": "text/plain" },
      },
    ],
    [
      413,
      "request_too_large",
      { text: large, more: { "content-length": "10001", "content-type": "text/plain" } },
    ],
    [415, "unsupported_media_type", { text: large, more: { "content-type": "text/plain" } }],
    [415, "unsupported_media_type", { text: large, more: { "content-type": undefined } }],
    [415, "unsupported_media_type", { text: large, more: { "content-encoding": "gzip" } }],
    [413, "request_too_large", { text: large }],
    [400, "invalid_request", { text: "{" }],
    [400, "invalid_request", { text: chat({ model: "nobody", model_region: "mars" }) }],
    [404, "model_not_found", { text: chat({ model: "nobody", model_region: "global" }) }],
    [403, "residency_violation", { text: chat({ model_region: "global", max_tokens: 900_000 }) }],
    [402, "insufficient_balance", { text: chat({ max_tokens: 65_536, n: 2 }) }],
  ])("%i %s", async (status, code, changes) => {
    const world = await gatewayWorld();
    expect(await refused(world, changes)).toMatchObject({ status, code });
    expect(world.gateway.inFlight.bytes()).toBe(0);
    expect(await world.types()).toEqual([]);
    expect(world.counted).toEqual([{ status, code }]);
  });

  test("a body that finds no room is refused, and so is one whose sender hangs up", async () => {
    const world = await gatewayWorld({ limits: { inFlightBytesMax: 50 } });
    expect(await refused(world, {})).toMatchObject({ status: 503, code: "overloaded" });
    expect(world.gateway.inFlight.bytes()).toBe(0);
  });

  test("a refusal of money says what there is, what is needed, and what would fit", async () => {
    const world = await gatewayWorld();
    const { error } = await refused(world, { text: chat({ max_tokens: 65_536, n: 2 }) });
    expect(error).toMatchObject({
      type: "insufficient_balance",
      message: "Insufficient credit balance",
      balance_micro: 100_000,
      available_micro: 100_000,
      held_micro: 0,
      would_fit: expect.stringMatching(/^max_tokens ≤ \d+$/) as string,
    });
    const fits = Number(/\d+/.exec(String(error["would_fit"]))?.[0]);
    for (const [tokens, status] of [
      [fits + 1, 402],
      [fits, undefined],
    ] as const) {
      const answer = world.ask(handleChat, { text: chat({ max_tokens: tokens, n: 2 }) });
      await settled();
      expect(answer.status).toBe(status);
    }
  });

  test("money that only runs is told apart from money that is not there", async () => {
    const world = await gatewayWorld();
    world.ask(handleChat, { text: chat({ max_tokens: 60_000 }) });
    await settled();
    expect(await refused(world, { text: chat({ max_tokens: 60_000 }) })).toMatchObject({
      status: 402,
      code: "balance_held",
    });
    expect(world.calls).toHaveLength(1);
  });
});

describe("the rate limit of a key", () => {
  test("counts what was admitted, says when to come back, and stands in the headers", async () => {
    const world = await gatewayWorld();
    const limited = bearer(world.keys[1]);
    for (const remaining of ["1", "0"]) {
      const answer = world.ask(handleChat, limited);
      await settled();
      world.calls.at(-1)?.answer(completion([1, 1]));
      await answer.done;
      expect(answer.headers).toMatchObject({
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": remaining,
      });
      expect(answer.headers["x-ratelimit-reset-requests"]).toMatch(/^\d+s$/);
      expect((await refused(world, { ...limited, text: "{" })).status).toBe(400);
    }
    const { answer, error, status } = await refused(world, limited);
    expect(status).toBe(429);
    expect(error).toMatchObject({
      code: "rate_limit_exceeded",
      message: "Rate limit exceeded: 2 requests per minute",
    });
    expect(answer.headers["retry-after"]).toBe(String(error["retry_after"]));
    expect(answer.headers["x-ratelimit-remaining-requests"]).toBe("0");
    await world.clock.advance(Number(error["retry_after"]) * 1_000);
    world.ask(handleChat, limited);
    await settled();
    expect(world.calls).toHaveLength(3);
  });
});

describe("refusals have a cap of their own", () => {
  test("60 failed logins per address and minute; whoever has a key, or another address, is not concerned", async () => {
    const world = await gatewayWorld();
    const wrong = bearer(keyOf("us"));
    for (let tried = 0; tried < 60; tried++) expect((await refused(world, wrong)).status).toBe(401);
    const { answer, error, status } = await refused(world, wrong);
    expect([status, error["code"]]).toEqual([429, "rate_limit_exceeded"]);
    expect(Number(answer.headers["retry-after"])).toBeGreaterThan(0);
    expect(Number(answer.headers["retry-after"])).toBeLessThanOrEqual(60);
    expect((await refused(world, { ...wrong, remoteAddress: "10.0.0.2" })).status).toBe(401);
    const good = world.ask(handleModels, { method: "GET" });
    await good.done;
    expect(good.status).toBe(200);
    await world.clock.advance(60_000);
    expect((await refused(world, wrong)).status).toBe(401);
  });

  test("600 refusals per key and minute; what would pass still passes", async () => {
    const world = await gatewayWorld();
    for (let tried = 0; tried < 600; tried++) world.ask(handleChat, { text: "{" });
    await settled();
    expect((await refused(world, { text: "{" })).status).toBe(429);
    const good = world.ask(handleChat);
    await settled();
    world.calls[0]?.answer(completion([1, 1]));
    await good.done;
    expect(good.status).toBe(200);
    expect((await refused(world, { ...bearer(world.keys[1]), text: "{" })).status).toBe(400);
  });

  test("a ledger outage is nobody's doing: after 700 refused requests the caller is served at once", async () => {
    const world = await gatewayWorld({ limits: { inFlightBytesMax: 1_000_000 } });
    world.judge = () => ({ outcome: "refused", reason: "disk_full" });
    const asked = Array.from({ length: 700 }, () => world.ask(handleChat));
    await world.clock.advance(10_000);
    const told = asked.map(({ status, text }) => `${status} ${text}`);
    expect(new Set(told)).toEqual(
      new Set([`503 ${openaiErrorBody({ code: "ledger_unavailable" })}`]),
    );
    world.judge = undefined;
    await world.clock.advance(1_000);
    const good = world.ask(handleChat);
    await settled();
    world.calls[0]?.answer(completion([1, 1]));
    await good.done;
    expect(good.status).toBe(200);
    expect((await refused(world, { text: "{" })).status).toBe(400);
    await world.expectAtRest();
  });

  test("a full room is nobody's doing either, and reading routes are no other case", async () => {
    const world = await gatewayWorld({ limits: { inFlightBytesMax: 50 } });
    for (let tried = 0; tried < 700; tried++)
      expect((await refused(world, {})).code).toBe("overloaded");
    const fenced = { outcome: "fenced", fenced: "fault" } as const;
    world.admission.figures = () => Promise.resolve(fenced);
    for (let tried = 0; tried < 700; tried++)
      expect((await refused(world, { method: "GET" }, handleBalance)).status).toBe(503);
    expect((await refused(world, { method: "PUT" })).code).toBe("method_not_allowed");
  });
});

describe("routes that only read", () => {
  test("cost nothing, hold nothing, and answer what a key may see", async () => {
    const world = await gatewayWorld();
    const models = world.ask(handleModels, { method: "GET" });
    const one = world.ask(handleModel("sim-flat"), { method: "GET" });
    const none = world.ask(handleModel("sim-none"), { method: "GET" });
    const balance = world.ask(handleBalance, { method: "GET" });
    await Promise.all([models.done, one.done, none.done, balance.done]);
    expect([models.status, one.status, none.status, balance.status]).toEqual([200, 200, 404, 200]);
    expect(models.text).not.toMatch(/cost/i);
    expect(balance.json()).toMatchObject({
      credits_micro: 100_000,
      credits_dollars: "0.10",
      held_micro: 0,
      available_micro: 100_000,
    });
    expect(await world.types()).toEqual([]);
    const posted = world.ask(handleBalance, { method: "POST" });
    await posted.done;
    expect([posted.status, posted.json().error["code"]]).toEqual([405, "method_not_allowed"]);
  });
});

test("a server of keys or admission that does not answer is 503, to be tried again", async () => {
  const world = await gatewayWorld();
  const { directory, admission } = world.gateway.parts;
  const away = () => Promise.reject(new Error("CANARY"));
  const unavailable = {
    status: 503,
    headers: { "retry-after": "1" },
    body: { error: { code: "ledger_unavailable" } },
  };
  const toldTo = async (handle: typeof handleBalance) => {
    const answer = world.ask(handle, { method: "GET" });
    await world.clock.advance(1_000);
    return { status: answer.status, headers: answer.headers, body: answer.json() };
  };
  const { figures } = admission;
  admission.figures = away;
  expect(await toldTo(handleBalance)).toMatchObject(unavailable);
  admission.figures = figures;
  directory.lookup = away;
  expect(await toldTo(handleBalance)).toMatchObject(unavailable);
  expect(await toldTo(handleModels)).toMatchObject(unavailable);
});

test("an error nobody expected is a 500 with its request id and nothing else, and ends no process", async () => {
  const knownRegions = new Set(["us"]);
  knownRegions.has = () => {
    throw new Error("CANARY");
  };
  const world = await gatewayWorld({ parts: { knownRegions } });
  const { status, answer, error } = await refused(world, {});
  expect(status).toBe(500);
  expect(error).toEqual({
    message: "Internal error",
    type: "api_error",
    code: "internal_error",
    param: null,
  });
  expect(JSON.stringify([answer.text, answer.headers])).not.toContain("CANARY");
});
