import { afterAll, beforeAll, expect, test } from "vitest";
import { RateLimitError } from "openai";
import { eventsIn } from "./books.ts";
import {
  balanceOf,
  jsonOf,
  leavesNothingRunning,
  newOrganization,
  openHere,
  openai,
  post,
} from "./relai.ts";

leavesNothingRunning();

let relai: Awaited<ReturnType<typeof openHere>>;
beforeAll(async () => {
  relai = await openHere({ gatewayCount: 2 });
});
afterAll(() => relai.stop());

const rateOf = (answer: Response) =>
  ["limit", "remaining", "reset"].map((name) => answer.headers.get(`x-ratelimit-${name}-requests`));

test("five a minute are five, over both gateways, and the sixth is told when to come back", async () => {
  const org = await newOrganization(relai, { creditMicro: 1_000_000, key: { rpm: 5 } });
  const began = Date.now();
  for (const remaining of ["4", "3", "2", "1", "0"]) {
    const gateway = relai.relai.gatewayUrls[Number(remaining) % 2] ?? "";
    const answer = await post({ ...org, gateway }, "[sim output=1]", {
      max_tokens: 5,
      stream: remaining === "2",
    });
    expect(answer.status).toBe(200);
    const [limit, left, reset] = rateOf(answer);
    expect([limit, left]).toEqual(["5", remaining]);
    expect(reset).toMatch(/^(60|61)s$/);
    await answer.text();
  }
  for (const gateway of relai.relai.gatewayUrls) {
    const refused = await post({ ...org, gateway }, "[sim output=1]", { max_tokens: 5 });
    expect(refused.status).toBe(429);
    const seconds = Number(refused.headers.get("retry-after"));
    // Until the first of the five is a minute old, and a second at most for the width of a bucket.
    expect(Number.isInteger(seconds)).toBe(true);
    expect(seconds).toBeLessThanOrEqual(61);
    expect(began + seconds * 1000).toBeGreaterThan(began + 60_000 - (Date.now() - began) - 1000);
    expect(rateOf(refused).slice(0, 2)).toEqual(["5", "0"]);
    expect(await refused.json()).toEqual({
      error: {
        message: "Rate limit exceeded: 5 requests per minute",
        type: "rate_limit_exceeded",
        code: "rate_limit_exceeded",
        param: null,
        retry_after: seconds,
      },
    });
  }
  const error: unknown = await openai(org)
    .chat.completions.create({ model: "sim-flat", messages: [{ role: "user", content: "Hi" }] })
    .catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(RateLimitError);
  const admitted = (await eventsIn(relai)).filter(
    ({ type, data }) => type === "RequestAdmitted.v1" && data.orgId === org.organization,
  );
  expect(admitted).toHaveLength(5);
  expect(await balanceOf(org)).toMatchObject({ held_micro: 0 });
});

test("of many at once no more than the limit pass", async () => {
  const org = await newOrganization(relai, { creditMicro: 1_000_000, key: { rpm: 7 } });
  const statuses = await Promise.all(
    Array.from({ length: 60 }, async (_, number) => {
      const gateway = relai.relai.gatewayUrls[number % 2] ?? "";
      const answer = await post({ ...org, gateway }, "[sim output=1]", { max_tokens: 5 });
      await answer.text();
      return answer.status;
    }),
  );
  expect(statuses.filter((status) => status === 200)).toHaveLength(7);
  expect(statuses.filter((status) => status === 429)).toHaveLength(53);
});

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
