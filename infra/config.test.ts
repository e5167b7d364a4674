import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ConfigError, describeConfig, readConfig, tracesUrlOf } from "./config.ts";

const folder = mkdtempSync(join(tmpdir(), "relai-config-"));
afterAll(() => rmSync(folder, { recursive: true }));

function fileWith(content: unknown): string {
  const file = join(folder, "relai.json");
  writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
  return file;
}

function refusal(env: Record<string, string>, file?: string): string {
  try {
    readConfig({ env, ...(file === undefined ? {} : { file }) });
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return error instanceof Error ? error.message : "";
  }
  return "accepted";
}

test("without settings the defaults hold", () => {
  const { sources: _sources, ...config } = readConfig({ env: { PATH: "/bin", HOME: "/" } });
  expect(config).toEqual({
    dataDir: "./.relai",
    regions: ["us"],
    gatewayPort: 8080,
    internalPort: 8070,
    controlPort: 8090,
    simulatorPort: 8099,
    demo: true,
    eventstoreInsecure: false,
    redisCluster: false,
    adminToken: undefined,
    openaiApiKey: undefined,
    openaiBaseUrl: "https://api.openai.com/v1",
    openaiArea: undefined,
    bind: "127.0.0.1",
    controlBind: "127.0.0.1",
    internalBind: "127.0.0.1",
    controlUrl: undefined,
    drainMs: 30_000,
    logLevel: "info",
    upstreamConnectMs: 5_000,
    upstreamFirstByteMs: 300_000,
    upstreamIdleMs: 120_000,
    upstreamConnectionsMax: 512,
    upstreamWaitingMax: 512,
    readOnMs: 600_000,
    readOnBytes: 67_108_864,
    bodyBytesMax: 20_971_520,
    bodyDepthMax: 64,
    answerBytesMax: 67_108_864,
    inFlightBytesMax: 268_435_456,
    otelSdkDisabled: undefined,
    otelTracesExporter: undefined,
    otelExporterOtlpEndpoint: undefined,
    otelExporterOtlpTracesEndpoint: undefined,
  });
});

test("an event store server takes a Redis too, and with either there is no demo unless it is asked for", () => {
  const url = "esdb://admin:changeit@events.internal:2113";
  const env = { RELAI_EVENTSTORE_URL: url, RELAI_REDIS_URL: "redis://a:6379, rediss://b:6380/3" };
  const config = readConfig({ env });
  expect(config).toMatchObject({ eventstoreUrl: url, demo: false });
  expect(config.redisUrl).toEqual(["redis://a:6379", "rediss://b:6380/3"]);
  expect(readConfig({ env: { ...env, RELAI_DEMO: "1" } }).demo).toBe(true);
  expect(refusal({ ...env, RELAI_REDIS_URL: "" })).toMatch(/set both, or RELAI_REDIS_URL alone/);
  const alone = readConfig({ env: { ...env, RELAI_EVENTSTORE_URL: "" } });
  expect([alone.eventstoreUrl, alone.demo]).toEqual([undefined, false]);
  expect(refusal({ ...env, RELAI_EVENTSTORE_URL: "https://a:secret@b" })).toBe(
    "RELAI_EVENTSTORE_URL must be a URL esdb://user:password@host:2113, with user and password percent-encoded.",
  );
  expect(refusal({ ...env, RELAI_REDIS_URL: "localhost:6379" })).toMatch(
    /^RELAI_REDIS_URL must be/,
  );
});

test.each([
  ["esdb://admin:canary@events.internal:2113", "esdb://events.internal:2113"],
  ["esdb+discover://admin:canary@a:1,b:2?tls=false", "esdb+discover://a:1,b:2"],
  ["esdb://127.0.0.1:2113?tls=false", "esdb://127.0.0.1:2113"],
  ["redis://:canary@a:6379/4", "redis://a:6379/4"],
  ["redis://canary:canary@a:1, rediss://:canary@b:1/", "redis://a:1,rediss://b:1"],
  ["redis://[::1]:6379", "redis://[::1]:6379"],
])("of the servers' addresses %s is shown as %s", (url, shown) => {
  const esdb = url.startsWith("esdb") ? url : "esdb://a:1";
  const redis = url.startsWith("redis") ? url : "redis://a:1";
  const rows = describeConfig(
    readConfig({ env: { RELAI_EVENTSTORE_URL: esdb, RELAI_REDIS_URL: redis } }),
  );
  const name = url.startsWith("esdb") ? "RELAI_EVENTSTORE_URL" : "RELAI_REDIS_URL";
  expect(rows.find((row) => row.name === name)?.value).toBe(shown);
  expect(JSON.stringify(rows)).not.toContain("can");
});

test.each([
  "redis://host",
  "redis://:canary",
  "redis://canary@host:1",
  "redis://:canary@host:99999",
  "redis://:canary@host:0",
  "redis://:can/ary@host:1",
  "redis://canary/x@host:1",
  "redis://canary?a=b@host:1",
  "redis://:can?ary@host:1",
  "redis://:can#ary@host:1",
  "redis://:can%zzary@host:1",
  "redis://:can,ary@host:1",
  "redis://canary,redis://x@host:1",
  "redis://:can@ary@host:1",
  "redis://:canary@host:1/abc",
  "redis://:canary@host:1?db=3",
  "redis://:canary@host:1, redis://canary",
  "esdb://canary",
])("the URL of a Redis server %s is refused without a word of it", (url) => {
  const events = "esdb://admin:changeit@events.internal:2113";
  const said = refusal({ RELAI_EVENTSTORE_URL: events, RELAI_REDIS_URL: url });
  expect(said).toMatch(/^RELAI_REDIS_URL must be .* percent-encoded\.$/);
  expect(said).not.toMatch(/can|ary/);
});

test.each([
  "redis://h:1",
  "redis://h-1.x_y:65535/",
  "rediss://[::1]:6379/0",
  "redis://:p%40ss%2f@h:1/15",
  "redis://user:!$&'()*+;=~§@h:1",
])("the URL of a Redis server %s is taken", (url) => {
  const events = "esdb://admin:changeit@events.internal:2113";
  const env = { RELAI_EVENTSTORE_URL: events, RELAI_REDIS_URL: url };
  expect(readConfig({ env }).redisUrl).toEqual([url]);
  const inCluster = { ...env, RELAI_REDIS_CLUSTER: "1" };
  if (url.endsWith("/15"))
    expect(refusal(inCluster)).toBe(
      "RELAI_REDIS_URL must be without /number: a cluster has one database.",
    );
  else expect(readConfig({ env: inCluster }).redisUrl).toEqual([url]);
});

test.each([
  "esdb://admin:can?ary@host",
  "esdb://admin:canary?tls=false",
  "esdb://admin:can/ary@host",
  "esdb://admin:can@ary@host",
])("the URL of an event store %s is refused without a word of it", (url) => {
  const said = refusal({ RELAI_EVENTSTORE_URL: url, RELAI_REDIS_URL: "redis://h:1" });
  expect(said).toMatch(/^RELAI_EVENTSTORE_URL must be .* percent-encoded\.$/);
  expect(said).not.toMatch(/can|ary/);
});

const OTLP = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
test.each<[Record<string, string>, string | undefined]>([
  [{}, undefined],
  [{ [OTLP]: "http://collector:4318" }, "http://collector:4318/v1/traces"],
  [{ [OTLP]: "https://a.example/otlp/?k=1" }, "https://a.example/otlp/v1/traces?k=1"],
  [{ [TRACES]: "http://collector:4318" }, "http://collector:4318"],
  [{ [OTLP]: "http://other", [TRACES]: "http://collector/t" }, "http://collector/t"],
  [{ [OTLP]: "http://collector", OTEL_SDK_DISABLED: "TRUE" }, undefined],
  [{ [OTLP]: "http://collector", OTEL_SDK_DISABLED: "1" }, "http://collector/v1/traces"],
  [{ [OTLP]: "http://collector", OTEL_TRACES_EXPORTER: "none" }, undefined],
  [
    { [OTLP]: "http://collector", OTEL_TRACES_EXPORTER: "console, otlp" },
    "http://collector/v1/traces",
  ],
])("by the rules of OpenTelemetry %o sends traces to %s", (env, url) => {
  expect(tracesUrlOf(readConfig({ env }))).toBe(url);
  expect(tracesUrlOf(readConfig({ env: {}, file: fileWith(env) }))).toBe(url);
});

test("a collector's address is shown without what may be a credential, and a wrong one not at all", () => {
  const file = fileWith({
    [TRACES]: "http://u:canary@a.example/t?k=canary",
    OTEL_SDK_DISABLED: true,
  });
  const config = readConfig({ env: { [OTLP]: "http://canary@b.example:4318" }, file });
  expect(tracesUrlOf(config)).toBeUndefined();
  const rows = describeConfig(config).filter(({ name }) => name.includes("ENDPOINT"));
  expect(rows).toEqual([
    { name: OTLP, value: "http://b.example:4318/", source: "environment" },
    { name: TRACES, value: "http://a.example/t", source: "file" },
  ]);
  for (const wrong of ["canary", "grpc://canary", "http://a.example/#canary"]) {
    const message = refusal({ [OTLP]: wrong });
    expect(message).toBe(`${OTLP} must be a URL with http or https, without fragment.`);
  }
});

test("the environment wins over the file, the file over the default; an empty variable is none", () => {
  const file = fileWith({
    RELAI_GATEWAY_PORT: 9000,
    RELAI_CONTROL_PORT: "9001",
    RELAI_DEMO: false,
    RELAI_BIND: "::1",
  });
  const env = {
    RELAI_GATEWAY_PORT: "0",
    RELAI_CONTROL_PORT: "",
    OPENAI_BASE_URL: "http://127.0.0.1:9/v1/",
  };
  const config = readConfig({ env, file });
  expect(config).toMatchObject({ gatewayPort: 0, controlPort: 9001, demo: false, bind: "::1" });
  expect(config.openaiBaseUrl).toBe("http://127.0.0.1:9/v1");
  const rows = new Map(describeConfig(config).map((row) => [row.name, row]));
  expect(rows.get("RELAI_GATEWAY_PORT")).toEqual({
    name: "RELAI_GATEWAY_PORT",
    value: "0",
    source: "environment",
  });
  expect(rows.get("RELAI_CONTROL_PORT")).toMatchObject({ value: "9001", source: "file" });
  expect(rows.get("RELAI_DEMO")).toMatchObject({ value: "0", source: "file" });
  expect(rows.get("RELAI_DRAIN_MS")).toMatchObject({ value: "30000", source: "default" });
  expect(rows.get("RELAI_REGIONS")).toMatchObject({ value: "us", source: "default" });
  expect(rows.get("RELAI_CONTROL_URL")).toMatchObject({ value: null, source: "default" });
});

test("each listener has an address of its own, and localhost is one address", () => {
  const others = { bind: "127.0.0.1", controlBind: "127.0.0.1", internalBind: "127.0.0.1" };
  const read = (name: string, value: string) => readConfig({ env: { [name]: value } });
  expect(read("RELAI_BIND", "0.0.0.0")).toMatchObject({ ...others, bind: "0.0.0.0" });
  expect(read("RELAI_CONTROL_BIND", "::1")).toMatchObject({ ...others, controlBind: "::1" });
  expect(read("RELAI_INTERNAL_BIND", "localhost")).toMatchObject(others);
});

test("secrets are there for the program and hidden from people", () => {
  const env = { RELAI_ADMIN_TOKEN: "canary-token-0123456789", OPENAI_API_KEY: "sk-canary-key" };
  const config = readConfig({ env });
  expect(config).toMatchObject({
    adminToken: "canary-token-0123456789",
    openaiApiKey: "sk-canary-key",
  });
  const rows = describeConfig(config);
  expect(JSON.stringify(rows)).not.toContain("canary");
  expect(rows.find((row) => row.name === "OPENAI_API_KEY")).toMatchObject({
    value: "(hidden)",
    source: "environment",
  });
  expect(
    describeConfig(readConfig({ env: {} })).find((row) => row.name === "OPENAI_API_KEY")?.value,
  ).toBeNull();
});

test.each([
  ["RELAI_GATEWAY_PORT", "8080x"],
  ["RELAI_GATEWAY_PORT", "65536"],
  ["RELAI_GATEWAY_PORT", "-1"],
  ["RELAI_GATEWAY_PORT", "8e3"],
  ["RELAI_GATEWAY_PORT", "0x1f"],
  ["RELAI_GATEWAY_PORT", "08080"],
  ["RELAI_GATEWAY_PORT", "80.5"],
  ["RELAI_GATEWAY_PORT", " 80"],
  ["RELAI_BODY_BYTES_MAX", "20MiB"],
  ["RELAI_READ_ON_BYTES", "99999999999999999999"],
  ["RELAI_UPSTREAM_CONNECT_MS", "0"],
  ["RELAI_DEMO", "yes"],
  ["RELAI_LOG_LEVEL", "loud"],
  ["RELAI_BIND", "example.com"],
  ["RELAI_CONTROL_BIND", "localhost:1"],
  ["RELAI_INTERNAL_BIND", "256.0.0.1"],
  ["RELAI_REGIONS", "us,eu"],
  ["OPENAI_AREA", "US"],
  ["OPENAI_AREA", "us, eu"],
])("%s does not take %j, and says what it takes", (name, value) => {
  const message = refusal({ [name]: value });
  expect(message).toContain(`${name} is "${value}" but must be `);
  expect(message.split("\n").length).toBe(1);
  expect(message.endsWith(".")).toBe(true);
});

test("the sentences, word for word", () => {
  expect(refusal({ RELAI_GATEWAY_PORT: "8080x" })).toBe(
    'RELAI_GATEWAY_PORT is "8080x" but must be a whole number from 0 to 65535 (0 takes a free port).',
  );
  expect(refusal({ RELAI_REGIONS: "us,eu" })).toBe(
    'RELAI_REGIONS is "us,eu" but must be one name such as us; this version runs a single region.',
  );
  expect(refusal({ RELAI_GATWAY_PROT: "1" })).toBe(
    "RELAI_GATWAY_PROT is not a setting of relai; the nearest is RELAI_GATEWAY_PORT.",
  );
  expect(refusal({ RELAI_CONTROL_PORT: "8080" })).toBe(
    "RELAI_CONTROL_PORT is 8080 but must be another port than RELAI_GATEWAY_PORT.",
  );
  expect(refusal({ RELAI_IN_FLIGHT_BYTES_MAX: "1000" })).toBe(
    "RELAI_BODY_BYTES_MAX is 20971520 but must be at most RELAI_IN_FLIGHT_BYTES_MAX, which is 1000.",
  );
  expect(refusal({ RELAI_GATEWAY_PORT: "0", RELAI_CONTROL_PORT: "0" })).toBe("accepted");
});

test("base URLs: https, or http to this machine, and nothing that could carry a credential", () => {
  for (const url of [
    "https://a.example/v1",
    "http://localhost:1",
    "http://127.8.0.1:1/v1",
    "http://[::1]:1/v1",
  ]) {
    expect(readConfig({ env: { OPENAI_BASE_URL: url } }).openaiBaseUrl).toBe(url);
  }
  const refused = [
    "http://a.example",
    "http://127.0.0.1.evil.example",
    "ftp://localhost",
    "a.example/v1",
    "https://",
  ];
  for (const url of [
    ...refused,
    "https://u:canary@a.example",
    "https://canary@a.example",
    "https://a.example/?k=canary",
  ]) {
    const message = refusal({ OPENAI_BASE_URL: url });
    expect(message).toContain("OPENAI_BASE_URL must be a URL with https");
    expect(message).not.toContain("canary");
  }
});

test("a wrong secret, and a secret in the wrong place, are not shown", () => {
  const canary = "canary 0123456789";
  for (const name of ["RELAI_ADMIN_TOKEN", "OPENAI_API_KEY"]) {
    const message = refusal({ [name]: canary });
    expect(message).toContain(`${name} must be`);
    expect(message).not.toContain("canary");
  }
  expect(refusal({ RELAI_ADMIN_TOKEN: "short" })).not.toContain("short");
  expect(refusal({ RELAI_LOG_LEVEL: "sk-canary" })).not.toContain("canary");
  expect(refusal({ RELAI_LOG_LEVEL: `relai_sk_us_live_${"canary".repeat(6)}` })).not.toContain(
    "canary",
  );
});

test("files that cannot serve are refused with their name and without their content", () => {
  const missing = join(folder, "none.json");
  expect(refusal({}, missing)).toContain(`The settings file ${missing} cannot be read: ENOENT`);
  const file = fileWith('{"RELAI_ADMIN_TOKEN": "canary');
  expect(refusal({}, file)).toBe(`The settings file ${file} cannot be read: it is not JSON.`);
  expect(refusal({}, fileWith(["canary"]))).toBe(
    `The settings file ${file} must hold one JSON object of setting names and values.`,
  );
  expect(refusal({}, fileWith({ RELAI_DEMO: null }))).toBe(
    `RELAI_DEMO in ${file} must be a text, a number, true or false.`,
  );
  expect(refusal({}, fileWith({ PORT: 1 }))).toContain(
    `PORT in ${file} is not a setting of relai; the nearest is `,
  );
  expect(refusal({}, fileWith({ RELAI_DRAIN_MS: 1.5 }))).toBe(
    `RELAI_DRAIN_MS in ${file} is "1.5" but must be a whole number from 0 to 86400000 (milliseconds).`,
  );
  expect(refusal({ RELAI_DRAIN_MS: "1" }, fileWith({ RELAI_DRAIN_MS: 1.5 }))).toBe("accepted");
});
