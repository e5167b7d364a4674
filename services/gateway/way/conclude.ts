import { pricesAt, servedBinding, servedTier } from "#domain/catalogue/lookup.ts";
import type { Binding } from "#domain/catalogue/types.ts";
import type { Attempt, EventData } from "#domain/events/schemas.ts";
import { totalInput, totalOutput, type Tokens } from "#domain/prices.ts";
import type { ApiError } from "#services/errors.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import { chargeHold } from "#services/gateway/money/charge.ts";
import { releaseHold } from "#services/gateway/money/hold.ts";
import type { Offer } from "#services/gateway/money/offer.ts";
import { estimateTokens, type SeenOutput } from "#services/gateway/shapes/estimate.ts";
import type { Said, WholeAnswer } from "#services/gateway/shapes/shape.ts";
import type { Answer } from "./answer.ts";
import type { Admitted, Broken, Tried, WholeBody } from "./forward.ts";
import { traceFault, traceSaid } from "./traced.ts";
import { refusedByUpstream } from "./upstream-refusals.ts";

/** An admitted request, the call that ended it, and the calls before that came to nothing. */
export interface Conclusion {
  readonly gateway: Gateway;
  readonly answer: Answer;
  readonly admitted: Admitted;
  readonly tried: Tried;
  readonly before: readonly Attempt[];
}

/** What an answer came to. */
interface Served extends Omit<WholeAnswer, "body"> {
  /** It came to its end; or its client had left, and nobody is to be told of an error. */
  readonly isTold: boolean;
}

/** What each of them is in the event's attempt, as the reason of a release, and to the caller. */
interface Ending {
  readonly outcome: Attempt["outcome"];
  readonly reason: EventData<"RequestReleased.v1">["reason"];
  readonly error: ApiError;
}

const UPSTREAM_ERROR = { reason: "upstream_error", error: { code: "upstream_error" } } as const;
const TIME_OUT: Ending = {
  outcome: "timed_out",
  reason: "upstream_timeout",
  error: { code: "upstream_timeout" },
};
const OVERLOADED = { code: "overloaded", retryAfterSeconds: 1 } as const;

export const BROKEN: Readonly<Record<Broken, Ending>> = {
  overloaded: { outcome: "unreachable", reason: "overloaded", error: OVERLOADED },
  connect: { outcome: "unreachable", ...UPSTREAM_ERROR },
  reset: { outcome: "reset", ...UPSTREAM_ERROR },
  first_byte_timeout: TIME_OUT,
  idle_timeout: TIME_OUT,
  garbage: { outcome: "garbage", ...UPSTREAM_ERROR },
  upstream_error: { outcome: "failed", ...UPSTREAM_ERROR },
  // The client has left, so its error is for nobody.
  read_on_over: { outcome: "aborted", reason: "client_gone", error: UPSTREAM_ERROR.error },
  truncated: { outcome: "reset", ...UPSTREAM_ERROR },
  too_large: { outcome: "garbage", ...UPSTREAM_ERROR },
  no_room: { outcome: "aborted", reason: "overloaded", error: OVERLOADED },
  journal_sealed: {
    outcome: "aborted",
    reason: "internal_error",
    error: { code: "ledger_unavailable", retryAfterSeconds: 1 },
  },
  stopping: { outcome: "aborted", reason: "stopping", error: OVERLOADED },
};

/** How a request is counted whose client has left. */
export const GONE = { status: 499, code: "client_gone" } as const;

const NOTHING_SAID: Said = { usage: undefined, servedModel: undefined, serviceTier: undefined };
const NOT_RECORDED: ApiError = { code: "ledger_unavailable", doNotRetry: true };

/** Settles a request whose last call has ended: charges or releases it, durably, and only then lets the last bytes go. */
export async function conclude(call: Conclusion): Promise<void> {
  const { ended } = call.tried;
  switch (ended.how) {
    case "client_left": {
      const { totalCostMicro } = call.admitted.hold;
      await release(call, "client_gone", { outcome: "aborted" }, totalCostMicro);
      return call.answer.count(GONE);
    }
    case "failed":
      return concludeFailed(call, ended.why);
    case "whole":
      return ended.status >= 200 && ended.status < 300
        ? concludeWhole(call, ended.body)
        : concludeRefused(call, ended);
    case "stream_done":
      return concludeStream(call, undefined);
    case "plain_cut":
      return concludeCut(call, ended.bytes);
    case "stream_broke":
      return concludeStream(call, ended.why);
  }
}

/**
 * Nothing of use came: nothing is charged. What the upstream may bill us all the same is booked as unbilled. Once it has
 * answered, or was waited for until the limit, a repeat could be billed again: the caller's library is told not to.
 */
async function concludeFailed(call: Conclusion, why: Broken): Promise<void> {
  const { outcome, reason, error } = BROKEN[why];
  const { hold } = call.admitted;
  await release(call, reason, { outcome }, outcome === "unreachable" ? 0 : hold.totalCostMicro);
  const isFinal = call.tried.forwarded.isAnswered() || why === "first_byte_timeout";
  call.answer.fail(isFinal ? { code: error.code, doNotRetry: true } : error);
}

/** A plain answer that nobody waits for any more was cut: it is charged by what had come of it. */
async function concludeCut(call: Conclusion, bytes: number): Promise<void> {
  call.tried.forwarded.forget();
  // The most of an answer with audio is its base64.
  const isAudio = call.admitted.offer.ask.bounds.hasAudioOutput;
  const seen = isAudio
    ? { visibleBytes: 0, chunks: 1, audioBytes: Math.floor((bytes * 3) / 4) }
    : { visibleBytes: bytes, chunks: 1, audioBytes: 0 };
  const finish = "read_on_over";
  await charge(call, { ...NOTHING_SAID, seen: () => seen, finish, isTold: true }, finish);
}

async function concludeRefused(call: Conclusion, refusal: WholeBody): Promise<void> {
  const { errors } = call.admitted.shape;
  const { outcome, error } = refusedByUpstream(errors, refusal, call.tried.credential);
  const reason = outcome === "failed" ? "upstream_error" : "upstream_refused";
  await release(call, reason, { outcome, status: refusal.status }, 0);
  call.answer.fail(error);
}

async function concludeWhole(call: Conclusion, body: Buffer): Promise<void> {
  const { shape, offer } = call.admitted;
  const read = shape.readAnswer(body, offer.ask);
  if (typeof read === "string") {
    if (call.answer.calls) traceFault(call.answer, read);
    return concludeFailed(call, read);
  }
  const chargedMicro = await charge(call, { ...read, isTold: true });
  if (chargedMicro === undefined) return;
  await call.answer.deliver(read.body, {
    "x-relai-model": call.answer.model,
    "x-relai-attempts": String(call.answer.attempts),
    "x-relai-cost-micro": String(chargedMicro),
  });
}

async function concludeStream(call: Conclusion, broke: Broken | undefined): Promise<void> {
  const { stream } = call.tried;
  if (!stream) throw new Error("a streamed answer has a stream");
  const { said } = stream;
  const isEmpty = !said.usage && said.visibleBytes === 0 && said.audioBytes === 0;
  const isLeft = broke === "read_on_over";
  // Whoever left is charged for its prompt although nothing showed yet: the answer was cut because nobody reads it.
  if (broke && isEmpty && !isLeft) return concludeFailed(call, broke);
  const finish = broke ?? stream.finish();
  const isTold = broke === undefined || isLeft;
  const chargedMicro = await charge(call, { ...said, seen: () => said, finish, isTold }, broke);
  if (chargedMicro === undefined || isLeft) return;
  if (broke) call.answer.fail({ code: BROKEN[broke].error.code, doNotRetry: true });
  else call.answer.endStream(stream.terminator);
}

/**
 * Prices what was served, by what the answer says was served, and charges it. Undefined when it is not on record in time:
 * the caller has then had its error. An answer that is told to its client is counted here; one that ends with an error
 * is counted where that is told.
 */
async function charge(
  call: Conclusion,
  served: Served,
  broke?: Broken,
): Promise<number | undefined> {
  const { gateway, answer } = call;
  const { offer, hold } = call.admitted;
  const { binding: called, forwarded } = call.tried;
  const { catalogue, clock, telemetry } = gateway.parts;
  if (answer.calls) traceSaid(answer, catalogue, served);
  const tokens = served.usage?.tokens ?? estimate(offer, called, served.seen());
  if (served.usage?.anomaly)
    telemetry.alarm("usage_parts_exceed_total", { requestId: answer.requestId });
  const binding = servedBinding(catalogue, called, served.servedModel ?? called.upstreamModel);
  const serviceTier = servedTier(binding.price, served.serviceTier);
  const firstByteAtMs = forwarded.firstByteAtMs() ?? forwarded.beganMs;
  const clientGone = answer.isGone();
  const outcome = broke ? BROKEN[broke].outcome : "answered";
  const chargedMicro = await chargeHold(hold, {
    tokens,
    binding,
    serviceTier,
    prices: pricesAt(binding.price, serviceTier, totalInput(tokens)),
    billedBy: served.usage ? "provider" : "estimate",
    call: {
      clientGone,
      attempts: attemptsOf(call, { outcome, status: 200 }),
      firstByteMs: Math.round(firstByteAtMs - forwarded.beganMs),
      durationMs: Math.round(clock.elapsed() - answer.beganMs),
      finish: served.finish,
    },
  });
  if (chargedMicro === undefined) {
    answer.fail(NOT_RECORDED);
  } else if (served.isTold) {
    answer.count({
      ...(clientGone ? GONE : { status: 200, code: "ok" }),
      firstByteMs: firstByteAtMs - answer.beganMs,
      chargedMicro,
      inputTokens: totalInput(tokens),
      outputTokens: totalOutput(tokens),
    });
  }
  return chargedMicro;
}

function estimate({ ask, outputCapTokens }: Offer, { model }: Binding, seen: SeenOutput): Tokens {
  const { bounds, n } = ask;
  const { imageTokensMax = 0, contextWindowTokens } = model;
  const imageTokens = Math.min(bounds.imageCount * imageTokensMax, contextWindowTokens);
  return estimateTokens({ ...bounds, imageTokens, outputCapTokens: outputCapTokens * n }, seen);
}

async function release(
  call: Conclusion,
  reason: EventData<"RequestReleased.v1">["reason"],
  last: Pick<Attempt, "outcome" | "status">,
  unbilledMicro: number,
): Promise<void> {
  const { answer, admitted, before } = call;
  const forwarded = last.outcome !== "unreachable";
  // Where no connection was free here, the upstream was not tried: nothing may count against it.
  const isTried = forwarded || reason !== "overloaded";
  await releaseHold(admitted.hold, {
    reason,
    forwarded,
    clientGone: answer.isGone(),
    attempts: isTried ? attemptsOf(call, last) : [...before],
    unbilledMicro,
  });
}

function attemptsOf(call: Conclusion, last: Pick<Attempt, "outcome" | "status">): Attempt[] {
  return [...call.before, { ...call.tried.to, ...last }];
}
