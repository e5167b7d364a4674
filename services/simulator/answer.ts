import type { Tokens } from "#domain/prices.ts";
import { FINGERPRINT, firstHalf, streamEvents, toolCallId } from "./chunks.ts";
import type { AnswerStamp, StreamEvent } from "./chunks.ts";
import type { Directives, Failure } from "./directives.ts";
import type { ChatRequest } from "./request.ts";
import { whatIsSaid, type Said } from "./said.ts";
import { disjointTokens, usageObject, type Counts } from "./usage.ts";

/** An answer that is decided and not yet sent. */
export interface AnswerPlan {
  readonly status: number;
  readonly retryAfterSeconds: number | undefined;
  readonly contentType: "application/json" | "text/event-stream";
  readonly body: string | Iterable<StreamEvent>;
  /** What the upstream charges for the call, also if the answer fails or tells no usage; empty for an error or garbage. */
  readonly tokens: Tokens;
  /** The whole body tells usage (the events of a stream say it one by one). */
  readonly tellsUsage: boolean;
  /** The failure that is left to whoever sends the answer. */
  readonly cut: Cut | undefined;
  /** The answer is one that a right upstream could give: an error status too, but no cut, broken or unending one. */
  readonly complete: boolean;
}

export type Cut = Extract<Failure, { how: "hang-up" | "reset" | "end" | "stall" }>;

/** The answer to a request, as its directives ask for it; the same request and stamp give the same answer. */
export function planAnswer(request: ChatRequest, stamp: AnswerStamp): AnswerPlan {
  const said = whatIsSaid(request);
  const { directives } = request;
  if (!request.stream) return planWhole(directives, said.counts, completion(request, stamp, said));
  const body = streamEvents(request, stamp, said);
  const stream = { contentType: "text/event-stream", body, tellsUsage: false } as const;
  return served(directives, said.counts, stream);
}

/** The answer of one body, as the directives ask for it. */
export function planWhole(directives: Directives, counts: Counts, body: object): AnswerPlan {
  const { failure, noUsage } = directives;
  if (failure?.how === "error" || failure?.how === "no-done") {
    const message = `simulator directive: '${failure.how}' needs a stream`;
    return errorPlan({ status: 400, message, param: "messages" });
  }
  const text = JSON.stringify(body);
  const garbage = failure?.how === "garbage";
  return served(directives, counts, {
    contentType: "application/json",
    body: garbage ? firstHalf(text) : text,
    tellsUsage: !garbage && !noUsage,
  });
}

function served(
  { failure }: Directives,
  counts: Counts,
  answer: Pick<AnswerPlan, "contentType" | "body" | "tellsUsage">,
): AnswerPlan {
  if (failure?.how === "status") {
    const { status, retryAfterSeconds } = failure;
    return errorPlan({ status, message: `simulated status ${status}`, retryAfterSeconds });
  }
  return {
    status: 200,
    retryAfterSeconds: undefined,
    tokens: failure?.how === "garbage" ? {} : disjointTokens(counts),
    cut: isCut(failure) ? failure : undefined,
    complete: failure === undefined,
    ...answer,
  };
}

/** An error in OpenAI's shape, with the type and code that go with its status. */
export function errorPlan(error: {
  status: number;
  message: string;
  param?: string | null;
  retryAfterSeconds?: number | undefined;
}): AnswerPlan {
  const { status, message, param = null, retryAfterSeconds } = error;
  const [type, code] = ERROR_KINDS[status] ?? [
    status < 500 ? "invalid_request_error" : "server_error",
    null,
  ];
  return {
    status,
    retryAfterSeconds,
    contentType: "application/json",
    body: JSON.stringify({ error: { message, type, param, code } }),
    tokens: {},
    tellsUsage: false,
    cut: undefined,
    complete: true,
  };
}

const ERROR_KINDS: Readonly<Record<number, readonly [type: string, code: string | null]>> = {
  401: ["invalid_request_error", "invalid_api_key"],
  404: ["invalid_request_error", "model_not_found"],
  429: ["requests", "rate_limit_exceeded"],
};

function isCut(failure: Failure | undefined): failure is Cut {
  const how = failure?.how;
  return how === "hang-up" || how === "reset" || how === "end" || how === "stall";
}

function completion(request: ChatRequest, stamp: AnswerStamp, said: Said): Record<string, unknown> {
  const choices = Array.from({ length: request.choices }, (_, index) => ({
    index,
    message: {
      role: "assistant",
      content: said.toolCalls.length > 0 ? null : said.pieces.text(0, said.pieces.count),
      refusal: null,
      annotations: [],
      ...(said.toolCalls.length > 0 && {
        tool_calls: said.toolCalls.map((call, at) => ({
          id: toolCallId(stamp, index, at),
          type: "function",
          function: call,
        })),
      }),
    },
    logprobs: null,
    finish_reason: said.finish,
  }));
  return {
    id: stamp.id,
    object: "chat.completion",
    created: stamp.createdUnix,
    model: request.directives.model ?? request.model,
    choices,
    ...(!request.directives.noUsage && { usage: usageObject(said.counts) }),
    service_tier: request.directives.tier ?? request.serviceTier,
    system_fingerprint: FINGERPRINT,
  };
}
