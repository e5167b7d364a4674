import type { FastifyInstance } from "fastify";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PROJECTIONS } from "#projections/all.ts";
import {
  ADMIN_TOKEN,
  RUNNING_SETTINGS,
  bearer,
  callsTo,
  controlWorld,
  type ControlWorld,
} from "#test/worlds/control-world.ts";

const aText: unknown = expect.any(String);
const aNumber: unknown = expect.any(Number);
const matching = (pattern: RegExp): unknown => expect.stringMatching(pattern);

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

describe("who may ask", () => {
  test.for([
    [undefined],
    [""],
    ["Bearer"],
    ["Bearer "],
    [`Basic ${ADMIN_TOKEN}`],
    [ADMIN_TOKEN],
    [`Bearer ${ADMIN_TOKEN}x`],
    [`Bearer ${ADMIN_TOKEN.slice(0, -1)}`],
    [`Bearer ${ADMIN_TOKEN} ${ADMIN_TOKEN}`],
  ])("the header %j is refused", async ([authorization]) => {
    const own = world.server();
    const headers = authorization === undefined ? {} : { authorization };
    for (const url of ["/v1/orgs", "/v1/keys", "/v1/config", "/nowhere", "/healthz?x"]) {
      const response = await own.inject({ url, headers });
      expect(response.statusCode).toBe(401);
      expect(response.json()).toEqual({
        error: {
          message: "Invalid admin token provided",
          type: "invalid_request_error",
          code: "invalid_admin_token",
          param: null,
        },
      });
    }
    await own.close();
  });

  test("the scheme's case does not matter, and the probes need no token", async () => {
    const response = await app.inject({
      url: "/v1/orgs",
      headers: { authorization: `bearer ${ADMIN_TOKEN}` },
    });
    expect(response.statusCode).toBe(200);
    expect((await app.inject({ url: "/healthz" })).json()).toEqual({ ok: true });
    expect((await app.inject({ url: "/readyz" })).json()).toMatchObject({
      ready: true,
      dependencies: { event_store: { state: "up" }, ledger: { state: "up" } },
    });
  });

  test("after 60 wrong tokens in a minute an address is told to stop; the right one still works", async () => {
    const own = world.server();
    const statuses: number[] = [];
    for (let tries = 0; tries < 130 && statuses.at(-1) !== 429; tries++)
      statuses.push((await own.inject({ url: "/v1/orgs" })).statusCode);
    expect(statuses.length).toBeGreaterThan(60);
    const response = await own.inject({ url: "/v1/orgs" });
    expect(response.statusCode).toBe(429);
    expect(Number(response.headers["retry-after"])).toBeGreaterThan(0);
    expect((await own.inject({ url: "/v1/orgs", headers: bearer })).statusCode).toBe(200);
    await own.close();
  });
});

describe("what is answered", () => {
  test("organizations", async () => {
    const created = await calls.post("/v1/orgs", { name: "  Café  " });
    expect(created.statusCode).toBe(201);
    expect(created.headers["x-request-id"]).toMatch(/^req_/);
    expect(created.headers["content-type"]).toBe("application/json; charset=utf-8");
    const organization = created.json<{ id: string }>();
    expect(organization).toEqual({
      id: matching(/^org_[0-9A-Z]{26}$/),
      object: "organization",
      name: "Café",
      home_region: "us",
      created_at: matching(/^\d{4}-\d\d-\d\dT.*Z$/),
    });
    expect((await calls.ask("GET", `/v1/orgs/${organization.id}`)).json()).toEqual(organization);
    const list = (await calls.ask("GET", "/v1/orgs?limit=1")).json<object>();
    expect(list).toEqual({
      object: "list",
      data: [organization],
      first_id: organization.id,
      last_id: organization.id,
      has_more: true,
    });
    const [first] = await world.store.read(`org-${organization.id}`, {
      from: "start",
      direction: "forward",
      max: 1,
    });
    expect(first?.metadata).toMatchObject({
      actor: "control",
      region: "us",
      $correlationId: created.headers["x-request-id"],
    });
  });

  test("a repeat says that it is one", async () => {
    const headers = { "idempotency-key": "repeat" };
    const first = await calls.post(
      `/v1/orgs/${orgId}/credits`,
      { amount_dollars: "1.50" },
      headers,
    );
    const again = await calls.post(
      `/v1/orgs/${orgId}/credits`,
      '{"amount_micro": 1500000}',
      headers,
    );
    expect([first.statusCode, again.statusCode]).toEqual([201, 201]);
    expect(first.headers["idempotent-replayed"]).toBeUndefined();
    expect(again.headers["idempotent-replayed"]).toBe("true");
    expect(again.json()).toEqual(first.json());
    const other = await calls.post(
      `/v1/orgs/${orgId}/credits`,
      { amount_dollars: "1.51" },
      headers,
    );
    expect(other.statusCode).toBe(400);
    expect(other.json()).toMatchObject({ error: { code: "idempotency_error" } });
  });

  test("keys: the secret once, and the form that may be shown ever after", async () => {
    const headers = { "idempotency-key": "key" };
    const body = '{"name":"app","rpm":60,"budget_dollars":0.1,"expires_at":"2999-01-31"}';
    const created = await calls.post(`/v1/orgs/${orgId}/keys`, body, headers);
    expect(created.statusCode).toBe(201);
    const { key, ...shown } = created.json<{ id: string; key: string; display_prefix: string }>();
    expect(key).toMatch(/^relai_sk_us_live_[0-9A-Za-z]{38}$/);
    expect(shown).toMatchObject({
      object: "key",
      organization: orgId,
      name: "app",
      scope: "regional",
      display_prefix: `${key.slice(0, 21)}…${key.slice(-4)}`,
      rpm: 60,
      budget_micro: 100_000,
      budget_dollars: "0.10",
      expires_at: "2999-01-31T00:00:00.000Z",
      revoked_at: null,
    });
    const same = {
      name: "app",
      rpm: 60,
      budget_micro: 100_000,
      expires_at: "2999-01-31T01:00:00+01:00",
    };
    const again = await calls.post(`/v1/orgs/${orgId}/keys`, same, headers);
    expect(again.headers["idempotent-replayed"]).toBe("true");
    expect(again.json()).toEqual({ ...shown, key: null });
    for (const url of [`/v1/orgs/${orgId}/keys`, "/v1/keys", `/v1/keys?org=${orgId}`])
      expect((await calls.ask("GET", url)).json<{ data: unknown[] }>().data).toContainEqual(shown);
    const revoked = await calls.ask("DELETE", `/v1/keys/${shown.id}`);
    expect(revoked.statusCode).toBe(200);
    expect(revoked.json()).toEqual({ ...shown, revoked_at: aText });
    expect((await calls.ask("GET", "/v1/keys")).json<{ data: unknown[] }>().data).toContainEqual(
      revoked.json(),
    );
  });

  test("a key without anything", async () => {
    const created = await calls.post(`/v1/orgs/${orgId}/keys`, { name: null, rpm: null });
    expect(created.json()).toMatchObject({
      name: null,
      rpm: null,
      budget_micro: null,
      budget_dollars: null,
      expires_at: null,
    });
  });

  test("the settings that the process runs with", async () => {
    const response = await calls.ask("GET", "/v1/config");
    expect(response.statusCode).toBe(200);
    expect(response.json()).toEqual({ object: "config", data: RUNNING_SETTINGS });
    expect((await calls.ask("PUT", "/v1/config")).headers["allow"]).toBe("GET");
  });

  test("a replay, line by line", async () => {
    const response = await calls.post("/v1/replay", {});
    expect(response.headers["content-type"]).toBe("application/x-ndjson; charset=utf-8");
    const lines = response.body
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as object);
    expect(lines.at(-1)).toMatchObject({
      done: true,
      data: PROJECTIONS.map(({ name }) => ({ projection: name, events_done: aNumber })),
    });
    expect(lines.slice(0, -1)).toContainEqual({
      projection: "accounts",
      events_done: aNumber,
      position: matching(/^\d+$/),
      head: matching(/^\d+$/),
    });
    const one = await calls.post("/v1/replay", { projection: "usage", from: "start" });
    expect(one.body).toContain('"done":true');
    expect(one.body).not.toContain("accounts");
    expect((await calls.post("/v1/replay")).body).toContain('"done":true');
  });

  test("one replay at a time, and a failed one ends in an error and gives way", async () => {
    const failures: (() => void)[] = [];
    const own = world.server({
      projector: {
        ...world.parts.projector,
        rebuild: () =>
          new Promise((_, reject) => {
            failures.push(() => reject(new Error("no disk")));
          }),
      },
    });
    // An injected request is sent when somebody waits for it.
    const replay = async () => own.inject({ method: "POST", url: "/v1/replay", headers: bearer });
    for (const number of [1, 2]) {
      const running = replay();
      await expect.poll(() => failures.length).toBe(number);
      const second = await replay();
      expect(second.statusCode).toBe(503);
      expect(second.json()).toMatchObject({ error: { code: "overloaded" } });
      failures.at(-1)?.();
      const failed = await running;
      expect(failed.statusCode).toBe(200);
      expect(failed.json()).toMatchObject({ error: { code: "ledger_unavailable" } });
    }
    expect(world.alarms).toContain("replay_failed");
    await own.close();
  });
});
