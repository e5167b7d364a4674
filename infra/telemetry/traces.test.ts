import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { CallTrace, RequestTrace } from "#services/ports.ts";
import { startCollector, type Collector } from "#test/doubles/collector.ts";
import { openTraces } from "./traces.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const PARENT = "b7ad6b7169203331";
const BEGAN_AT = 1_800_000_000_000;

const call: CallTrace = {
  operation: "chat",
  host: "openai",
  baseUrl: "https://api.openai.com/v1",
  model: "gpt-4o-mini",
  isStream: true,
  outputCapTokens: 100,
  beganMs: 3,
  durationMs: 40,
  firstByteMs: 20,
  status: 200,
  error: undefined,
  servedModel: "gpt-4o-mini-2024-07-18",
  inputTokens: 11,
  outputTokens: 7,
};
const request: RequestTrace = {
  requestId: "req_1",
  method: "POST",
  route: "/v1/chat/completions",
  parent: undefined,
  orgId: "org_1",
  keyId: "key_1",
  beganAt: BEGAN_AT,
  durationMs: 50,
  status: 200,
  code: "ok",
  calls: [call],
};

const closing: (() => Promise<void>)[] = [];
beforeEach(() => {
  for (const name of Object.keys(process.env))
    if (name.startsWith("OTEL_")) vi.stubEnv(name, undefined);
  vi.stubEnv("OTEL_BSP_SCHEDULE_DELAY", "1");
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
  vi.unstubAllEnvs();
});

async function setUp(
  env: Record<string, string> = {},
  answer?: Parameters<typeof startCollector>[0],
) {
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
  const collector: Collector = await startCollector(answer);
  const alarms: [string, object][] = [];
  const counts = { exported: 0, failed: 0, dropped: 0 };
  const traces = openTraces({
    url: `${collector.url}/v1/traces`,
    instance: "instance-1",
    region: "us",
    alarm: (what, facts) => void alarms.push([what, facts]),
    counted: (outcome, count) => void (counts[outcome] += count),
  });
  closing.push(
    () => collector.close(),
    () => traces.close(),
  );
  return { collector, traces, alarms, counts };
}

const ms = (number: number) => BigInt(number) * 1_000_000n;

test("a request is a server span, and each call a client span below it, in the names of the conventions", async () => {
  const { collector, traces, counts, alarms } = await setUp();
  traces.requestTraced(request);
  const spans = await collector.until(2);
  const server = spans.find(({ kind }) => kind === 2);
  const client = spans.find(({ kind }) => kind === 3);
  expect(server).toMatchObject({
    name: "POST /v1/chat/completions",
    parentSpanId: "",
    beganAtNs: ms(BEGAN_AT),
    endedAtNs: ms(BEGAN_AT + 50),
    status: 0,
  });
  expect(server?.attributes).toEqual({
    "http.request.method": "POST",
    "http.route": "/v1/chat/completions",
    "http.response.status_code": 200,
    "relai.request.id": "req_1",
    "relai.organization.id": "org_1",
    "relai.key.id": "key_1",
  });
  expect(server?.resource).toMatchObject({
    "service.name": "relai",
    "service.instance.id": "instance-1",
    "relai.region": "us",
  });
  expect(client).toMatchObject({
    name: "chat gpt-4o-mini",
    traceId: server?.traceId,
    parentSpanId: server?.spanId,
    beganAtNs: ms(BEGAN_AT + 3),
    endedAtNs: ms(BEGAN_AT + 43),
    status: 0,
  });
  expect(client?.attributes).toEqual({
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.request.stream": true,
    "gen_ai.request.max_tokens": 100,
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.time_to_first_chunk": 0.02,
    "gen_ai.usage.input_tokens": 11,
    "gen_ai.usage.output_tokens": 7,
    "server.address": "api.openai.com",
    "server.port": 443,
    "http.response.status_code": 200,
  });
  await expect.poll(() => counts).toEqual({ exported: 2, failed: 0, dropped: 0 });
  expect(alarms).toEqual([]);
});

test("what went wrong has its type; a refusal of the caller is no error of ours", async () => {
  const { collector, traces } = await setUp();
  const failed = { ...call, status: undefined, error: "connect", baseUrl: "http://[::1]:81/v1" };
  traces.requestTraced({ ...request, status: 502, code: "upstream_error", calls: [failed] });
  traces.requestTraced({ ...request, status: 402, code: "insufficient_balance", calls: [] });
  traces.requestTraced({ ...request, status: 200, code: "upstream_error", calls: [] });
  const spans = await collector.until(4);
  const servers = spans.filter(({ kind }) => kind === 2);
  expect(
    servers.map(({ status, attributes }) => [
      attributes["http.response.status_code"],
      attributes["error.type"],
      status,
    ]),
  ).toEqual([
    [502, "upstream_error", 2],
    [402, "insufficient_balance", 0],
    [200, "upstream_error", 2],
  ]);
  const client = spans.find(({ kind }) => kind === 3);
  expect(client?.status).toBe(2);
  expect(client?.attributes).toMatchObject({
    "error.type": "connect",
    "server.address": "::1",
    "server.port": 81,
  });
  expect(client?.attributes).not.toHaveProperty("http.response.status_code");
});

test("a method and a path that nobody knows are no names", async () => {
  const { collector, traces } = await setUp();
  traces.requestTraced({ ...request, method: "PROPFIND", route: "unknown", calls: [] });
  const [span] = await collector.until(1);
  expect(span?.name).toBe("HTTP");
  expect(span?.attributes).toMatchObject({ "http.request.method": "_OTHER" });
  expect(span?.attributes).not.toHaveProperty("http.route");
});

test("a caller's trace is joined, and its wish not to be traced is kept", async () => {
  const { collector, traces } = await setUp();
  traces.requestTraced({ ...request, requestId: "unwanted", parent: `00-${TRACE}-${PARENT}-00` });
  traces.requestTraced({ ...request, parent: `00-${TRACE}-${PARENT}-01`, calls: [] });
  const [span, ...others] = await collector.until(1);
  expect(others).toEqual([]);
  expect(span).toMatchObject({ traceId: TRACE, parentSpanId: PARENT });
});

test.each([
  ["no", undefined],
  ["a malformed", "00-abc"],
  ["an all-zero", `00-${"0".repeat(32)}-${PARENT}-01`],
  ["a double", `00-${TRACE}-${PARENT}-01, 00-${TRACE}-${PARENT}-01`],
])("%s traceparent begins a trace of its own", async (_which, parent) => {
  const { collector, traces } = await setUp();
  traces.requestTraced({ ...request, parent, calls: [] });
  const [span] = await collector.until(1);
  expect(span?.parentSpanId).toBe("");
  expect(span?.traceId).toMatch(/^(?!0af7|0{32})[\da-f]{32}$/);
});

test("the variables of OpenTelemetry say who this is, what is sampled, with which headers, and whether callers are joined", async () => {
  const { collector, traces } = await setUp({
    OTEL_SERVICE_NAME: "gateway-eu",
    OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=test,service.name=lost",
    OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20collector-token",
    OTEL_TRACES_SAMPLER: "always_on",
    OTEL_PROPAGATORS: "none",
  });
  traces.requestTraced({ ...request, parent: `00-${TRACE}-${PARENT}-00` });
  const [span] = await collector.until(2);
  expect(span?.resource).toMatchObject({
    "service.name": "gateway-eu",
    "deployment.environment.name": "test",
    "relai.region": "us",
  });
  expect(span?.traceId).not.toBe(TRACE);
  expect(collector.requests()[0]).toEqual({
    path: "/v1/traces",
    authorization: "Bearer collector-token",
  });
});

test.each([
  [{ OTEL_TRACES_SAMPLER: "always_off" }, 0],
  [{ OTEL_TRACES_SAMPLER: "parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG: "0" }, 0],
  [{ OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "1" }, 2],
  [{ OTEL_TRACES_SAMPLER: "no_such_sampler", OTEL_BSP_MAX_QUEUE_SIZE: "-1" }, 2],
])("%o leaves %i of two spans", async (env, count) => {
  const { collector, traces, counts } = await setUp(env);
  traces.requestTraced(request);
  await traces.close();
  expect(collector.spans()).toHaveLength(count);
  expect(counts).toEqual({ exported: count, failed: 0, dropped: 0 });
});

test("a collector that refuses is told of once, and again when it has failed anew; nobody else notices", async () => {
  const statuses = [400, 401, 200, 403];
  const { traces, alarms, counts } = await setUp({}, (response) => {
    response.writeHead(statuses.shift() ?? 200).end("its own words");
  });
  for (const counted of [
    { exported: 0, failed: 2 },
    { exported: 0, failed: 4 },
    { exported: 2, failed: 4 },
    { exported: 2, failed: 6 },
  ]) {
    traces.requestTraced(request);
    await expect.poll(() => counts).toMatchObject(counted);
  }
  expect(alarms).toEqual([
    ["traces_not_exported", { spans: 2, error: "400" }],
    ["traces_not_exported", { spans: 2, error: "403" }],
  ]);
});

test("beyond the queue whole requests are dropped, however long the collector takes", async () => {
  const held: (() => void)[] = [];
  const size = { OTEL_BSP_MAX_QUEUE_SIZE: "10", OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "4" };
  const { collector, traces, counts } = await setUp(size, (response) => {
    held.push(() => response.writeHead(200).end());
  });
  for (let asked = 0; asked < 100; asked += 1) {
    traces.requestTraced(request);
    if (asked % 10 === 0) await new Promise((resolve) => void setTimeout(resolve, 5));
  }
  expect(counts).toEqual({ exported: 0, failed: 0, dropped: 190 });
  expect(collector.spans().length).toBeLessThanOrEqual(10);
  const releasing = setInterval(() => held.shift()?.(), 1);
  await traces.close();
  clearInterval(releasing);
  expect(counts).toEqual({ exported: 10, failed: 0, dropped: 190 });
  const byTrace = Map.groupBy(collector.spans(), ({ traceId }) => traceId);
  expect([...byTrace.values()].map(({ length }) => length)).toEqual([2, 2, 2, 2, 2]);
});

test("closing sends what waits, and takes nothing more", async () => {
  const { collector, traces, counts } = await setUp({ OTEL_BSP_SCHEDULE_DELAY: "60000" });
  traces.requestTraced(request);
  expect(collector.spans()).toEqual([]);
  await traces.close();
  expect(counts.exported).toBe(2);
  traces.requestTraced(request);
  await traces.close();
  expect(collector.spans()).toHaveLength(2);
});
