import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { createLog } from "./log.ts";
import type { Log, LogLevel } from "./log.ts";

function written(write: (log: Log) => void, level: LogLevel = "info"): string {
  let text = "";
  write(createLog({ level, destination: { write: (line) => void (text += line) } }));
  return text;
}

test("a line is one JSON object with time, level, facts and message; lower levels are not written", () => {
  const text = written((log) => {
    log.warn({}, "not this");
    log.error({ requestId: "req_1", count: 2, ready: true }, "started");
  }, "error");
  expect(text.endsWith("\n")).toBe(true);
  const { time, ...rest } = JSON.parse(text) as Record<string, unknown>;
  expect(time).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  expect(rest).toEqual({
    level: "error",
    pid: process.pid,
    requestId: "req_1",
    count: 2,
    ready: true,
    msg: "started",
  });
});

test("what looks like a credential is hidden wherever it stands, and the line stays JSON", () => {
  const canary = "Canary0123456789";
  const text = written((log) => {
    log.warn({ a: `relai_sk_us_live_${canary}` }, `said sk-proj-${canary}`);
    log.warn(
      { authorization: canary, "X-Api-Key": `"${canary}\\` },
      `line\nsk-${canary}\trk-${canary}`,
    );
    log.warn(
      { adminToken: canary, url: `https://user:${canary}@host/` },
      `authorization: Bearer ${canary}`,
    );
    const error = Object.assign(new Error(`refused Bearer ${canary}`), {
      code: "E1",
      body: canary,
      cause: canary,
    });
    log.error({}, "failed", error);
  });
  expect(text).not.toContain(canary);
  for (const line of text.trim().split("\n")) expect(JSON.parse(line)).toBeTypeOf("object");
  expect(text.match(/\[hidden\]/g)?.length).toBeGreaterThanOrEqual(9);
});

test("what only resembles one is left alone", () => {
  const text = written((log) =>
    log.warn({ inputTokens: 12, task: "disk-management-service" }, "key_01 of org_01"),
  );
  expect(JSON.parse(text)).toMatchObject({
    inputTokens: 12,
    task: "disk-management-service",
    msg: "key_01 of org_01",
  });
});

test("an error shows type, code and place; a message that quotes its input is hidden, also in the stack", () => {
  const prompt = "prompt canary";
  const text = written((log) => {
    try {
      JSON.parse(prompt);
    } catch (error) {
      log.error({}, "failed", error);
    }
    log.error({}, "failed", Object.assign(new Error("disk full"), { code: "ENOSPC" }));
    log.error({}, "failed", prompt);
  });
  expect(text).not.toContain("canary");
  expect(text).not.toContain("prompt");
  expect(text).toContain("log.test.ts");
  expect(text).toContain('"code":"ENOSPC","message":"disk full"');
});

test("lines go to stderr, also those written just before an exit", () => {
  const script = `
    import { createLog } from ${JSON.stringify(import.meta.resolve("./log.ts"))};
    createLog({ level: "info" }).warn({}, "last words");
    process.exit(3);
  `;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
  });
  expect(child.status).toBe(3);
  expect(child.stdout).toBe("");
  expect(child.stderr).toContain('"msg":"last words"');
});
