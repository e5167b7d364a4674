import { describe, expect, test, vi } from "vitest";
import type { Offer } from "#services/gateway/money/offer.ts";
import { offerOf } from "#test/worlds/chat-way.ts";
import { bookIn, eventsIn } from "#test/e2e/money/books.ts";
import { balanceOf, bodyOf, jsonOf, newOrganization, post, sse } from "#test/e2e/relai.ts";
import type { ProofWorld } from "./world.ts";

const OUTPUT_TOKENS = 300;
const TRIES_MAX = 20;

/** The offer that relai itself makes for a request of one message: its hold and the bounds under it. */
function offerFor(relai: ProofWorld, content: string, max_tokens: number): Offer {
  const body = { ...bodyOf(relai, content), max_tokens };
  const offer = offerOf(relai.catalogue, Buffer.from(JSON.stringify(body)));
  if ("code" in offer) throw new Error(offer.message);
  return offer;
}

/** A text whose answer uses exactly what its request holds. Figures of a fixed width, so that they do not change it. */
function usingItsHold(relai: ProofWorld, hold: string): string {
  const text = (input: number) =>
    `[sim hold=${hold} input=${String(input).padStart(6, "0")} output=${OUTPUT_TOKENS}]`;
  return text(offerFor(relai, text(0), OUTPUT_TOKENS).bounds.inputTokensBound);
}

const count = <T>(items: readonly T[], wanted: T): number =>
  items.filter((item) => item === wanted).length;

/** Two gateways at once never let more through than is there, and one after the other never less. */
export function provesNoOverspend(worldOf: () => ProofWorld, runs: readonly number[]): void {
  describe("500 requests at once through two gateways, on a balance for exactly 37", () => {
    test.each(runs)("37 reach the upstream and nothing is left, run %d", async (run) => {
      const relai = worldOf();
      const content = usingItsHold(relai, `run-${run}`);
      const { holdMicro } = offerFor(relai, content, OUTPUT_TOKENS);
      const org = await newOrganization(relai, { creditMicro: 37 * holdMicro });
      const calledBefore = bookIn(relai).length;
      const [first = "", second = ""] = relai.gatewayUrls;
      const statuses: number[] = [];
      const codes: unknown[] = [];
      async function askOne(number: number): Promise<void> {
        const gateway = number % 2 === 0 ? first : second;
        const more = { max_tokens: OUTPUT_TOKENS, stream: number % 4 < 2 };
        let answer = await post({ ...org, gateway }, content, more);
        // On servers a machine with too much to do can be too slow for the ledger; who was told so comes again.
        for (let tries = 1; answer.status === 503 && tries < TRIES_MAX; tries += 1) {
          await answer.text();
          await new Promise((resolve) => setTimeout(resolve, 500));
          answer = await post({ ...org, gateway }, content, more);
        }
        statuses.push(answer.status);
        if (answer.status !== 402) return void (await answer.text());
        const { error } = await jsonOf(answer);
        const told = error as Record<string, unknown>;
        expect(told).toMatchObject({ type: "insufficient_balance", available_micro: 0 });
        // What is needed is known where the body was read: not when all is held before it is looked at.
        expect([holdMicro, undefined]).toContain(told["required_micro"]);
        codes.push(told["code"]);
      }
      const upstream = (calls: number) =>
        vi.waitFor(() => expect(bookIn(relai)).toHaveLength(calledBefore + calls), {
          timeout: 30_000,
        });
      // One through each gateway, so that neither is too late for all; then all others at once.
      const begun = [0, 1].map(askOne);
      await upstream(2);
      const all = Promise.all([
        ...begun,
        ...Array.from({ length: 498 }, (_, at) => askOne(at + 2)),
      ]);
      // Every answer is held back, so that all 500 are decided before one of the 37 gives anything back.
      await vi.waitFor(() => expect(statuses).toHaveLength(463), { timeout: 60_000, interval: 20 });
      await upstream(37);
      expect(count(statuses, 402)).toBe(463);
      expect(count(codes, "balance_held")).toBe(463);
      expect(await balanceOf(org)).toMatchObject({
        credits_micro: 37 * holdMicro,
        held_micro: 37 * holdMicro,
        available_micro: 0,
      });
      const released = await fetch(`${relai.simulator}/release/run-${run}`, { method: "POST" });
      expect(await released.json()).toMatchObject({ released: 37 });
      await all;
      expect([count(statuses, 200), statuses.length]).toEqual([37, 500]);
      expect(bookIn(relai)).toHaveLength(calledBefore + 37);
      expect(await balanceOf(org)).toMatchObject({
        credits_micro: 0,
        held_micro: 0,
        available_micro: 0,
      });
      const events = (await eventsIn(relai)).filter(
        ({ data }) => "orgId" in data && data.orgId === org.organization && "requestId" in data,
      );
      const journals = new Set(events.map(({ stream }) => stream));
      expect(events).toHaveLength(2 * 37);
      expect(journals.size).toBe(2);
      for (const event of events)
        if (event.type === "UsageRecorded.v1")
          expect(event.data).toMatchObject({
            chargedMicro: holdMicro,
            holdMicro,
            overHoldMicro: 0,
          });
      const next = await post(org, "Hello", { max_tokens: 1 });
      expect([next.status, (await jsonOf(next))["error"]]).toMatchObject([
        402,
        { code: "insufficient_balance", available_micro: 0 },
      ]);
    });
  });

  describe("one request after the other on a small balance", () => {
    const content = "[sim input=1 output=1]";
    const requests = 50;

    test.each([
      ["streamed, each sent as soon as [DONE] of the one before is read", true],
      ["plain, each sent as soon as the one before is read", false],
    ])("%s: none is refused while the hold fits", async (_how, stream) => {
      const relai = worldOf();
      const { holdMicro } = offerFor(relai, content, OUTPUT_TOKENS);
      const oneMicro = relai.chargeOf(1, 1).chargedMicro;
      // Before the last request exactly its hold is left; one micro held too long would refuse one of them.
      const org = await newOrganization(relai, {
        creditMicro: holdMicro + oneMicro * (requests - 1),
      });
      const left: Promise<unknown>[] = [];
      for (let number = 0; number < requests; number += 1) {
        const gateway = relai.gatewayUrls[number % 2] ?? "";
        const answer = await post({ ...org, gateway }, content, {
          max_tokens: OUTPUT_TOKENS,
          stream,
        });
        expect([number, answer.status]).toEqual([number, 200]);
        if (!stream) await answer.text();
        else left.push((await untilDone(answer)).rest);
      }
      await Promise.all(left);
      expect(await balanceOf(org)).toMatchObject({
        credits_micro: holdMicro - oneMicro,
        held_micro: 0,
        available_micro: holdMicro - oneMicro,
      });
      // And one micro less than the hold is refused, so the fifty were at the edge.
      const refused = await post(org, content, { max_tokens: OUTPUT_TOKENS });
      expect((await jsonOf(refused))["error"]).toMatchObject({ code: "insufficient_balance" });
    });
  });
}

/** Comes back the moment `[DONE]` was read; what it gives back is the rest of the stream, still running. */
async function untilDone(answer: Response): Promise<{ rest: Promise<unknown> }> {
  const events = sse(answer);
  for (let next = await events.next(); !next.done; next = await events.next())
    if (next.value === "[DONE]") return { rest: events.next() };
  throw new Error("the stream has no [DONE]");
}
