import { expect, test } from "vitest";
import { startCollector } from "#test/doubles/collector.ts";
import { search } from "./canaries.ts";
import {
  command,
  leavesNothingRunning,
  openai,
  post,
  startRelai,
  type RelaiProcess,
} from "./relai.ts";
import { loadWith, newCanaries, startTellingUpstream } from "./secrets-load.ts";

/** Traces as an operator's collector gets them from a relai process, and that nobody else notices them. */

leavesNothingRunning();

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const PARENT = "b7ad6b7169203331";
const SOON = { OTEL_BSP_SCHEDULE_DELAY: "50" };

const metrics = async ({ internal }: RelaiProcess) => (await fetch(`${internal}/metrics`)).text();

test("a call by OpenAI's client stands in the trace of its caller, with the upstream's call below it", async () => {
  const collector = await startCollector();
  const endpoint = collector.url.replace("//", "//user:collector-password@");
  const settings = {
    ...SOON,
    OTEL_EXPORTER_OTLP_ENDPOINT: `${endpoint}/otlp/?token=collector-query`,
  };
  const relai = await startRelai({ settings });
  const traceparent = `00-${TRACE}-${PARENT}-01`;
  const { data, response } = await openai(relai)
    .chat.completions.create(
      {
        model: "sim-flat",
        max_tokens: 50,
        messages: [{ role: "user", content: "[sim input=12 output=5]" }],
      },
      { headers: { traceparent } },
    )
    .withResponse();
  const spans = await collector.until(2);
  const server = spans.find(({ kind }) => kind === 2);
  expect(server).toMatchObject({
    traceId: TRACE,
    parentSpanId: PARENT,
    name: "POST /v1/chat/completions",
    attributes: {
      "http.response.status_code": 200,
      "relai.request.id": response.headers.get("x-request-id"),
      "relai.organization.id": relai.organization,
    },
  });
  expect(spans.find(({ kind }) => kind === 3)).toMatchObject({
    traceId: TRACE,
    parentSpanId: server?.spanId,
    name: "chat sim-flat",
    attributes: {
      "gen_ai.operation.name": "chat",
      "gen_ai.provider.name": "simulator",
      "gen_ai.request.model": "sim-flat",
      "gen_ai.request.max_tokens": 50,
      "gen_ai.response.model": data.model,
      "gen_ai.usage.input_tokens": data.usage?.prompt_tokens,
      "gen_ai.usage.output_tokens": data.usage?.completion_tokens,
      "server.address": "127.0.0.1",
      "server.port": Number(new URL(relai.simulator).port),
    },
  });
  expect(collector.requests()[0]).toEqual({
    path: "/otlp/v1/traces?token=collector-query",
    authorization: `Basic ${Buffer.from("user:collector-password").toString("base64")}`,
  });
  const shown = await command(relai, "config");
  expect(JSON.stringify(shown)).toContain(`${collector.url}/otlp/"`);
  expect(JSON.stringify(shown)).not.toMatch(/collector-(password|query)/);
  expect(await metrics(relai)).toContain('relai_trace_spans_total{outcome="exported"} 2');
  expect(await relai.stop()).toBe(0);
  await collector.close();
});

test("no prompt, answer, key, header or credential is in what the collector gets, whatever becomes of requests", async () => {
  const told = newCanaries();
  const collector = await startCollector();
  const upstream = await startTellingUpstream(told);
  const relai = await startRelai({
    settings: {
      ...SOON,
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector.url}/v1/traces`,
      OPENAI_API_KEY: `sk-${told["host key"]}`,
      OPENAI_BASE_URL: upstream.baseUrl,
    },
  });
  const ids = new Set<string>();
  await loadWith(told, relai, {
    add: (_name, _status, head) => {
      const id = /req_[0-9A-Z]{26}/.exec(head)?.[0];
      if (id !== undefined) ids.add(id);
    },
  });
  expect(await relai.stop()).toBe(0);
  upstream.close();

  // The load was told: every kind of ending, each request once, each call with the model that was asked for.
  const spans = collector.spans();
  const servers = spans.filter(({ kind }) => kind === 2);
  const statuses = new Set(
    servers.map(({ attributes }) => attributes["http.response.status_code"]),
  );
  for (const status of [200, 400, 401, 402, 403, 404, 405, 415, 429, 502])
    expect(statuses).toContain(status);
  const requestIds = servers.map(({ attributes }) => String(attributes["relai.request.id"]));
  expect(new Set(requestIds).size).toBe(requestIds.length);
  expect(requestIds.filter((id) => ids.has(id)).length).toBeGreaterThan(70);
  const names = new Set(spans.filter(({ kind }) => kind === 3).map(({ name }) => name));
  expect([...names].toSorted()).toEqual(["chat gpt-4o-mini", "chat sim-small"]);
  expect(spans.some(({ attributes }) => "gen_ai.usage.input_tokens" in attributes)).toBe(true);

  const secrets = {
    ...told,
    "demo key": relai.key.slice(-34, -6),
    "admin token": relai.adminToken,
  };
  const seen = Buffer.from(
    JSON.stringify(spans, (_name, value: unknown) =>
      typeof value === "bigint" ? String(value) : value,
    ),
  );
  const places = new Map([
    ["bytes", collector.bytes()],
    ["spans", seen],
  ]);
  expect(search(places, secrets)).toEqual([]);
  // The search looks at the right bytes.
  expect(search(places, { id: requestIds[0] ?? "none" })).toEqual([
    "id in bytes (plain)",
    "id in spans (plain)",
  ]);
  await collector.close();
});

test("a collector that is not there is an alarm and a metric, and no request or stop is the worse for it", async () => {
  const collector = await startCollector();
  await collector.close();
  const settings = { ...SOON, OTEL_EXPORTER_OTLP_ENDPOINT: collector.url };
  const relai = await startRelai({ settings: { ...settings, OTEL_EXPORTER_OTLP_TIMEOUT: "500" } });
  expect((await post(relai, "hello")).status).toBe(200);
  await expect.poll(() => relai.stderr(), { timeout: 20_000 }).toContain("traces_not_exported");
  expect(relai.stderr()).toContain('"error":"ECONNREFUSED"');
  const text = await metrics(relai);
  expect(text).toContain('relai_trace_spans_total{outcome="failed"} 2');
  expect(text).toContain('relai_alarms_total{what="traces_not_exported"} 1');
  expect(await relai.stop()).toBe(0);
});

test("a stop sends what waits; a collector that never answers does not hold it up, and it is clean", async () => {
  const started: RelaiProcess[] = [];
  const answering = await startCollector();
  const silent = await startCollector(() => {});
  for (const { url } of [answering, silent]) {
    const relai = await startRelai({ settings: { OTEL_EXPORTER_OTLP_ENDPOINT: url } });
    started.push(relai);
    expect((await post(relai, "hello")).status).toBe(200);
  }
  expect(answering.spans()).toEqual([]);
  for (const relai of started) {
    const begunMs = performance.now();
    expect(await relai.stop()).toBe(0);
    expect(performance.now() - begunMs).toBeLessThan(8_000);
  }
  expect(answering.spans()).toHaveLength(2);
  expect(silent.spans()).toHaveLength(2);
  await Promise.all([answering.close(), silent.close()]);
});

test.each([
  ["where no collector is named", {}, false],
  ["where one is named", { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9" }, true],
  [
    "where OpenTelemetry is switched off",
    { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9", OTEL_SDK_DISABLED: "true" },
    false,
  ],
] as const)("what sends traces is loaded: %s", async (_where, settings, isLoaded) => {
  const hook = `import { registerHooks } from "node:module";
    registerHooks({ load(url, context, next) {
      if (url.includes("/@opentelemetry/sdk-trace/")) process.stderr.write("loaded " + url + "\\n");
      return next(url, context);
    } });`;
  const NODE_OPTIONS = `--import data:text/javascript,${encodeURIComponent(hook)}`;
  const relai = await startRelai({ settings: { ...settings, NODE_OPTIONS } });
  expect((await post(relai, "hello")).status).toBe(200);
  expect(await relai.stop()).toBe(0);
  expect(relai.stderr().includes("loaded ")).toBe(isLoaded);
});

test("an endpoint that is no address stops the start with one sentence that does not repeat it", async () => {
  const settings = { OTEL_EXPORTER_OTLP_ENDPOINT: "collector:secret@4318" };
  const failed = startRelai({ settings }).catch((error: unknown) => String(error));
  expect(await failed).toMatch(
    /ended with 2: .*OTEL_EXPORTER_OTLP_ENDPOINT must be a URL with http/,
  );
  expect(await failed).not.toContain("secret");
});
