import { afterAll, beforeAll, expect, test } from "vitest";
import { bookOf, eventsOf, only } from "./books.ts";
import {
  balanceOf,
  jsonOf,
  leavesNothingRunning,
  newOrganization,
  openai,
  startRelai,
  type RelaiProcess,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

let relai: RelaiProcess;
beforeAll(async () => {
  relai = await startRelai();
});
afterAll(() => relai.stop());

const model = "sim-embed";

function post(body: object, { gateway, key } = relai): Promise<Response> {
  return fetch(`${gateway}/v1/embeddings`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

test("the client's default, base64, gives the floats that it gives when asked for floats", async () => {
  const input = ["The quick brown fox", "jumps over the lazy dog"];
  const { embeddings } = openai(relai);
  const packed = await embeddings.create({ model, input });
  const plain = await embeddings.create({ model, input, encoding_format: "float" });
  expect(packed.data.map(({ embedding }) => embedding)).toEqual(
    plain.data.map(({ embedding }) => embedding),
  );
  expect(packed.data.map(({ index, embedding }) => [index, embedding.length])).toEqual([
    [0, 256],
    [1, 256],
  ]);
  // On the wire it is text, which the client unpacks.
  const raw = await (await post({ model, input, encoding_format: "base64" })).text();
  expect(raw).toMatch(/"index":1,"embedding":"[\w+/]{1000,}=*"/);
  const [one, other] = plain.data.map(({ embedding }) => embedding);
  expect(one).not.toEqual(other);
  const short = await embeddings.create({ model, input, dimensions: 8 });
  expect(short.data[0]?.embedding).toHaveLength(8);
});

test("is held, charged and booked like everything else, to the micro", async () => {
  // sim-embed: 0.1 micro a token, our cost 0.08.
  const before = await balanceOf(relai);
  const { data, response, request_id } = await openai(relai)
    .embeddings.create({ model, input: "[sim input=12345]" })
    .withResponse();
  expect(data.usage).toEqual({ prompt_tokens: 12_345, total_tokens: 12_345 });
  expect(response.headers.get("x-relai-cost-micro")).toBe("1234");
  const events = await eventsOf(relai, request_id ?? "");
  expect(events.map(({ type }) => type)).toEqual([
    "RequestAdmitted.v1",
    "HoldExtended.v1",
    "UsageRecorded.v1",
  ]);
  expect(only(events, "UsageRecorded.v1")).toMatchObject({
    bindingId: "sim-embed@simulator",
    tokens: { input: 12_345 },
    chargedMicro: 1234,
    residualPico: 500_000,
    providerCostMicro: 988,
    billedBy: "provider",
    finish: "stop",
  });
  expect((await bookOf(relai, request_id ?? "")).tokens).toEqual({ input: 12_345 });
  const after = await balanceOf(relai);
  expect([before.credits_micro - after.credits_micro, after.held_micro]).toEqual([1234, 0]);
});

test.each<[string, unknown, tokens: number]>([
  ["a text", "eight by", 2],
  ["texts", ["eight by", "four"], 3],
  ["token ids", [1, 2, 3, 4, 5], 5],
  ["lists of token ids", [[1, 2, 3], [4]], 4],
])("takes %s", async (_, input, tokens) => {
  const answer = await post({ model, input });
  expect([answer.status, await jsonOf(answer)]).toMatchObject([
    200,
    { object: "list", model, usage: { prompt_tokens: tokens } },
  ]);
});

test("without usage its tokens are estimated from the input", async () => {
  const answer = await post({ model, input: `[sim no-usage]${"x".repeat(4_000 - 14)}` });
  expect(answer.headers.get("x-relai-cost-micro")).toBe("100");
  expect(await jsonOf(answer)).not.toHaveProperty("usage");
  const events = await eventsOf(relai, answer.headers.get("x-request-id") ?? "");
  expect(only(events, "UsageRecorded.v1")).toMatchObject({
    billedBy: "estimate",
    tokens: { input: 1_000 },
  });
});

test("a model of the other kind is refused, and nothing is held for it", async () => {
  const wrong = await post({ model: "sim-flat", input: "a" });
  expect([wrong.status, await jsonOf(wrong)]).toMatchObject([
    400,
    {
      error: {
        param: "model",
        message: "sim-flat does not serve this route: it is a model for chat.",
      },
    },
  ]);
  const chat = openai(relai).chat.completions.create({
    model,
    messages: [{ role: "user", content: "a" }],
  });
  await expect(chat).rejects.toThrow("it is a model for embeddings");
});

test("what fails upstream costs nothing, and what cannot be paid for is not sent", async () => {
  const poor = await newOrganization(relai, { creditMicro: 5 });
  const failed = await post({ model, input: "[sim status=500]" }, poor);
  expect(failed.status).toBe(502);
  const refused = await post({ model, input: "x".repeat(1_000) }, poor);
  expect([refused.status, await jsonOf(refused)]).toMatchObject([
    402,
    { error: { code: "insufficient_balance", available_micro: 5, required_micro: 51 } },
  ]);
  expect(await balanceOf(poor)).toMatchObject({ available_micro: 5, held_micro: 0 });
});

test("the list of models has those for embeddings", async () => {
  const ids = (await openai(relai).models.list()).data.map(({ id }) => id);
  expect(ids).toContain(model);
});
