import { expect, test } from "vitest";
import { buildCatalogue } from "#domain/catalogue/build.ts";
import { handleModels, handleUnknown } from "#services/gateway/http/reads.ts";
import { OPENAI_EMBEDDINGS } from "#services/gateway/shapes/openai-embeddings/shape.ts";
import type { RequestTrace } from "#services/ports.ts";
import { handleChat } from "#test/worlds/chat-way.ts";
import {
  chat,
  chunk,
  completion,
  DONE,
  gatewayWorld,
  ORG,
  settled,
  type RequestChanges,
} from "#test/worlds/gateway-world.ts";
import { handleShape } from "./request.ts";

/** What the way of a request tells for its trace, and that it is told once, whatever becomes of the request. */

const PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const KEY_ID = "key_00000000000000000000000001";

async function traced(parts: NonNullable<Parameters<typeof gatewayWorld>[0]>["parts"] = {}) {
  const traces: RequestTrace[] = [];
  const telemetry = {
    requestDone: () => {},
    alarm: () => {},
    requestTraced: (trace: RequestTrace) => void traces.push(trace),
  };
  const world = await gatewayWorld({ parts: { telemetry, ...parts } });
  const ask = async (changes: RequestChanges = {}, handle = handleChat) => {
    const answer = world.ask(handle, changes);
    await settled();
    return answer;
  };
  return { world, traces, ask };
}

test("a plain answer: who asked, when, the call, and what it says it used", async () => {
  const { world, traces, ask } = await traced();
  const beganAt = world.clock.now();
  const answer = await ask({ more: { traceparent: PARENT } });
  await world.clock.advance(30);
  expect(traces).toEqual([]);
  world.calls[0]?.answer(completion([10, 2]));
  await answer.done;
  expect(traces).toEqual([
    {
      requestId: answer.headers["x-request-id"],
      method: "POST",
      route: "/v1/chat/completions",
      parent: PARENT,
      orgId: ORG,
      keyId: KEY_ID,
      beganAt,
      durationMs: 30,
      status: 200,
      code: "ok",
      calls: [
        {
          operation: "chat",
          host: "simulator",
          baseUrl: "http://127.0.0.1:1/v1",
          model: "sim-flat",
          isStream: false,
          outputCapTokens: 100,
          beganMs: 0,
          durationMs: 30,
          firstByteMs: 30,
          status: 200,
          error: undefined,
          servedModel: "sim-flat",
          inputTokens: 10,
          outputTokens: 2,
        },
      ],
    },
  ]);
  // The trace is the operator's: no provider is told of it.
  expect(Object.keys(world.calls[0]?.call.headers ?? {}).toSorted()).toEqual(
    ["accept", "authorization", "content-type", "x-client-request-id"].toSorted(),
  );
  await world.expectAtRest();
});

test("a stream that breaks behind its head is told as it ended, with what it had said until then", async () => {
  const { world, traces, ask } = await traced();
  const answer = await ask({ text: chat({ stream: true }) });
  world.calls[0]?.head();
  await world.clock.advance(5);
  world.calls[0]?.data(chunk({ content: "Hello" }));
  await world.clock.advance(5);
  world.calls[0]?.fail("reset");
  await answer.done;
  expect(traces).toMatchObject([
    {
      status: 200,
      code: "upstream_error",
      calls: [{ isStream: true, error: "reset", status: 200, firstByteMs: 5, durationMs: 10 }],
    },
  ]);
  // What relai estimates is not what the provider said.
  expect(traces[0]?.calls[0]).not.toHaveProperty("inputTokens");
});

test("a stream that comes to its end is told with its usage", async () => {
  const { world, traces, ask } = await traced();
  const answer = await ask({ text: chat({ stream: true }) });
  const usage = { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 };
  const last = chunk({}, { finish_reason: "stop" }) + chunk(undefined, { usage });
  world.calls[0]?.answer(chunk({ content: "Hello" }) + last + DONE);
  await answer.done;
  expect(traces).toMatchObject([
    { code: "ok", calls: [{ error: undefined, inputTokens: 7, outputTokens: 5 }] },
  ]);
});

test.each<[string, number, string | object, string]>([
  ["a refusal", 429, { error: { message: "slow down" } }, "429"],
  ["an answer that is none", 200, "<html>", "garbage"],
  ["an error under a success", 200, { error: { message: "no" } }, "upstream_error"],
])("%s of the upstream is told by a word or its status", async (_what, status, body, error) => {
  const { world, traces, ask } = await traced();
  const answer = await ask();
  world.calls[0]?.answer(body, status);
  await answer.done;
  expect(traces).toHaveLength(1);
  expect(traces[0]?.calls).toMatchObject([{ status, error }]);
  expect(traces[0]?.status).toBe(answer.status);
});

test("a model that no catalogue has could be any text, and is not told", async () => {
  const { world, traces, ask } = await traced();
  for (const model of ["the prompt", "sim-flat-2027-01-31"]) {
    const answer = await ask();
    world.calls.at(-1)?.answer({ ...completion([1, 1]), model });
    await answer.done;
  }
  expect(traces.map(({ calls }) => calls[0]?.servedModel)).toEqual([
    undefined,
    "sim-flat-2027-01-31",
  ]);
});

test("each call of an upstream is told, in order", async () => {
  const built = buildCatalogue({ openai: false, simulator: true, processingArea: "us" });
  const [first] = built.bindings.get("sim-flat") ?? [];
  if (!first) throw new Error("the simulator's models are not there");
  const second = { ...first, id: "sim-flat@second", host: { ...first.host, slug: "second" } };
  const at = (port: number) => ({
    baseUrl: `http://127.0.0.1:${port}/v1`,
    credential: "credential",
    hostKey: "key",
  });
  const { world, traces, ask } = await traced({
    catalogue: { ...built, bindings: new Map([["sim-flat", [first, second]]]) },
    hosts: new Map([
      ["simulator", at(1)],
      ["second", at(2)],
    ]),
  });
  const answer = await ask();
  await world.clock.advance(4);
  world.calls[0]?.fail("connect");
  await settled();
  world.calls[1]?.answer(completion([10, 2]));
  await answer.done;
  expect(traces[0]?.calls).toMatchObject([
    { host: "simulator", baseUrl: "http://127.0.0.1:1/v1", error: "connect", status: undefined },
    { host: "second", baseUrl: "http://127.0.0.1:2/v1", beganMs: 4, inputTokens: 10 },
  ]);
});

test("a client that leaves is told, and so is the call that it left", async () => {
  const { traces, ask } = await traced();
  const answer = await ask();
  answer.leave();
  await answer.done;
  expect(traces).toMatchObject([
    { status: 499, code: "client_gone", calls: [{ error: "client_gone", status: undefined }] },
  ]);
});

test("embeddings have no output to cap", async () => {
  const { world, traces, ask } = await traced();
  const text = JSON.stringify({ model: "sim-embed", input: "hello" });
  const answer = await ask({ text }, handleShape(OPENAI_EMBEDDINGS));
  world.calls[0]?.answer({
    object: "list",
    data: [{ object: "embedding", index: 0, embedding: [0.5] }],
    model: "sim-embed",
    usage: { prompt_tokens: 3, total_tokens: 3 },
  });
  await answer.done;
  expect(traces).toMatchObject([
    {
      route: "/v1/embeddings",
      calls: [{ operation: "embeddings", outputCapTokens: undefined, inputTokens: 3 }],
    },
  ]);
});

test("refusals and reads are told too; a stranger has no name and a path that nobody knows no route", async () => {
  const { traces, ask, world } = await traced();
  for (const answer of [
    await ask({ more: { authorization: "Bearer wrong" } }),
    await ask({ text: "{" }),
    await ask({ method: "GET" }, handleModels),
    await ask({ method: "PUT" }, handleUnknown),
  ])
    await answer.done;
  const told = traces.map(({ method, route, status, code, keyId }) => [
    `${method} ${route}`,
    status,
    code,
    keyId,
  ]);
  expect(told).toEqual([
    ["POST /v1/chat/completions", 401, "invalid_api_key", undefined],
    ["POST /v1/chat/completions", 400, "invalid_request", KEY_ID],
    ["GET /v1/models", 200, "ok", KEY_ID],
    ["PUT unknown", 404, "not_found", KEY_ID],
  ]);
  expect(traces.flatMap(({ calls }) => calls)).toEqual([]);
  expect(world.calls).toEqual([]);
});

test("a defect is told as one", async () => {
  const { traces, ask } = await traced({ hosts: new Map() });
  const answer = await ask();
  await answer.done;
  expect(answer.status).toBe(500);
  expect(traces).toMatchObject([{ status: 500, code: "internal_error", calls: [] }]);
});
