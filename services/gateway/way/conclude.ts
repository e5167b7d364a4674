import { pricesAt, servedBinding, servedTier } from "#domain/catalogue/lookup.ts";
import type { Attempt, EventData } from "#domain/events/schemas.ts";
import { totalInput, type Tokens } from "#domain/prices.ts";
import { openaiErrorBody, type ApiError } from "#services/errors.ts";
import { answerError, type Run } from "./answer.ts";
import type { Ended, Forwarded } from "./forward.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import { chargeHold, type ChargeOutcome, type UsageFacts } from "#services/gateway/money/charge.ts";
import { releaseHold, type OpenHold } from "#services/gateway/money/hold.ts";
import type { Offer } from "#services/gateway/money/offer.ts";
import { readChatAnswer, seenInAnswer } from "#services/gateway/shapes/openai-chat/answer.ts";
import {
  estimateTokens,
  type ReadUsage,
  type SeenOutput,
} from "#services/gateway/shapes/openai-chat/usage.ts";
import { refusedByUpstream } from "./upstream-refusals.ts";

/** A call that has ended, and all that is needed to settle it. */
export interface EndedCall {
  readonly offer: Offer;
  readonly hold: OpenHold;
  readonly forwarded: Forwarded;
  readonly ended: Ended;
}

/** What the answer said of itself, or what is known without it. */
interface Served {
  readonly usage: ReadUsage | undefined;
  readonly servedModel: string | undefined;
  readonly serviceTier: string | undefined;
  readonly seen: SeenOutput;
  readonly finish: string;
}

const DONE = "data: [DONE]\n\n";
const NOTHING_SEEN: SeenOutput = { visibleBytes: 0, chunks: 0, audioBytes: 0 };
const NOT_RECORDED: ApiError = { code: "ledger_unavailable", doNotRetry: true };

const FINISH_WORDS: ReadonlySet<string> = new Set([
  "stop",
  "length",
  "tool_calls",
  "content_filter",
  "function_call",
]);

/** The reason for an answer's end as the event repeats it: a word that we know, for any other text is the upstream's. */
function finishWord(reason = ""): string {
  return reason === "" || FINISH_WORDS.has(reason) ? reason : "other";
}

/** Settles an ended call: charges it or releases it, durably, and only then lets the last bytes go. */
export async function conclude(gateway: Gateway, run: Run, call: EndedCall): Promise<void> {
  const { ended } = call;
  switch (ended.how) {
    case "client_left":
      await release(gateway, call, "client_gone", { outcome: "aborted" }, call.hold.totalCostMicro);
      return countGone(gateway, run);
    case "failed":
      return concludeFailed(gateway, run, call, ended.why);
    case "whole":
      return ended.status >= 200 && ended.status < 300
        ? concludeWhole(gateway, run, call, ended.body)
        : concludeRefused(gateway, run, call, ended);
    case "stream_done":
      return concludeStream(gateway, run, call, undefined);
    case "plain_cut":
      return concludeCut(gateway, run, call, ended.bytes);
    case "stream_broke":
      return concludeStream(gateway, run, call, ended.why);
  }
}

type Broken = Extract<Ended, { how: "stream_broke" | "failed" }>["why"];

const BROKEN = {
  overloaded: {
    outcome: "unreachable",
    reason: "overloaded",
    error: { code: "overloaded", retryAfterSeconds: 1 },
  },
  connect: { outcome: "unreachable", reason: "upstream_error", error: { code: "upstream_error" } },
  reset: { outcome: "reset", reason: "upstream_error", error: { code: "upstream_error" } },
  first_byte_timeout: {
    outcome: "timed_out",
    reason: "upstream_timeout",
    error: { code: "upstream_timeout" },
  },
  idle_timeout: {
    outcome: "timed_out",
    reason: "upstream_timeout",
    error: { code: "upstream_timeout" },
  },
  garbage: { outcome: "garbage", reason: "upstream_error", error: { code: "upstream_error" } },
  upstream_error: {
    outcome: "failed",
    reason: "upstream_error",
    error: { code: "upstream_error" },
  },
  // The client has left, so its error is for nobody.
  read_on_over: { outcome: "aborted", reason: "client_gone", error: { code: "upstream_error" } },
  truncated: { outcome: "reset", reason: "upstream_error", error: { code: "upstream_error" } },
  too_large: { outcome: "garbage", reason: "upstream_error", error: { code: "upstream_error" } },
  no_room: {
    outcome: "aborted",
    reason: "overloaded",
    error: { code: "overloaded", retryAfterSeconds: 1 },
  },
  journal_sealed: {
    outcome: "aborted",
    reason: "internal_error",
    error: { code: "ledger_unavailable" },
  },
  stopping: {
    outcome: "aborted",
    reason: "stopping",
    error: { code: "overloaded", retryAfterSeconds: 1 },
  },
} as const satisfies Record<
  Broken,
  {
    outcome: Attempt["outcome"];
    reason: EventData<"RequestReleased.v1">["reason"];
    error: ApiError;
  }
>;

/**
 * Nothing of use came: nothing is charged. What the upstream may bill us all the same is booked as unbilled. Once it has
 * answered, or was waited for until the limit, a repeat could be billed again: the caller's library is told not to.
 */
async function concludeFailed(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  why: Broken,
): Promise<void> {
  const { outcome, reason, error } = BROKEN[why];
  const unbilledMicro = outcome === "unreachable" ? 0 : call.hold.totalCostMicro;
  await release(gateway, call, reason, { outcome }, unbilledMicro);
  const isFinal = call.forwarded.isAnswered() || why === "first_byte_timeout";
  answer(gateway, run, call, isFinal ? { code: error.code, doNotRetry: true } : error);
}

/** Answers with an error whoever is still there. */
function answer(gateway: Gateway, run: Run, call: EndedCall, error: ApiError): void {
  if (call.forwarded.clientGone()) countGone(gateway, run);
  else if (call.forwarded.headSent()) endWithError(gateway, run, error);
  else answerError(gateway, run, error);
}

function countGone(gateway: Gateway, run: Run): void {
  gateway.count(run, { status: 499, code: "client_gone" });
}

/** A plain answer that nobody waits for any more was cut: it is charged by what had come of it. */
async function concludeCut(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  bytes: number,
): Promise<void> {
  call.forwarded.forget();
  const unknown = { usage: undefined, servedModel: undefined, serviceTier: undefined };
  // The most of an answer with audio is its base64.
  const isAudio = call.offer.ask.bounds.hasAudioOutput;
  const seen = isAudio
    ? { visibleBytes: 0, chunks: 1, audioBytes: Math.floor((bytes * 3) / 4) }
    : { visibleBytes: bytes, chunks: 1, audioBytes: 0 };
  const cut = { ...unknown, seen, finish: "read_on_over" };
  const charge = await settle(gateway, run, call, cut, "read_on_over");
  if (charge.outcome !== "charged") countGone(gateway, run);
}

async function concludeRefused(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  refusal: Extract<Ended, { how: "whole" }>,
): Promise<void> {
  const host = gateway.parts.hosts.get(call.offer.candidates[0].host.slug);
  const { outcome, error } = refusedByUpstream(refusal, host?.credential ?? "");
  const reason = outcome === "failed" ? "upstream_error" : "upstream_refused";
  await release(gateway, call, reason, { outcome, status: refusal.status }, 0);
  answer(gateway, run, call, error);
}

async function concludeWhole(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  body: Buffer,
): Promise<void> {
  const read = readChatAnswer(body);
  if (!read.ok) {
    const why = read.kind === "error" ? "upstream_error" : "garbage";
    return concludeFailed(gateway, run, call, why);
  }
  const charge = await settle(gateway, run, call, {
    ...read,
    seen: read.usage ? NOTHING_SEEN : seenInAnswer(body),
    finish: finishWord(read.finish),
  });
  if (charge.outcome !== "charged") return answer(gateway, run, call, NOT_RECORDED);
  run.sink.head(200, {
    ...run.headers,
    "content-type": "application/json; charset=utf-8",
    "content-length": String(body.length),
    "x-relai-model": run.model,
    "x-relai-attempts": "1",
    "x-relai-cost-micro": String(charge.chargedMicro),
  });
  await call.forwarded.deliver(body);
}

async function concludeStream(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  broke: Broken | undefined,
): Promise<void> {
  const { forwarded } = call;
  const { stream } = forwarded;
  if (!stream) throw new Error("a streamed answer has a stream");
  const { facts } = stream;
  const isEmpty = !facts.usage && facts.visibleBytes === 0 && facts.audioBytes === 0;
  // Whoever left is charged for its prompt although nothing showed yet: the answer was cut because nobody reads it.
  if (broke && isEmpty && broke !== "read_on_over")
    return concludeFailed(gateway, run, call, broke);
  const finish = broke ?? finishWord(facts.finishReasons[0]);
  const charge = await settle(gateway, run, call, { ...facts, seen: facts, finish }, broke);
  if (charge.outcome !== "charged") return answer(gateway, run, call, NOT_RECORDED);
  if (broke === "read_on_over") return;
  if (broke)
    return answer(gateway, run, call, { code: BROKEN[broke].error.code, doNotRetry: true });
  if (!forwarded.headSent()) run.sink.head(200, forwarded.headers);
  run.sink.end(DONE);
}

/** An error inside a stream that has begun; without `[DONE]`, so that it cannot pass for a whole answer. */
function endWithError(gateway: Gateway, run: Run, error: ApiError): void {
  run.sink.end(`data: ${openaiErrorBody(error)}\n\n`);
  gateway.count(run, { status: 200, code: error.code });
}

async function release(
  gateway: Gateway,
  call: EndedCall,
  reason: EventData<"RequestReleased.v1">["reason"],
  attempt: Pick<Attempt, "outcome" | "status">,
  unbilledMicro: number,
): Promise<void> {
  const forwarded = attempt.outcome !== "unreachable";
  // Where no connection was free here, the upstream was not tried: nothing may count against it.
  const isTried = forwarded || reason !== "overloaded";
  await releaseHold(gateway.money, call.hold, {
    reason,
    forwarded,
    clientGone: call.forwarded.clientGone(),
    attempts: isTried ? [attemptOf(gateway, call, attempt)] : [],
    unbilledMicro,
  });
}

function attemptOf(
  gateway: Gateway,
  call: EndedCall,
  attempt: Pick<Attempt, "outcome" | "status">,
): Attempt {
  const host = call.offer.candidates[0].host.slug;
  return { host, hostKey: gateway.parts.hosts.get(host)?.hostKey ?? "", ...attempt };
}

/** Prices what was served, by what the answer says was served, and charges it. */
async function settle(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  served: Served,
  broke?: Broken,
): Promise<ChargeOutcome> {
  const { offer, hold, forwarded } = call;
  const { parts } = gateway;
  const admitted = offer.candidates[0];
  const tokens: Tokens = served.usage?.tokens ?? estimate(offer, served.seen);
  if (served.usage?.anomaly) {
    parts.telemetry.alarm("usage_parts_exceed_total", { requestId: run.requestId });
  }
  const binding = servedBinding(
    parts.catalogue,
    admitted,
    served.servedModel ?? admitted.upstreamModel,
  );
  const serviceTier = servedTier(binding.price, served.serviceTier);
  const firstByteAtMs = forwarded.firstByteAtMs() ?? forwarded.beganMs;
  const usage: UsageFacts = {
    tokens,
    binding,
    serviceTier,
    prices: pricesAt(binding.price, serviceTier, totalInput(tokens)),
    billedBy: served.usage ? "provider" : "estimate",
    clientGone: forwarded.clientGone(),
    attempts: [
      attemptOf(gateway, call, {
        outcome: broke ? BROKEN[broke].outcome : "answered",
        status: 200,
      }),
    ],
    firstByteMs: Math.round(firstByteAtMs - forwarded.beganMs),
    durationMs: Math.round(parts.clock.elapsed() - run.beganMs),
    finish: served.finish,
  };
  const charge = await chargeHold(gateway.money, hold, usage);
  // Anything else ends with an error, which is counted where it is told.
  if ((!broke || broke === "read_on_over") && charge.outcome === "charged") {
    gateway.count(run, {
      ...(usage.clientGone ? { status: 499, code: "client_gone" } : { status: 200, code: "ok" }),
      firstByteMs: firstByteAtMs - run.beganMs,
      chargedMicro: charge.chargedMicro,
      inputTokens: totalInput(tokens),
      outputTokens: (tokens.output ?? 0) + (tokens.outputAudio ?? 0),
    });
  }
  return charge;
}

function estimate({ ask, candidates, outputCapTokens }: Offer, seen: SeenOutput): Tokens {
  const { bounds } = ask;
  const { imageTokensMax = 0, contextWindowTokens } = candidates[0].model;
  const asked = {
    ...bounds,
    imageTokens: Math.min(bounds.imageCount * imageTokensMax, contextWindowTokens),
    outputCapTokens: outputCapTokens * ask.n,
  };
  return estimateTokens(asked, seen);
}
