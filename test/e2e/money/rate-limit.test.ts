import { afterAll, beforeAll, expect, test } from "vitest";
import { provesLimits, rateOf } from "#test/proofs/limits.ts";
import { embeddedWorld, type ProofWorld } from "#test/proofs/world.ts";
import {
  balanceOf,
  jsonOf,
  leavesNothingRunning,
  newOrganization,
  openai,
  post,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

let relai: ProofWorld;
beforeAll(async () => {
  relai = await embeddedWorld({ gatewayCount: 2 });
});
afterAll(() => relai.stop());

provesLimits(() => relai);

test("lists of models, balances and refusals are not counted", async () => {
  const org = await newOrganization(relai, { creditMicro: 100, key: { rpm: 1 } });
  // Nine refusals: ten a minute are told what is wrong with them.
  for (let number = 0; number < 3; number += 1) {
    await openai(org).models.list();
    await openai(org).models.retrieve("sim-flat");
    await balanceOf(org);
    const refused = await post(org, "Hi", { max_tokens: 5000 });
    expect([refused.status, ...rateOf(refused).slice(0, 2)]).toEqual([402, "1", "1"]);
    expect((await post(org, "Hi", { n: 0 })).status).toBe(400);
    expect((await post(org, "Hi", { model: "none" })).status).toBe(404);
  }
  const passed = await post(org, "[sim output=1]", { max_tokens: 5 });
  expect([passed.status, ...rateOf(passed).slice(0, 2)]).toEqual([200, "1", "0"]);
  const refused = await post(org, "[sim output=1]", { max_tokens: 5 });
  expect((await jsonOf(refused))["error"]).toMatchObject({ code: "rate_limit_exceeded" });
});

test("a request that the upstream refuses was one all the same", async () => {
  const org = await newOrganization(relai, { creditMicro: 10_000, key: { rpm: 1 } });
  expect((await post(org, "[sim status=500]", { max_tokens: 5 })).status).toBe(502);
  expect((await post(org, "[sim output=1]", { max_tokens: 5 })).status).toBe(429);
});

test("a key without a limit has no such headers", async () => {
  const answer = await post(relai, "[sim output=1]");
  expect(rateOf(answer)).toEqual([null, null, null]);
});
