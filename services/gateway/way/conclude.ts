import type { Attempt, EventData } from "#domain/events/schemas.ts";
import type { ApiError } from "#services/errors.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import { releaseHold } from "#services/gateway/money/hold.ts";
import type { Said } from "#services/gateway/shapes/shape.ts";
import type { Answer } from "./answer.ts";
import type { Admitted, Tried } from "./attempt.ts";
import { BROKEN, type Broken } from "./endings.ts";
import type { Ended } from "./forward.ts";
import { settle, type Served } from "./settle.ts";
import { refusedByUpstream } from "./upstream-refusals.ts";

/** An admitted request, the call that ended it, and the calls before that came to nothing. */
export interface Conclusion {
  readonly gateway: Gateway;
  readonly answer: Answer;
  readonly admitted: Admitted;
  readonly tried: Tried;
  readonly before: readonly Attempt[];
}

const NOTHING_SAID: Said = { usage: undefined, servedModel: undefined, serviceTier: undefined };
const NOT_RECORDED: ApiError = { code: "ledger_unavailable", doNotRetry: true };

/** Settles a request whose last call has ended: charges or releases it, durably, and only then lets the last bytes go. */
export async function conclude(call: Conclusion): Promise<void> {
  const { ended } = call.tried;
  switch (ended.how) {
    case "client_left": {
      const { totalCostMicro } = call.admitted.hold;
      await release(call, "client_gone", { outcome: "aborted" }, totalCostMicro);
      return call.answer.count({ status: 499, code: "client_gone" });
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

async function concludeRefused(
  call: Conclusion,
  refusal: Extract<Ended, { how: "whole" }>,
): Promise<void> {
  const { outcome, error } = refusedByUpstream(refusal, call.tried.credential);
  const reason = outcome === "failed" ? "upstream_error" : "upstream_refused";
  await release(call, reason, { outcome, status: refusal.status }, 0);
  call.answer.fail(error);
}

async function concludeWhole(call: Conclusion, body: Buffer): Promise<void> {
  const { shape, offer } = call.admitted;
  const read = shape.readAnswer(body, offer.ask);
  if (!read.ok) return concludeFailed(call, read.kind === "error" ? "upstream_error" : "garbage");
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

/** Charges what was served. Undefined when it is not on record in time: the caller has then had its error. */
async function charge(
  call: Conclusion,
  served: Served,
  broke?: Broken,
): Promise<number | undefined> {
  const { gateway, answer, admitted, tried } = call;
  const outcome = broke ? BROKEN[broke].outcome : "answered";
  const attempts = attemptsOf(call, { outcome, status: 200 });
  const settled = await settle(gateway, answer, admitted, tried, attempts, served);
  if (settled.outcome === "charged") return settled.chargedMicro;
  answer.fail(NOT_RECORDED);
  return undefined;
}

async function release(
  call: Conclusion,
  reason: EventData<"RequestReleased.v1">["reason"],
  last: Pick<Attempt, "outcome" | "status">,
  unbilledMicro: number,
): Promise<void> {
  const { gateway, answer, admitted, before } = call;
  const forwarded = last.outcome !== "unreachable";
  // Where no connection was free here, the upstream was not tried: nothing may count against it.
  const isTried = forwarded || reason !== "overloaded";
  await releaseHold(gateway.money, admitted.hold, {
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
