import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readConfig } from "#infra/config.ts";
import { systemClock } from "#infra/clock.ts";
import { systemRandom } from "#infra/random.ts";
import { createReadiness, readinessView } from "#services/internal/readiness.ts";
import { gatewayChecks, storeChecks } from "#services/start/dependencies.ts";
import { openStores } from "#services/start/stores.ts";
import { startCluster } from "#test/servers/redis-cluster.ts";
import { NO_PROGRAM, REDIS_PROGRAM } from "#test/servers/redis-world.ts";

test("with one of three primaries away, or standing still, a process is ready for the others' organizations, and with none it is not", async (context) => {
  if (REDIS_PROGRAM === undefined) return context.skip(NO_PROGRAM);
  const cluster = await startCluster(REDIS_PROGRAM);
  const folder = mkdtempSync(join(tmpdir(), "relai-ready-"));
  const closes: ((limitMs: number) => Promise<unknown>)[] = [];
  const clock = systemClock();
  // Nobody here counts or tells anything.
  const telemetry = new Proxy({}, { get: () => () => {} }) as never;
  const config = readConfig({
    env: { RELAI_REDIS_URL: cluster.urls.join(","), RELAI_REDIS_CLUSTER: "1" },
  });
  try {
    const stores = await openStores(config, {
      clock,
      random: systemRandom(),
      telemetry,
      region: "us",
      instance: "test",
      folder,
      onOpen: (close) => void closes.push(close),
    });
    const catalogue = { bindings: new Map([["model", {}]]) };
    const base = { ...stores, clock, telemetry, catalogue, region: "us" } as never;
    const checks = { ...storeChecks(base), ...gatewayChecks(base, []) };
    const readiness = createReadiness({ clock, checks, isStopping: () => false });
    const look = async () => {
      const { ready, dependencies } = await readinessView(readiness);
      return [ready, dependencies["redis"]?.state, dependencies["key_directory"]?.state];
    };
    // Nobody fills the directory here.
    expect(await look()).toEqual([true, "up", "partly"]);
    const [first, second, third] = cluster.servers;
    process.kill(third?.pid ?? 0, "SIGSTOP");
    await expect.poll(look).toEqual([true, "partly", "partly"]);
    await third?.kill();
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(await look()).toEqual([true, "partly", "partly"]);
    await Promise.all([first?.kill(), second?.kill()]);
    await expect.poll(look).toEqual([false, "down", "down"]);
  } finally {
    for (const close of closes.reverse()) await close(1_000);
    await cluster.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
