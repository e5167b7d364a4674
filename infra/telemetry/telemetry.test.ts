import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import type { Telemetry } from "#services/ports.ts";
import { createTelemetry } from "./telemetry.ts";
import { createLog } from "./log.ts";

function setUp() {
  const lines: string[] = [];
  const log = createLog({ level: "info", destination: { write: (line) => void lines.push(line) } });
  return { telemetry: createTelemetry({ log, models: new Set(["sim-flat"]) }), lines };
}

const done: Parameters<Telemetry["requestDone"]>[0] = {
  route: "chat",
  status: 200,
  code: "ok",
  model: "sim-flat",
  durationMs: 1_200,
  firstByteMs: 40,
  chargedMicro: 1_234,
  inputTokens: 10,
  outputTokens: 7,
};

test("requests, times, charges and tokens are counted by their labels", async () => {
  const { telemetry } = setUp();
  telemetry.requestDone(done);
  telemetry.requestDone(done);
  telemetry.requestDone({
    ...done,
    status: 402,
    code: "insufficient_balance",
    firstByteMs: undefined,
    chargedMicro: 0,
  });
  const text = await telemetry.metricsText();
  expect(telemetry.metricsContentType).toContain("text/plain");
  expect(text).toContain(
    'relai_requests_total{route="chat",status="200",code="ok",model="sim-flat"} 2',
  );
  expect(text).toContain(
    'relai_requests_total{route="chat",status="402",code="insufficient_balance",model="sim-flat"} 1',
  );
  expect(text).toContain('relai_request_duration_seconds_bucket{le="1",route="chat"} 0');
  expect(text).toContain('relai_request_duration_seconds_bucket{le="2.5",route="chat"} 3');
  expect(text).toContain('relai_first_byte_seconds_count{route="chat"} 2');
  expect(text).toContain("relai_charged_micro_total 2468");
  expect(text).toContain('relai_tokens_total{direction="input"} 30');
  expect(text).toContain('relai_tokens_total{direction="output"} 21');
  expect(text).toContain("process_resident_memory_bytes");
});

test("a model that the catalogue does not have is other, and there is a most to the series of any kind", async () => {
  const { telemetry } = setUp();
  for (let count = 0; count < 6_000; count += 1)
    telemetry.requestDone({ ...done, model: `made-up-${count}` });
  expect(await telemetry.metricsText()).toContain('status="200",code="ok",model="other"} 6000');
  for (let count = 0; count < 6_000; count += 1)
    telemetry.requestDone({ ...done, code: `made_up_${count}` });
  const text = await telemetry.metricsText();
  const series = text.split("\n").filter((line) => line.startsWith("relai_requests_total{"));
  expect(text).not.toContain("made-up");
  expect(series.length).toBe(5_001);
  expect(text).toContain(
    'relai_requests_total{route="other",status="other",code="other",model="other"} 1001',
  );
});

test("an alarm is counted and logged with its facts", async () => {
  const { telemetry, lines } = setUp();
  telemetry.alarm("usage_late", { requestId: "req_1", micro: 5 });
  expect(await telemetry.metricsText()).toContain('relai_alarms_total{what="usage_late"} 1');
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({
    level: "error",
    alarm: "usage_late",
    requestId: "req_1",
    micro: 5,
  });
});

test("measuring does not keep a process alive", () => {
  const script = `
    import { createTelemetry } from ${JSON.stringify(import.meta.resolve("./telemetry.ts"))};
    import { createLog } from ${JSON.stringify(import.meta.resolve("./log.ts"))};
    createTelemetry({ log: createLog({ level: "info" }), models: new Set() }).alarm("a", {});
  `;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    timeout: 10_000,
  });
  expect(child.status).toBe(0);
  expect(child.stderr).toContain('"alarm":"a"');
});
