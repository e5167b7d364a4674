import { LLMock } from "@copilotkit/aimock";
import type OpenAI from "openai";
import { RateLimitError } from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventsOf, only } from "./money/books.ts";
import { balanceOf, leavesNothingRunning, openai, startRelai, type RelaiProcess } from "./relai.ts";

leavesNothingRunning();

const mock = new LLMock({ port: 0 });
let relai: RelaiProcess;
let client: OpenAI;
beforeAll(async () => {
  mock.onMessage("hello", {
    content: "Hi there, this is another upstream.",
    usage: { prompt_tokens: 21, completion_tokens: 9, total_tokens: 30 },
  });
  mock.onMessage("weather", {
    toolCalls: [{ name: "weather", arguments: '{"city":"Oslo"}' }],
    usage: { prompt_tokens: 40, completion_tokens: 12, total_tokens: 52 },
  });
  await mock.start();
  relai = await startRelai({
    settings: { OPENAI_API_KEY: "sk-mock", OPENAI_BASE_URL: `${mock.url}/v1` },
  });
  client = openai(relai);
});
afterAll(async () => {
  await relai.stop();
  await mock.stop();
});

const model = "gpt-4o-mini";
const user = (content: string): OpenAI.ChatCompletionMessageParam[] => [{ role: "user", content }];
const tools: OpenAI.ChatCompletionTool[] = [
  {
    type: "function",
    function: {
      name: "weather",
      parameters: { type: "object", properties: { city: { type: "string" } } },
    },
  },
];

/** gpt-4o-mini: 0.15 and 0.60 dollars for a million tokens, rounded half to even once. */
async function expectCharged(id: string | null | undefined, input: number, output: number) {
  const usage = only(await eventsOf(relai, id ?? ""), "UsageRecorded.v1");
  expect(usage).toMatchObject({ tokens: { input, output }, billedBy: "provider", model });
  const pico = input * 150_000 + output * 600_000;
  expect(usage.chargedMicro * 1_000_000 + usage.residualPico).toBe(pico);
  expect(Math.abs(usage.residualPico)).toBeLessThanOrEqual(500_000);
  return usage.chargedMicro;
}

test("a plain answer", async () => {
  const before = await balanceOf(relai);
  const { data, response, request_id } = await client.chat.completions
    .create({ model, messages: user("hello") })
    .withResponse();
  expect(data.choices[0]?.message.content).toBe("Hi there, this is another upstream.");
  const charged = await expectCharged(request_id, 21, 9);
  expect(response.headers.get("x-relai-cost-micro")).toBe(String(charged));
  expect((await balanceOf(relai)).credits_micro).toBe(before.credits_micro - charged);
});

test.each([true, false])("a stream, usage asked for: %s", async (asked) => {
  const { data, request_id } = await client.chat.completions
    .create({
      model,
      messages: user("hello"),
      stream: true,
      ...(asked ? { stream_options: { include_usage: true } } : {}),
    })
    .withResponse();
  let text = "";
  let usages = 0;
  for await (const chunk of data) {
    text += chunk.choices[0]?.delta.content ?? "";
    if (chunk.usage) usages += 1;
    if (!asked) expect(chunk).not.toHaveProperty("usage");
  }
  expect([text, usages]).toEqual(["Hi there, this is another upstream.", asked ? 1 : 0]);
  await expectCharged(request_id, 21, 9);
});

test("tool calls, plain and streamed", async () => {
  const called = await client.chat.completions
    .create({ model, messages: user("weather"), tools })
    .withResponse();
  expect(called.data.choices[0]).toMatchObject({
    finish_reason: "tool_calls",
    message: { tool_calls: [{ function: { name: "weather", arguments: '{"city":"Oslo"}' } }] },
  });
  await expectCharged(called.request_id, 40, 12);
  const streamed = await client.chat.completions
    .stream({ model, messages: user("weather"), tools })
    .finalChatCompletion();
  expect(streamed.choices[0]?.message.tool_calls).toMatchObject([
    { function: { name: "weather", arguments: '{"city":"Oslo"}' } },
  ]);
  expect(await balanceOf(relai)).toMatchObject({ held_micro: 0 });
});

test("its errors are the client's own, and free", async () => {
  const before = await balanceOf(relai);
  mock.nextRequestError(429, { message: "slow down", type: "rate_limit_error" });
  await expect(client.chat.completions.create({ model, messages: user("hello") })).rejects.toThrow(
    RateLimitError,
  );
  mock.nextRequestError(500, { message: "broken" });
  await expect(
    client.chat.completions.create({ model, messages: user("hello") }),
  ).rejects.toMatchObject({ status: 502, code: "upstream_error" });
  expect(await balanceOf(relai)).toMatchObject({
    credits_micro: before.credits_micro,
    held_micro: 0,
  });
});

test("saw our credential, our id and the cap that was set, and never the caller's key", () => {
  const requests = mock.getRequests();
  expect(requests.length).toBeGreaterThan(4);
  for (const { headers, body } of requests) {
    expect(JSON.stringify(headers)).not.toContain(relai.key);
    expect(headers["x-client-request-id"]).toMatch(/^req_/);
    expect(body).toMatchObject({ model, max_completion_tokens: 16_384 });
  }
});
