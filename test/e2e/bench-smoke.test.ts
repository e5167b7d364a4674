import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";

const BENCH = join(import.meta.dirname, "../bench/main.ts");

test("the benchmark runs: every part of it, for a moment, and no figure is judged", () => {
  const run = spawnSync(process.execPath, [BENCH, "--smoke", "--only", "bare,relay-only,relai"], {
    encoding: "utf8",
    timeout: 120_000,
  });
  expect({ status: run.status, stderr: run.stderr }).toMatchObject({ status: 0 });
  for (const measured of ["bare", "relay-only", "relai"]) {
    expect(run.stdout).toMatch(new RegExp(`^  ${measured} +\\d[\\d,]*/s .*request \\d+ µs`, "m"));
  }
  expect(run.stdout).toMatch(/replay: \{"events":\d+/);
});
