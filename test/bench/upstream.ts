import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { announce, type Ready } from "./child.ts";
import { CHUNKS, MODEL } from "./request.ts";

/**
 * The upstream that every configuration is measured against: one fixed answer, one fixed stream, as little work as
 * node:http allows.
 */

const CREATED_UNIX = 1_790_000_000;
const TEXT =
  "The capital of France is Paris. It stands on the Seine and has been the seat of government, with breaks, since the tenth century.";
const USAGE = {
  prompt_tokens: 41,
  completion_tokens: 30,
  total_tokens: 71,
  prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
  completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 },
};
const common = {
  id: "chatcmpl-bench",
  created: CREATED_UNIX,
  model: MODEL,
  service_tier: "default",
};

const COMPLETION = Buffer.from(
  JSON.stringify({
    ...common,
    object: "chat.completion",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: TEXT, refusal: null },
        logprobs: null,
        finish_reason: "stop",
      },
    ],
    usage: USAGE,
  }),
);
const COMPLETION_HEAD = {
  "content-type": "application/json",
  "content-length": String(COMPLETION.length),
  "x-request-id": "req_bench",
};
const STREAM_HEAD = { "content-type": "text/event-stream; charset=utf-8" };

function frame(delta: object, finish: string | null): Buffer {
  const choices = [{ index: 0, delta, logprobs: null, finish_reason: finish }];
  const chunk = { ...common, object: "chat.completion.chunk", choices, usage: null };
  return Buffer.from(`data: ${JSON.stringify(chunk)}\n\n`);
}

const FRAMES: readonly Buffer[] = [
  frame({ role: "assistant", content: "", refusal: null }, null),
  ...Array.from({ length: CHUNKS }, (_, index) => frame({ content: ` word${index}` }, null)),
  frame({}, "stop"),
  Buffer.from(
    `data: ${JSON.stringify({ ...common, object: "chat.completion.chunk", choices: [], usage: USAGE })}\n\n`,
  ),
  Buffer.from("data: [DONE]\n\n"),
];

/** Writes the frames one by one, each in a turn of its own, as tokens come from a model. */
function stream(response: ServerResponse, next: number): void {
  const bytes = FRAMES[next];
  if (response.destroyed) return;
  if (bytes === undefined) {
    response.end();
    return;
  }
  response.write(bytes);
  setImmediate(stream, response, next + 1);
}

function startUpstream(): Promise<Ready> {
  const server = createServer((request, response) => {
    let streamed = false;
    request.on("data", (bytes: Buffer) => {
      streamed ||= bytes.includes('"stream":true');
    });
    request.on("end", () => {
      if (streamed) {
        response.writeHead(200, STREAM_HEAD);
        stream(response, 0);
      } else {
        response.writeHead(200, COMPLETION_HEAD).end(COMPLETION);
      }
    });
  });
  server.keepAliveTimeout = 60_000;
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      resolve({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
    });
  });
}

await announce(startUpstream);
