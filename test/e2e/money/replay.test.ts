import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect } from "vitest";
import { provesReplay } from "#test/proofs/replay.ts";
import { leavesNothingRunning, newFolder, startRelai, type Running } from "#test/e2e/relai.ts";

leavesNothingRunning();

let present: Running | undefined;
afterAll(async () => {
  expect(await present?.stop()).toBe(0);
});

provesReplay(async () => {
  const dataDir = newFolder();
  const relai = (present = await startRelai({ dataDir }));
  const readModels = join(dataDir, "us", "read-models");
  return {
    relai,
    readModels,
    priceTimes: 1,
    async fromNothing() {
      expect(await relai.stop()).toBe(0);
      rmSync(readModels, { recursive: true });
      return (present = await startRelai({ dataDir }));
    },
  };
});
