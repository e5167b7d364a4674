import { connect } from "node:net";
import type { FastifyInstance } from "fastify";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bearer, callsTo, controlWorld, type ControlWorld } from "#test/worlds/control-world.ts";

let world: ControlWorld;
let app: FastifyInstance;
let calls: ReturnType<typeof callsTo>;
let orgId: string;
beforeAll(async () => {
  world = await controlWorld();
  app = world.server();
  calls = callsTo(app);
  orgId = (await calls.post("/v1/orgs", { name: "Acme" })).json<{ id: string }>().id;
});
afterAll(async () => {
  await app.close();
  await world.close();
});

describe("money as text", () => {
  test.for([
    ["25", 25_000_000],
    ["25.00", 25_000_000],
    ["0.01", 10_000],
    ["0.010001", 10_001],
    ["0.1", 100_000],
    ["1234567890.123456", 1_234_567_890_123_456],
    ["9007199254.740991", 9_007_199_254_740_991],
  ] as const)("%s dollars, as a number and as a text", async ([text, micro]) => {
    for (const token of [text, `"${text}"`]) {
      const id = (await calls.post("/v1/orgs", { name: "m" })).json<{ id: string }>().id;
      const response = await calls.post(`/v1/orgs/${id}/credits`, `{"amount_dollars":${token}}`);
      expect(response.statusCode).toBe(201);
      expect(response.json()).toMatchObject({ amount_micro: micro });
      const balance = (await calls.ask("GET", `/v1/orgs/${id}/balance`)).json<object>();
      expect(balance).toMatchObject({ credits_micro: micro, available_micro: micro });
    }
  });

  test.for([
    "1e3",
    '"1e3"',
    "0.0000001",
    '"0.0000001"',
    "-5",
    '"-5"',
    '"+5"',
    '"$5"',
    '"1,000.00"',
    '""',
    '"."',
    '".5"',
    '"5."',
    '"0x10"',
    '"Infinity"',
    '"NaN"',
    '"١٢"',
    "9007199254.740992",
    "99999999999999999999",
    "0",
    '"0.00"',
    "0.000001",
    '"0.009999"',
    "true",
    "[5]",
    "{}",
  ])("%s dollars are refused", async (token) => {
    const response = await calls.post(`/v1/orgs/${orgId}/credits`, `{"amount_dollars":${token}}`);
    expect(response.statusCode).toBe(400);
    expect(response.json()).toMatchObject({
      error: { code: "invalid_request", param: "amount_dollars" },
    });
  });

  test.for(["1.5", '"1"', "-1", "1e3", "9007199254740992", "0", "007", "9999"])(
    "%s micro are refused",
    async (token) => {
      const response = await calls.post(`/v1/orgs/${orgId}/credits`, `{"amount_micro":${token}}`);
      expect(response.statusCode).toBe(400);
    },
  );
});

describe("bad input gets a clear error", () => {
  type Bad = readonly [what: string, path: string, body: unknown, message: string];
  test.for<Bad>([
    ["no body", "/v1/orgs", undefined, "Send a JSON object as the body"],
    ["a list", "/v1/orgs", "[]", "Send a JSON object as the body"],
    ["a text", "/v1/orgs", '"x"', "Send a JSON object as the body"],
    ["a number", "/v1/orgs", "1", "Send a JSON object as the body"],
    ["no JSON", "/v1/orgs", "{name}", "The body is not valid JSON in UTF-8"],
    ["half of it", "/v1/orgs", '{"name":', "The body is not valid JSON in UTF-8"],
    [
      "no UTF-8",
      "/v1/orgs",
      Buffer.from([0x22, 0xff, 0x22]),
      "The body is not valid JSON in UTF-8",
    ],
    [
      "deep JSON",
      "/v1/orgs",
      "[".repeat(30_000) + "]".repeat(30_000),
      "The body is not valid JSON",
    ],
    ["no name", "/v1/orgs", {}, "'name' must be a text of 1 to 256 characters"],
    ["a name that is null", "/v1/orgs", { name: null }, "'name' must be a text"],
    ["an empty name", "/v1/orgs", { name: " " }, "'name' must be a text"],
    ["a long name", "/v1/orgs", { name: "x".repeat(257) }, "'name' must be a text"],
    ["a control character", "/v1/orgs", { name: "a\u0007b" }, "without control characters"],
    ["half a surrogate pair", "/v1/orgs", '{"name":"a\\ud800"}', "'name' must be a text"],
    ["an unknown member", "/v1/orgs", { name: "x", nmae: 1 }, "Unknown member of the body: 'nmae'"],
    [
      "the prototype",
      "/v1/orgs",
      '{"name":"x","__proto__":{}}',
      "Unknown member of the body: '__proto__'",
    ],
    ["no amount", "/v1/orgs/ORG/credits", {}, "'amount_dollars' or 'amount_micro' must be given"],
    [
      "two amounts",
      "/v1/orgs/ORG/credits",
      '{"amount_dollars":1,"amount_micro":1000000}',
      "either 'amount_dollars' or 'amount_micro'",
    ],
    ["rpm 0", "/v1/orgs/ORG/keys", { rpm: 0 }, "'rpm' must be a whole number from 1 to 1000000"],
    ["rpm as a text", "/v1/orgs/ORG/keys", { rpm: "5" }, "'rpm' must be"],
    ["half an rpm", "/v1/orgs/ORG/keys", { rpm: 0.5 }, "'rpm' must be"],
    ["a scope", "/v1/orgs/ORG/keys", { scope: "global" }, "Unknown member of the body: 'scope'"],
    ["an odd budget", "/v1/orgs/ORG/keys", { budget_dollars: "-1" }, "'budget_dollars' must be"],
    [
      "two budgets",
      "/v1/orgs/ORG/keys",
      '{"budget_dollars":1,"budget_micro":1}',
      "either 'budget_dollars'",
    ],
    ["no such day", "/v1/orgs/ORG/keys", { expires_at: "2999-02-30" }, "'expires_at' must be"],
    [
      "no time zone",
      "/v1/orgs/ORG/keys",
      { expires_at: "2999-01-01T00:00:00" },
      "'expires_at' must be",
    ],
    ["a number as time", "/v1/orgs/ORG/keys", { expires_at: 1 }, "'expires_at' must be"],
    [
      "the past",
      "/v1/orgs/ORG/keys",
      { expires_at: "2020-01-01" },
      "'expires_at' must be in the future",
    ],
    [
      "no such read model",
      "/v1/replay",
      { projection: "x" },
      "'projection' must be one of accounts",
    ],
    ["a later position", "/v1/replay", { from: 5 }, "rebuilt from the first event"],
  ])("%s", async ([, path, body, message]) => {
    const response = await calls.post(path.replace("ORG", orgId), body);
    expect(response.statusCode).toBe(400);
    const { error } = response.json<{ error: Record<string, unknown> }>();
    expect(Object.keys(error)).toEqual(["message", "type", "code", "param"]);
    expect(error).toMatchObject({ type: "invalid_request_error", code: "invalid_request" });
    expect(error["message"]).toContain(message);
  });

  test.for([
    ["/v1/orgs?limit=0", "limit"],
    ["/v1/orgs?limit=101", "limit"],
    ["/v1/orgs?limit=x", "limit"],
    ["/v1/orgs?limit=1&limit=2", "limit"],
    ["/v1/orgs?order=up", "order"],
    ["/v1/orgs?after=org_x", "after"],
    ["/v1/orgs?foo=1", null],
    ["/v1/keys?toString=1", null],
  ] as const)("GET %s", async ([url, param]) => {
    const response = await calls.ask("GET", url);
    expect(response.statusCode).toBe(400);
    expect(response.json()).toMatchObject({ error: { code: "invalid_request", param } });
  });

  test("a credential in the wrong place is not quoted", async () => {
    const key = "relai_sk_us_live_0123456789";
    const answers = [
      await calls.post("/v1/orgs", { name: "x", [key]: 1 }),
      await calls.ask("GET", `/v1/orgs?${key}=1`),
      await calls.post("/v1/orgs", `{"name": ${key}}`),
      await calls.post(`/v1/orgs/${orgId}/credits`, { amount_dollars: key }),
      await calls.ask("DELETE", `/v1/keys/${key}`),
      await calls.ask("GET", `/v1/keys?org=${key}`),
    ];
    for (const answer of answers) {
      expect(answer.statusCode).toBeGreaterThanOrEqual(400);
      expect(answer.statusCode).toBeLessThan(500);
      expect(answer.body + JSON.stringify(answer.headers)).not.toContain(key);
    }
  });

  test("ids that name nothing, unknown URLs, other methods", async () => {
    for (const url of [
      "/v1/orgs/x",
      `/v1/orgs/org_${"0".repeat(26)}`,
      `/v1/orgs/org_${"0".repeat(26)}/balance`,
      "/v1/orgs/%00/balance",
      `/v1/orgs/${"x".repeat(90)}/keys`,
      "/v1/keys?org=x",
      "/v1",
      "/",
      "/V1/orgs",
    ]) {
      const response = await calls.ask("GET", url);
      expect([url, response.statusCode]).toEqual([url, 404]);
      expect(response.json()).toMatchObject({ error: { code: "not_found" } });
    }
    const unknown = await calls.ask("DELETE", `/v1/keys/key_${"0".repeat(26)}`);
    expect(unknown.statusCode).toBe(404);
    const put = await calls.ask("PUT", "/v1/orgs");
    expect([put.statusCode, put.headers["allow"]]).toEqual([405, "POST, GET"]);
    expect((await calls.ask("GET", "/v1/orgs/%zz")).statusCode).toBe(400);
  });

  test("headers and sizes", async () => {
    const named = (length: number) =>
      calls.post("/v1/orgs", { name: "x" }, { "idempotency-key": "k".repeat(length) });
    expect((await named(0)).statusCode).toBe(400);
    expect((await named(255)).statusCode).toBe(201);
    expect((await named(256)).statusCode).toBe(400);
    const large = await calls.post("/v1/orgs", { name: "x".repeat(70_000) });
    expect(large.statusCode).toBe(413);
    expect(large.json()).toMatchObject({ error: { code: "request_too_large" } });
    const text = await calls.post("/v1/orgs", "name=x", { "content-type": "text/plain" });
    expect(text.statusCode).toBe(415);
    expect(text.json()).toMatchObject({ error: { code: "unsupported_media_type" } });
  });

  test("what is no HTTP at all", async () => {
    const own = world.server();
    const url = new URL(await own.listen({ port: 0, host: "127.0.0.1" }));
    const said = await new Promise<string>((resolve) => {
      let text = "";
      const socket = connect(Number(url.port), url.hostname, () =>
        socket.write("nonsense\r\n\r\n"),
      );
      socket.on("data", (bytes: Buffer) => (text += bytes.toString()));
      socket.on("close", () => resolve(text));
    });
    expect(said).toMatch(/^HTTP\/1.1 400 /);
    expect(JSON.parse(said.split("\r\n\r\n")[1] ?? "")).toMatchObject({
      error: { code: "invalid_request" },
    });
    await own.close();
  });

  test("a fault of ours is a 500 that says nothing but its id", async () => {
    const own = world.server({
      admission: {
        ...world.parts.admission,
        figures() {
          throw new TypeError("secret detail");
        },
      },
    });
    const response = await own.inject({ url: `/v1/orgs/${orgId}/balance`, headers: bearer });
    expect(response.statusCode).toBe(500);
    expect(response.json()).toMatchObject({
      error: { code: "internal_error", request_id: response.headers["x-request-id"] },
    });
    expect(response.body).not.toContain("secret");
    expect(world.alarms).toContain("control_request_failed");
    await own.close();
  });
});
