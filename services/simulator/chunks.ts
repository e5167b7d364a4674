import type { ChatRequest } from "./request.ts";
import { tokenise, type Said } from "./said.ts";
import { usageObject } from "./usage.ts";

/** What makes one answer different from another: from the server, because this file is pure. */
export interface AnswerStamp {
  /** Unique among answers; the id of the completion and of its tool calls is made of it. */
  readonly id: string;
  readonly createdUnix: number;
}

/** One event of a stream, framed. */
export interface StreamEvent {
  readonly text: string;
  readonly tellsUsage: boolean;
}

/** Which build of the model answered, as OpenAI tells it. */
export const FINGERPRINT = "fp_simulated";
const CHUNKS_DEFAULT = 20;

/** The events of a stream: role, contents, finish, usage if asked for, `[DONE]`; each broken as the failure says. */
export function* streamEvents(
  request: ChatRequest,
  stamp: AnswerStamp,
  said: Said,
): Generator<StreamEvent> {
  const { failure } = request.directives;
  let sent = 0;
  for (const event of chunkEvents(request, stamp, said)) {
    if (failure?.how === "error" && sent === failure.after) break;
    sent += 1;
    if (failure?.how !== "garbage") yield event;
    else yield { text: `${firstHalf(event.text.trimEnd())}\n\n`, tellsUsage: false };
  }
  if (failure?.how === "error") {
    const message = "simulated error in the stream";
    const error = { message, type: "server_error", param: null, code: null };
    yield { text: `data: ${JSON.stringify({ error })}\n\n`, tellsUsage: false };
  } else if (failure?.how !== "no-done") {
    yield { text: "data: [DONE]\n\n", tellsUsage: false };
  }
}

function* chunkEvents(
  request: ChatRequest,
  stamp: AnswerStamp,
  said: Said,
): Generator<StreamEvent> {
  const tellsUsage = request.includeUsage && !request.directives.noUsage;
  const head = JSON.stringify({
    id: stamp.id,
    object: "chat.completion.chunk",
    created: stamp.createdUnix,
    model: request.directives.model ?? request.model,
    service_tier: request.directives.tier ?? request.serviceTier,
    system_fingerprint: FINGERPRINT,
  }).slice(0, -1);
  const tail = tellsUsage ? `,"usage":null}\n\n` : "}\n\n";
  const chunk = (index: number, delta: string, finish: string): StreamEvent => ({
    text: `data: ${head},"choices":[{"index":${index},"delta":${delta},"logprobs":null,"finish_reason":${finish}}]${tail}`,
    tellsUsage: false,
  });
  const choices = Array.from({ length: request.choices }, (_, index) => index);
  const toEach = (delta: string, finish = "null") =>
    choices.map((index) => chunk(index, delta, finish));
  const hasTools = said.toolCalls.length > 0;
  yield* toEach(`{"role":"assistant","content":${hasTools ? "null" : '""'},"refusal":null}`);
  if (!hasTools) for (const delta of contentDeltas(request, said)) yield* toEach(delta);
  for (const [at, call] of said.toolCalls.entries())
    for (const index of choices)
      for (const delta of toolDeltas(at, toolCallId(stamp, index, at), call))
        yield chunk(index, delta, "null");
  yield* toEach("{}", `"${said.finish}"`);
  if (!tellsUsage) return;
  const usage = JSON.stringify(usageObject(said.counts));
  yield { text: `data: ${head},"choices":[],"usage":${usage}}\n\n`, tellsUsage: true };
}

/** The pieces dealt out evenly over the chunks. */
function* contentDeltas(request: ChatRequest, said: Said): Generator<string> {
  const { count } = said.pieces;
  const chunks = Math.min(request.directives.chunks ?? CHUNKS_DEFAULT, count);
  for (let at = 0; at < chunks; at += 1) {
    const from = Math.floor((at * count) / chunks);
    const to = Math.floor(((at + 1) * count) / chunks);
    yield `{"content":${JSON.stringify(said.pieces.text(from, to))}}`;
  }
}

/** A tool call as OpenAI streams it: its name first, then its arguments a few characters at a time. */
function* toolDeltas(
  index: number,
  id: string,
  call: Said["toolCalls"][number],
): Generator<string> {
  const start = { index, id, type: "function", function: { name: call.name, arguments: "" } };
  yield JSON.stringify({ tool_calls: [start] });
  for (const piece of tokenise(call.arguments))
    yield JSON.stringify({ tool_calls: [{ index, function: { arguments: piece } }] });
}

/** Unique among answers, choices and calls. */
export function toolCallId(stamp: AnswerStamp, choice: number, call: number): string {
  return `call_${stamp.id}_${choice}_${call}`;
}

/** What garbage is made of: JSON that is cut in the middle. */
export function firstHalf(text: string): string {
  return text.slice(0, text.length >> 1);
}
