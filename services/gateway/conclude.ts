import { pricesAt, servedBinding, servedTier } from "#domain/catalogue/lookup.ts";
import type { Attempt, EventData } from "#domain/events/schemas.ts";
import { totalInput, type Tokens } from "#domain/prices.ts";
import { openaiErrorBody, type ApiError } from "#services/errors.ts";
import { answerError, type Run } from "./run.ts";
import type { Ended, Forwarded } from "./forward.ts";
import type { Gateway } from "./gateway.ts";
import { chargeHold, type ChargeOutcome, type UsageFacts } from "./charge.ts";
import { releaseHold, type OpenHold } from "./money.ts";
import type { Offer } from "./offer.ts";
import { readChatAnswer, visibleOfAnswer } from "./openai-chat-answer.ts";
import { estimateTokens, type ReadUsage } from "./openai-chat-usage.ts";
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
  readonly visibleBytes: number;
  readonly chunks: number;
  readonly finish: string;
}

const DONE = "data: [DONE]\n\n";

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
      gateway.count(run, { status: 499, code: "client_gone" });
      return;
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
  read_on_over: { outcome: "aborted", reason: "client_gone", error: { code: "upstream_timeout" } },
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

/** Nothing of use came: nothing is charged. What the upstream may bill us all the same is booked as unbilled. */
async function concludeFailed(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  why: Broken,
): Promise<void> {
  const { outcome, reason, error } = BROKEN[why];
  const unbilledMicro = why === "connect" ? 0 : call.hold.totalCostMicro;
  await release(gateway, call, reason, { outcome }, unbilledMicro);
  answerError(gateway, run, error);
}

/** A plain answer that nobody waits for any more was cut: it is charged by what had come of it. */
async function concludeCut(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  visibleBytes: number,
): Promise<void> {
  call.forwarded.forget();
  const unknown = { usage: undefined, servedModel: undefined, serviceTier: undefined };
  const seen = { ...unknown, visibleBytes, chunks: 1, finish: "read_on_over" };
  await settle(gateway, run, call, seen, "read_on_over");
  gateway.count(run, { status: 499, code: "client_gone" });
}

async function concludeRefused(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  answer: Extract<Ended, { how: "whole" }>,
): Promise<void> {
  const host = gateway.parts.hosts.get(call.offer.candidates[0].host.slug);
  const { outcome, error } = refusedByUpstream(answer, host?.credential ?? "");
  const reason = outcome === "failed" ? "upstream_error" : "upstream_refused";
  await release(gateway, call, reason, { outcome, status: answer.status }, 0);
  answerError(gateway, run, error);
}

async function concludeWhole(
  gateway: Gateway,
  run: Run,
  call: EndedCall,
  body: Buffer,
): Promise<void> {
  const answer = readChatAnswer(body);
  if (!answer.ok)
    return concludeFailed(
      gateway,
      run,
      call,
      answer.kind === "error" ? "upstream_error" : "garbage",
    );
  const seen = answer.usage ? { visibleBytes: 0, chunks: 0 } : visibleOfAnswer(body);
  const charge = await settle(gateway, run, call, {
    ...answer,
    ...seen,
    finish: finishWord(answer.finish),
  });
  if (charge.outcome !== "charged") {
    return answerError(gateway, run, { code: "ledger_unavailable", doNotRetry: true });
  }
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
  if (broke && !facts.usage && facts.visibleBytes === 0) {
    if (!forwarded.headSent()) return concludeFailed(gateway, run, call, broke);
    const { outcome, reason, error } = BROKEN[broke];
    await release(gateway, call, reason, { outcome }, call.hold.totalCostMicro);
    return endWithError(gateway, run, error);
  }
  const finish = broke ?? finishWord(facts.finishReasons[0]);
  const charge = await settle(gateway, run, call, { ...facts, finish }, broke);
  if (charge.outcome !== "charged") {
    const error: ApiError = { code: "ledger_unavailable", doNotRetry: true };
    return forwarded.headSent()
      ? endWithError(gateway, run, error)
      : answerError(gateway, run, error);
  }
  if (broke) {
    const { error } = BROKEN[broke];
    return forwarded.headSent()
      ? endWithError(gateway, run, error)
      : answerError(gateway, run, { ...error, doNotRetry: true });
  }
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
  await releaseHold(gateway.money, call.hold, {
    reason,
    forwarded: attempt.outcome !== "unreachable",
    clientGone: call.forwarded.clientGone(),
    attempts: [attemptOf(gateway, call, attempt)],
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
  const tokens: Tokens = served.usage?.tokens ?? estimate(offer, served);
  if (served.usage?.anomaly) {
    parts.telemetry.alarm("usage_parts_exceed_total", { requestId: run.requestId });
  }
  const binding = servedBinding(
    parts.catalogue,
    admitted,
    served.servedModel ?? admitted.upstreamModel,
  );
  const serviceTier = servedTier(binding.price, served.serviceTier);
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
    firstByteMs: forwarded.firstByteMs() ?? 0,
    durationMs: Math.round(parts.clock.elapsed() - run.beganMs),
    finish: served.finish,
  };
  const charge = await chargeHold(gateway.money, hold, usage);
  // Anything else ends with an error, which is counted where it is told.
  if (!broke && charge.outcome === "charged") {
    gateway.count(run, {
      status: 200,
      code: "ok",
      firstByteMs: usage.firstByteMs,
      chargedMicro: charge.chargedMicro,
      inputTokens: totalInput(tokens),
      outputTokens: (tokens.output ?? 0) + (tokens.outputAudio ?? 0),
    });
  }
  return charge;
}

function estimate(offer: Offer, served: Served): Tokens {
  return estimateTokens({
    visibleBytes: served.visibleBytes,
    chunks: served.chunks,
    promptBytes: offer.ask.bounds.promptBytes,
    outputCapTokens: offer.outputCapTokens * offer.ask.n,
  });
}
