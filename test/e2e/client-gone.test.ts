import type { ServerResponse } from "node:http";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { openRecorder, type Recorder } from "./recorder.ts";
import { bookIn, bookOf, eventsOf, only } from "./books.ts";
import {
  balanceOf,
  leavesNothingRunning,
  post,
  sse,
  startRelai,
  type RelaiProcess,
} from "./relai.ts";

leavesNothingRunning();

let upstream: Recorder;
let relai: RelaiProcess;
beforeAll(async () => {
  upstream = await openRecorder();
  // The limits of reading on are small, so that they are reached.
  relai = await startRelai({
    settings: {
      RELAI_READ_ON_MS: "1500",
      RELAI_READ_ON_BYTES: String(64 * 1024),
      OPENAI_API_KEY: "sk-upstream",
      OPENAI_BASE_URL: `${upstream.url}/v1`,
    },
  });
});
afterAll(async () => {
  await relai.stop();
  await upstream.close();
});

/** A hold that is gone: nothing is held, and what was not charged can be spent again. */
async function expectNothingHeld(creditsBefore: number, chargedMicro: number): Promise<void> {
  expect(await balanceOf(relai)).toMatchObject({
    credits_micro: creditsBefore - chargedMicro,
    held_micro: 0,
    available_micro: creditsBefore - chargedMicro,
  });
}

/** The id of the next call that reaches the upstream, told by the book alone: its client leaves without an answer. */
async function nextCall(known: number): Promise<string> {
  return vi.waitFor(
    () => {
      const id = bookIn(relai)[known]?.requestId;
      if (typeof id !== "string") throw new Error("no call has come");
      return id;
    },
    { timeout: 30_000, interval: 5 },
  );
}

/** The hold of "[sim …]" with this cap on sim-flat: one micro a token. The cost is a fifth below the price. */
const holdMicro = (content: string, max: number) => 24 + Math.ceil(content.length / 2) + max;

describe("a client that leaves before the first byte", () => {
  const releasedWith = { reason: "client_gone", forwarded: true, clientGone: true };

  test.each([
    ["while the upstream thinks, of a stream", "[sim first=30000 input=9 output=9]", true],
    ["while the upstream thinks, of a plain answer", "[sim first=30000 input=9 output=9]", false],
    ["while the answer is held back", "[sim hold=never input=9 output=9]", true],
    ["after the head, before any event", "[sim stall-after=0 input=9 output=9]", true],
  ])("%s: the call is aborted, the hold released", async (_when, content, stream) => {
    const { credits_micro } = await balanceOf(relai);
    const leave = new AbortController();
    const known = bookIn(relai).length;
    const answer = post(relai, content, { stream, max_tokens: 40 }, { signal: leave.signal });
    const id = await nextCall(known);
    const hold = holdMicro(content, 40);
    await vi.waitFor(async () => expect((await balanceOf(relai)).held_micro).toBe(hold), {
      timeout: 30_000,
    });
    leave.abort();
    await expect(answer).rejects.toThrow();
    const events = await eventsOf(relai, id);
    expect(events.map(({ type }) => type)).toEqual(["RequestAdmitted.v1", "RequestReleased.v1"]);
    const { holdCostMicro } = only(events, "RequestAdmitted.v1");
    expect(holdCostMicro).toBe(Math.ceil(hold * 0.8));
    expect(only(events, "RequestReleased.v1")).toMatchObject({
      ...releasedWith,
      holdMicro: hold,
      unbilledMicro: holdCostMicro,
      attempts: [{ host: "simulator", hostKey: "embedded", outcome: "aborted" }],
    });
    expect(await bookOf(relai, id)).toMatchObject({ clientGone: true, finished: false });
    await expectNothingHeld(credits_micro, 0);
  });
});

describe("a client that leaves a stream after the first byte", () => {
  // Role, eight contents, finish; then what the caller did not ask for.
  const content = "[sim chunks=8 delay=25 input=11 output=80]";

  test.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])(
    "after event %d: the answer is read on and charged by its usage",
    async (seen) => {
      const { credits_micro } = await balanceOf(relai);
      const leave = new AbortController();
      const answer = await post(relai, content, { stream: true }, { signal: leave.signal });
      const id = answer.headers.get("x-request-id") ?? "";
      const events = sse(answer);
      for (let number = 0; number < seen; number += 1)
        expect((await events.next()).value).toContain('"object":"chat.completion.chunk"');
      leave.abort();
      const recorded = await eventsOf(relai, id);
      expect(recorded.map(({ type }) => type)).toEqual(["RequestAdmitted.v1", "UsageRecorded.v1"]);
      const call = await bookOf(relai, id);
      expect(call).toMatchObject({ clientGone: false, finished: true, usageSent: true });
      const usage = only(recorded, "UsageRecorded.v1");
      expect(usage).toMatchObject({
        tokens: call.tokens,
        chargedMicro: 91,
        providerCostMicro: 73,
        billedBy: "provider",
        overHoldMicro: 0,
        finish: "stop",
        attempts: [{ host: "simulator", hostKey: "embedded", outcome: "answered", status: 200 }],
      });
      // After the finish chunk nothing is left to send but [DONE]: by then nobody may have noticed.
      if (seen < 9) expect(usage.clientGone).toBe(true);
      await expectNothingHeld(credits_micro, 91);
    },
  );

  test.each([
    ["for longer than the limit", "[sim stall-after=3 input=11 output=80]"],
    ["for more bytes than the limit", "[sim chunks=4000 delay=1 input=11 output=80]"],
  ])("it is not read on %s, but cut and estimated", async (_what, text) => {
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
    expect(usage.chargedMicro).toBe((usage.tokens.input ?? 0) + (usage.tokens.output ?? 0));
    expect(await bookOf(relai, id)).toMatchObject({ clientGone: true, usageSent: false });
    await expectNothingHeld(credits_micro, usage.chargedMicro);
  });
});

describe("a client that leaves a plain answer after its first byte", () => {
  const body = '{"id":"x","choices":[],"usage":{"prompt_tokens":1000000,"completion_tokens":0}}';

  /** Leaves when half of the body is with relai; the upstream sends the rest, or nothing more. */
  async function leaveHalfway(rest: string | undefined): Promise<string> {
    const half = Promise.withResolvers<ServerResponse>();
    upstream.answer((_request, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.write(body.slice(0, 40));
      half.resolve(response);
    });
    const leave = new AbortController();
    const answer = post(relai, "Hello", { model: "gpt-4o-mini" }, { signal: leave.signal });
    const response = await half.promise;
    await expect
      .poll(() => balanceOf(relai).then(({ held_micro }) => held_micro), { timeout: 30_000 })
      .toBeGreaterThan(0);
    // relai has read what was sent, and is to see that the client left, before the rest comes.
    await new Promise((resolve) => setTimeout(resolve, 200));
    leave.abort();
    await expect(answer).rejects.toThrow();
    await new Promise((resolve) => setTimeout(resolve, 200));
    if (rest !== undefined) response.end(rest);
    return String(upstream.requests.at(-1)?.headers["x-client-request-id"]);
  }

  test("is charged by its usage when the rest comes", async () => {
    const { credits_micro } = await balanceOf(relai);
    const id = await leaveHalfway(body.slice(40));
    const usage = only(await eventsOf(relai, id), "UsageRecorded.v1");
    expect(usage).toMatchObject({
      tokens: { input: 1_000_000 },
      clientGone: true,
      billedBy: "provider",
      model: "gpt-4o-mini",
    });
    expect(usage.chargedMicro).toBeGreaterThan(0);
    await expectNothingHeld(credits_micro, usage.chargedMicro);
  });

  test("is cut and estimated by what had come when it does not", async () => {
    const { credits_micro } = await balanceOf(relai);
    const id = await leaveHalfway(undefined);
    const usage = only(await eventsOf(relai, id), "UsageRecorded.v1");
    expect(usage).toMatchObject({
      billedBy: "estimate",
      clientGone: true,
      finish: "read_on_over",
      tokens: { input: Math.ceil("Hello".length / 4), output: Math.ceil(40 / 3) },
      attempts: [{ outcome: "aborted" }],
    });
    await expectNothingHeld(credits_micro, usage.chargedMicro);
  });
});
