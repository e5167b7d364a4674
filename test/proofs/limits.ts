import { RateLimitError } from "openai";
import { expect, test } from "vitest";
import { eventsIn } from "#test/e2e/money/books.ts";
import { balanceOf, bodyOf, newOrganization, openai, post } from "#test/e2e/relai.ts";
import type { ProofWorld } from "./world.ts";

/** What an answer says of its key's limit: how many, how many are left, and until when. */
export const rateOf = (answer: Response) =>
  ["limit", "remaining", "reset"].map((name) => answer.headers.get(`x-ratelimit-${name}-requests`));

/** A key's requests in any minute are no more than its limit, through whichever gateway. */
export function provesLimits(worldOf: () => ProofWorld): void {
  test("five a minute are five, over both gateways, and the sixth is told when to come back", async () => {
    const relai = worldOf();
    const org = await newOrganization(relai, { creditMicro: 1_000_000, key: { rpm: 5 } });
    const began = Date.now();
    for (const remaining of ["4", "3", "2", "1", "0"]) {
      const gateway = relai.gatewayUrls[Number(remaining) % 2] ?? "";
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
    for (const gateway of relai.gatewayUrls) {
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
      .chat.completions.create(bodyOf(org, "Hi"))
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(RateLimitError);
    const admitted = (await eventsIn(relai)).filter(
      ({ type, data }) => type === "RequestAdmitted.v1" && data.orgId === org.organization,
    );
    expect(admitted).toHaveLength(5);
    expect(await balanceOf(org)).toMatchObject({ held_micro: 0 });
  });

  test("of many at once no more than the limit pass", async () => {
    const relai = worldOf();
    const org = await newOrganization(relai, { creditMicro: 1_000_000, key: { rpm: 7 } });
    const statuses = await Promise.all(
      Array.from({ length: 60 }, async (_, number) => {
        const gateway = relai.gatewayUrls[number % 2] ?? "";
        const answer = await post({ ...org, gateway }, "[sim output=1]", { max_tokens: 5 });
        await answer.text();
        return answer.status;
      }),
    );
    expect(statuses.filter((status) => status === 200)).toHaveLength(7);
    expect(statuses.filter((status) => status === 429)).toHaveLength(53);
  });
}
