import type { ServerResponse } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectNothingHeld, provesDisconnects, READS_ON_LITTLE } from "#test/proofs/disconnects.ts";
import { asEmbedded } from "#test/proofs/world.ts";
import { openRecorder, type Recorder } from "./recorder.ts";
import { eventsOf, only } from "./money/books.ts";
import { balanceOf, leavesNothingRunning, post, startRelai, type RelaiProcess } from "./relai.ts";

leavesNothingRunning();

let upstream: Recorder;
let relai: RelaiProcess;
beforeAll(async () => {
  upstream = await openRecorder();
  relai = await startRelai({
    settings: {
      ...READS_ON_LITTLE,
      OPENAI_API_KEY: "sk-upstream",
      OPENAI_BASE_URL: `${upstream.url}/v1`,
    },
  });
});
afterAll(async () => {
  await relai.stop();
  await upstream.close();
});

provesDisconnects(() => asEmbedded(relai, [relai.gateway]));

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
    await expectNothingHeld(relai, credits_micro, usage.chargedMicro);
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
    await expectNothingHeld(relai, credits_micro, usage.chargedMicro);
  });
});
