import type { ServerResponse } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventsOf, only } from "./money/books.ts";
import { leavesNothingRunning, startRelai, type RelaiProcess } from "./relai.ts";
import { openRecorder, type Recorded, type Recorder } from "./recorder.ts";

leavesNothingRunning();

const SECRET = "sk-our-own-account-1234567890";
let upstream: Recorder;
let relai: RelaiProcess;
beforeAll(async () => {
  upstream = await openRecorder();
  relai = await startRelai({
    settings: { OPENAI_API_KEY: SECRET, OPENAI_BASE_URL: `${upstream.url}/v1` },
  });
});
afterAll(async () => {
  await relai.stop();
  await upstream.close();
});

const ACCOUNT = {
  "openai-organization": "org-ours",
  "openai-processing-ms": "12",
  "x-ratelimit-remaining-requests": "9",
  "set-cookie": "__cf_bm=ours",
  "x-request-id": "req_of_the_upstream",
  "content-type": "application/json",
};
const ACCOUNT_ONLY = Object.keys(ACCOUNT).slice(0, 4);
const USAGE = '"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}';

/** Answers the next requests with these bytes, and our account's headers. */
function answerWith(body: string, type = "application/json"): void {
  upstream.answer((_request: Recorded, response: ServerResponse) => {
    response.writeHead(200, { ...ACCOUNT, "content-type": type });
    response.end(body);
  });
}

/** Sends these very bytes; gives the answer's, and what reached the upstream. */
async function send(body: string, path = "/v1/chat/completions") {
  const answer = await fetch(relai.gateway + path, {
    method: "POST",
    headers: {
      authorization: `Bearer ${relai.key}`,
      "content-type": "application/json",
      cookie: "of=the caller",
      "openai-organization": "org-of-the-caller",
      "x-forwarded-for": "10.0.0.1",
      "user-agent": "the caller",
    },
    body,
  });
  const text = await answer.text();
  const seen = upstream.requests.at(-1);
  if (seen === undefined) throw new Error("nothing reached the upstream");
  return { answer, text, seen };
}

test("a plain answer passes to the byte, and so does the request but for its cap", async () => {
  // Spaces, order, escapes, a number past 2^53, unknown members: nothing is written anew.
  const answered =
    '{ "id":"chatcmpl-1","object":"chat.completion","created":1, "model":"gpt-4o-mini-2024-07-18",' +
    '"choices":[{"index":0,"message":{"role":"assistant","content":"caf\\u00e9 \\/ \u{1f600}",' +
    '"new_member":{"deep":[1.50,12345678901234567890]}},"finish_reason":"stop","logprobs":null}],\n' +
    `${USAGE},"x_new":true}\n`;
  answerWith(answered);
  const { answer, text, seen } = await send(
    '{"messages":[{"role":"user","content":"na\\u00efve","unknown":1e0}],\n "model": "gpt-4o-mini",' +
      '"seed":12345678901234567890,"x_unknown":{"a":[1.0]},"user":"u-1"}',
  );
  expect(answer.status).toBe(200);
  expect(text).toBe(answered);
  expect(seen.body).toBe(
    '{"max_completion_tokens":16384,' +
      '"messages":[{"role":"user","content":"na\\u00efve","unknown":1e0}],\n "model": "gpt-4o-mini",' +
      '"seed":12345678901234567890,"x_unknown":{"a":[1.0]},"user":"u-1"}',
  );
  expect([seen.method, seen.url]).toEqual(["POST", "/v1/chat/completions"]);
});

test("upstream there are our credential and our id, and no header of the caller's", async () => {
  answerWith(`{"id":"x","choices":[],${USAGE}}`);
  const { answer, seen } = await send(
    '{"model":"gpt-4o-mini","max_completion_tokens":5,"messages":[{"role":"user","content":"a"}]}',
    "/openai/v1/chat/completions",
  );
  const { host: _, connection: __, ...headers } = seen.headers;
  expect(headers).toEqual({
    authorization: `Bearer ${SECRET}`,
    "content-type": "application/json",
    accept: "application/json",
    // Bytes that are relayed as they are must be readable for whoever did not ask for a compressed answer.
    "accept-encoding": "identity",
    "x-client-request-id": answer.headers.get("x-request-id"),
    "content-length": String(seen.body.length),
  });
  for (const name of ACCOUNT_ONLY) expect([name, answer.headers.get(name)]).toEqual([name, null]);
  expect(answer.headers.get("x-request-id")).not.toBe("req_of_the_upstream");
});

test.each([
  ["the cap under its other name", '"max_tokens":7', '"max_completion_tokens":7', ""],
  [
    "usage in a stream",
    '"stream":true',
    '"stream":true',
    '"stream_options":{"include_usage":true},',
  ],
  ["storing", '"store":true', '"store":false', ""],
])("is edited in its bytes: %s", async (_what, before, after, inserted) => {
  const isStream = before.includes("stream");
  const done = `data: {"id":"x","choices":[],${USAGE}}\n\ndata: [DONE]\n\n`;
  answerWith(
    isStream ? done : `{"id":"x","choices":[],${USAGE}}`,
    isStream ? "text/event-stream" : "application/json",
  );
  const rest = '"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}] }';
  const { answer, seen } = await send(`{ ${before}, ${rest}`);
  expect(answer.status).toBe(200);
  const cap = before.includes("max_tokens") ? "" : '"max_completion_tokens":16384,';
  expect(seen.body.replace(cap, "").replace(inserted, "")).toBe(`{ ${after}, ${rest}`);
  expect(JSON.parse(seen.body)).toMatchObject({
    max_completion_tokens: cap === "" ? 7 : 16_384,
    ...(isStream ? { stream_options: { include_usage: true } } : {}),
  });
});

const CHUNKS = [
  '{"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"new":1}],"usage":null}',
  '{"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"caf\\u00e9 usage\\":null"}}],"usage":null,"obfuscation":"aXk"}',
  '{"id":"c1", "usage": null ,"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}],"x_big":12345678901234567890}',
  '{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}',
];

test.each([false, true])("a stream passes to the byte; usage asked for: %s", async (asked) => {
  const whole =
    `: a comment\n\nevent: custom\ndata: {"type":"unknown"}\n\n` +
    CHUNKS.map((chunk) => `data: ${chunk}\n\n`).join("") +
    `data: {"id":"c1","choices":[],${USAGE}}\n\ndata: [DONE]\n\n`;
  // Cut into pieces of seven bytes, so that every boundary falls somewhere.
  upstream.answer((_request, response) => {
    response.writeHead(200, { ...ACCOUNT, "content-type": "text/event-stream" });
    const bytes = Buffer.from(whole);
    for (let at = 0; at < bytes.length; at += 7) response.write(bytes.subarray(at, at + 7));
    response.end();
  });
  const options = asked ? ',"stream_options":{"include_usage":true}' : "";
  const { answer, text } = await send(
    `{"model":"gpt-4o-mini","stream":true${options},"messages":[{"role":"user","content":"a"}]}`,
  );
  const expected = asked
    ? whole
    : whole
        .replace(`data: {"id":"c1","choices":[],${USAGE}}\n\n`, "")
        .replaceAll(',"usage":null}', "}")
        .replace(',"usage":null,"obf', ',"obf')
        .replace(' "usage": null ,"choices"', ' "choices"');
  expect(text).toBe(expected);
  for (const name of ACCOUNT_ONLY) expect([name, answer.headers.get(name)]).toEqual([name, null]);
  const events = await eventsOf(relai, answer.headers.get("x-request-id") ?? "");
  expect(only(events, "UsageRecorded.v1")).toMatchObject({
    tokens: { input: 9, output: 3 },
    billedBy: "provider",
  });
});

test("an upstream's refusal of our account says nothing of it", async () => {
  upstream.answer((_request, response) => {
    response.writeHead(401, { ...ACCOUNT, "www-authenticate": "Bearer ours" });
    response.end(`{"error":{"message":"Incorrect API key provided: ${SECRET}","code":"bad"}}`);
  });
  const { answer, text } = await send(
    '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}]}',
  );
  expect(answer.status).toBe(502);
  expect(JSON.parse(text)).toEqual({
    error: {
      message: "The upstream failed",
      type: "api_error",
      code: "upstream_error",
      param: null,
    },
  });
  expect(answer.headers.get("www-authenticate")).toBeNull();
});

test("an upstream's refusal of the request passes with its message, without our secrets", async () => {
  upstream.answer((_request, response) => {
    response.writeHead(400, ACCOUNT);
    response.end(
      `{"error":{"message":"bad image for ${SECRET} of org-abcdef123","type":"invalid_request_error","code":"image_parse_error","param":"messages"}}`,
    );
  });
  const { answer, text } = await send(
    '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a"}]}',
  );
  expect(answer.status).toBe(400);
  expect(JSON.parse(text)).toEqual({
    error: {
      message: "bad image for … of …",
      type: "invalid_request_error",
      code: "image_parse_error",
      param: "messages",
    },
  });
});
