import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { findProgram } from "#infra/backing/find.ts";

const BENCH = join(import.meta.dirname, "../bench/main.ts");

function smoke(only: string) {
  const run = spawnSync(process.execPath, [BENCH, "--smoke", "--only", only], {
    encoding: "utf8",
    timeout: 120_000,
  });
  expect({ status: run.status, stderr: run.stderr }).toMatchObject({ status: 0 });
  return run.stdout;
}

const figuresOf = (target: string) =>
  new RegExp(`^  ${target} +\\d[\\d,]*/s .*request \\d+ µs`, "m");

test("the benchmark runs: every part of it, for a moment, and no figure is judged", () => {
  const said = smoke("bare,relay-only,relai");
  for (const measured of ["bare", "relay-only", "relai"]) expect(said).toMatch(figuresOf(measured));
  expect(said).toMatch(/replay: \{"events":\d+/);
});

test("it measures gateways on servers where there is a redis-server, and says so where there is none", () => {
  const isThere = findProgram("redis", process.env) !== undefined;
  const leftOut = /^ {2}servers +left out: there is no redis-server on the PATH/m;
  expect(smoke("servers")).toMatch(isThere ? figuresOf("servers") : leftOut);
});
