import { afterAll, beforeAll } from "vitest";
import { provesNoOverspend } from "#test/proofs/overspend.ts";
import { embeddedWorld, type ProofWorld } from "#test/proofs/world.ts";
import { leavesNothingRunning } from "#test/e2e/relai.ts";

leavesNothingRunning();

let relai: ProofWorld;
beforeAll(async () => {
  relai = await embeddedWorld({ gatewayCount: 2 });
});
afterAll(() => relai.stop());

provesNoOverspend(() => relai, [1, 2, 3]);
