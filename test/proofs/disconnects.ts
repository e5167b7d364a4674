import { describe, expect, test, vi } from "vitest";
import { bookIn, bookOf, eventsOf, only } from "#test/e2e/money/books.ts";
import { balanceOf, post, sse, type Running } from "#test/e2e/relai.ts";
import type { ProofWorld } from "./world.ts";

/** A hold that is gone: nothing is held, and what was not charged can be spent again. */
export async function expectNothingHeld(
  relai: Running,
  creditsBefore: number,
  chargedMicro: number,
): Promise<void> {
  expect(await balanceOf(relai)).toMatchObject({
    credits_micro: creditsBefore - chargedMicro,
    held_micro: 0,
    available_micro: creditsBefore - chargedMicro,
  });
}

/** The id of the next call that reaches the upstream, told by the book alone: its client leaves without an answer. */
async function nextCall(relai: Running, known: number): Promise<string> {
  return vi.waitFor(
    () => {
      const id = bookIn(relai)[known]?.requestId;
      if (typeof id !== "string") throw new Error("no call has come");
      return id;
    },
    { timeout: 30_000, interval: 5 },
  );
}

/** Settings under which the limits of reading on are small, so that they are reached. */
export const READS_ON_LITTLE = {
  RELAI_READ_ON_MS: "1500",
  RELAI_READ_ON_BYTES: String(64 * 1024),
};

/** A client that leaves before the first byte costs nothing; one that leaves later pays what the upstream says. */
export function provesDisconnects(worldOf: () => ProofWorld): void {
  describe("a client that leaves before the first byte", () => {
    const releasedWith = { reason: "client_gone", forwarded: true, clientGone: true };

    test.each([
      ["while the upstream thinks, of a stream", "[sim first=30000 input=9 output=9]", true],
      ["while the upstream thinks, of a plain answer", "[sim first=30000 input=9 output=9]", false],
      ["while the answer is held back", "[sim hold=never input=9 output=9]", true],
      ["after the head, before any event", "[sim stall-after=0 input=9 output=9]", true],
    ])("%s: the call is aborted, the hold released", async (_when, content, stream) => {
      const relai = worldOf();
      const { credits_micro } = await balanceOf(relai);
      const leave = new AbortController();
      const known = bookIn(relai).length;
      const answer = post(relai, content, { stream, max_tokens: 40 }, { signal: leave.signal });
      const id = await nextCall(relai, known);
      const { holdMicro: hold, holdCostMicro: cost } = relai.holdOf(content, 40);
      await vi.waitFor(async () => expect((await balanceOf(relai)).held_micro).toBe(hold), {
        timeout: 30_000,
      });
      leave.abort();
      await expect(answer).rejects.toThrow();
      const events = await eventsOf(relai, id);
      expect(events.map(({ type }) => type)).toEqual(["RequestAdmitted.v1", "RequestReleased.v1"]);
      const { holdCostMicro } = only(events, "RequestAdmitted.v1");
      expect(holdCostMicro).toBe(cost);
      expect(only(events, "RequestReleased.v1")).toMatchObject({
        ...releasedWith,
        holdMicro: hold,
        unbilledMicro: holdCostMicro,
        attempts: [{ ...relai.host, outcome: "aborted" }],
      });
      expect(await bookOf(relai, id)).toMatchObject({ clientGone: true, finished: false });
      await expectNothingHeld(relai, credits_micro, 0);
    });
  });

  describe("a client that leaves a stream after the first byte", () => {
    // Role, eight contents, finish; then what the caller did not ask for.
    const content = "[sim chunks=8 delay=25 input=11 output=80]";

    test.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])(
      "after event %d: the answer is read on and charged by its usage",
      async (seen) => {
        const relai = worldOf();
        const { credits_micro } = await balanceOf(relai);
        const leave = new AbortController();
        const answer = await post(relai, content, { stream: true }, { signal: leave.signal });
        const id = answer.headers.get("x-request-id") ?? "";
        const events = sse(answer);
        for (let number = 0; number < seen; number += 1)
          expect((await events.next()).value).toContain('"object":"chat.completion.chunk"');
        leave.abort();
        const recorded = await eventsOf(relai, id);
        expect(recorded.map(({ type }) => type)).toEqual([
          "RequestAdmitted.v1",
          "UsageRecorded.v1",
        ]);
        const call = await bookOf(relai, id);
        expect(call).toMatchObject({ clientGone: false, finished: true, usageSent: true });
        const usage = only(recorded, "UsageRecorded.v1");
        expect(usage).toMatchObject({
          tokens: call.tokens,
          ...relai.chargeOf(11, 80),
          billedBy: "provider",
          overHoldMicro: 0,
          finish: "stop",
          attempts: [{ ...relai.host, outcome: "answered", status: 200 }],
        });
        // After the finish chunk nothing is left to send but [DONE]: by then nobody may have noticed.
        if (seen < 9) expect(usage.clientGone).toBe(true);
        await expectNothingHeld(relai, credits_micro, usage.chargedMicro);
      },
    );

    test.each([
      ["for longer than the limit", "[sim stall-after=3 input=11 output=80]"],
      ["for more bytes than the limit", "[sim chunks=4000 delay=1 input=11 output=80]"],
    ])("it is not read on %s, but cut and estimated", async (_what, text) => {
      const relai = worldOf();
      const { credits_micro } = await balanceOf(relai);
      const leave = new AbortController();
      const answer = await post(relai, text, { stream: true }, { signal: leave.signal });
      const id = answer.headers.get("x-request-id") ?? "";
      const events = sse(answer);
      for (let number = 0; number < 2; number += 1) await events.next();
      leave.abort();
      const recorded = await eventsOf(relai, id);
      const usage = only(recorded, "UsageRecorded.v1");
      expect(usage).toMatchObject({
        billedBy: "estimate",
        clientGone: true,
        finish: "read_on_over",
        tokens: { input: Math.ceil(text.length / 4) },
        overHoldMicro: 0,
      });
      const { input = 0, output = 0 } = usage.tokens;
      expect(usage.chargedMicro).toBe(relai.chargeOf(input, output).chargedMicro);
      expect(await bookOf(relai, id)).toMatchObject({ clientGone: true, usageSent: false });
      await expectNothingHeld(relai, credits_micro, usage.chargedMicro);
    });
  });
}
