import type { Binding } from "#domain/catalogue/types.ts";
import type { Attempt } from "#domain/events/schemas.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import type { Body } from "#services/gateway/http/body.ts";
import { createPieces } from "#services/gateway/http/collect.ts";
import type { OpenHold } from "#services/gateway/money/hold.ts";
import type { Offer } from "#services/gateway/money/offer.ts";
import type { WriterLife } from "#services/gateway/money/writer.ts";
import type { AnswerFault, AnswerStream, Shape } from "#services/gateway/shapes/shape.ts";
import type { UpstreamCall, UpstreamExchange, UpstreamFailure } from "#services/ports.ts";
import type { Answer } from "./answer.ts";
import { traceCall } from "./traced.ts";

/** An admitted request, and all that is needed to call an upstream for it. */
export interface Admitted {
  readonly shape: Shape;
  readonly offer: Offer;
  readonly hold: OpenHold;
  readonly life: WriterLife;
  readonly body: Body;
}

/** One call of an upstream, which has ended. */
export interface Tried {
  readonly binding: Binding;
  /** Whom it went to, as the event names it. */
  readonly to: Pick<Attempt, "host" | "hostKey">;
  /** The credential it went with, which may not be repeated to anybody. */
  readonly credential: string;
  readonly stream: AnswerStream | undefined;
  readonly forwarded: Forwarded;
  readonly ended: Ended;
}

/** `journal_sealed` and `stopping`: the call was cut from outside. */
type Broke = UpstreamFailure | "too_large" | "no_room" | "journal_sealed" | "stopping";
/** Why an answer came to no proper end. `read_on_over`: its client had left. */
export type Broken = Broke | AnswerFault | "truncated" | "read_on_over";

/** A whole body: of a plain answer, or of any status that is not a success. */
export interface WholeBody {
  readonly status: number;
  readonly retryAfter: string | undefined;
  readonly body: Buffer;
}

/** How a call to the upstream ended. */
export type Ended =
  | ({ readonly how: "whole" } & WholeBody)
  /** A stream that came to its proper end, or ended cleanly when nothing else was missing. */
  | { readonly how: "stream_done" }
  /** A stream that broke: what was relayed was relayed, and must not look finished. */
  | { readonly how: "stream_broke"; readonly why: Broken }
  /** A plain answer whose client had left, cut from this side: so many bytes of its body had come. */
  | { readonly how: "plain_cut"; readonly bytes: number }
  /** A plain answer, or anything before the first byte, that broke. */
  | { readonly how: "failed"; readonly why: Broke }
  /** The client left before the first byte; the upstream was told. */
  | { readonly how: "client_left" };

/** What is known of a call while it runs. */
export type Forwarded = ReturnType<typeof forward>;

const REFUSAL_BYTES_MAX = 64 * 1024;

/**
 * Calls one candidate for an admitted request and comes back when that has ended. Behind the last one the body's bytes
 * are of no more use, and are kept no longer than their call needs them.
 */
export async function attempt(
  gateway: Gateway,
  answer: Answer,
  { shape, offer, hold, life, body }: Admitted,
  binding: Binding,
  isLast: boolean,
): Promise<Tried> {
  const { ask, outputCapTokens } = offer;
  const { upstreamModel, outputCapName } = binding;
  const { slug, pinsServiceTier } = binding.host;
  const endpoint = gateway.parts.hosts.get(slug);
  if (!endpoint) throw new Error(`host ${slug} is in the catalogue but has no endpoint`);
  const { baseUrl, credential, hostKey } = endpoint;
  const stream = ask.stream ? shape.openStream(ask) : undefined;
  const names = { upstreamModel, outputCapName, outputCapTokens, pinsServiceTier };
  // The call has no name here: its body would be kept with it until the answer has come.
  const forwarded = forward(gateway, answer, stream, body.give, {
    requestId: answer.requestId,
    orgId: hold.ask.orgId,
    baseUrl,
    path: shape.path,
    headers: {
      ...shape.credentialHeaders(credential),
      "content-type": "application/json",
      accept: ask.stream ? "text/event-stream" : "application/json",
      "x-client-request-id": answer.requestId,
    },
    body: shape.upstreamBody(isLast ? body.take() : body.bytes(), ask, names),
  });
  const ended = await gateway.whileRunning(life, forwarded);
  if (answer.calls) {
    const cap = shape.operation === "chat" ? outputCapTokens : undefined;
    const { operation } = shape;
    const called = { operation, host: slug, baseUrl, model: upstreamModel, isStream: ask.stream };
    const nowMs = gateway.parts.clock.elapsed();
    traceCall(answer, { ...called, outputCapTokens: cap }, forwarded, ended, nowMs);
  }
  return { binding, to: { host: slug, hostKey }, credential, stream, forwarded, ended };
}

/**
 * Calls the upstream, reads its answer, and says how it ended; what streams is relayed as it comes. Before a success's
 * first byte nothing goes to the client, so that a refusal keeps its status. The client leaving ends a call that has not
 * answered yet; one that has is read on to its end, because it will be billed: within limits of time and bytes, and as
 * long as there is a place for it. `stream` reads a streamed success; `sent` is called when the upstream has the whole
 * request.
 */
function forward(
  gateway: Gateway,
  answer: Answer,
  stream: AnswerStream | undefined,
  sent: () => void,
  call: UpstreamCall,
) {
  // `call` is in no closure below, so that the request's body is not kept while it is answered.
  const { clock, limits, upstream } = gateway.parts;
  const { orgId } = call;
  const inFlight = gateway.inFlight.answersOf(orgId);
  const beganMs = clock.elapsed();
  const pieces = createPieces();
  let status = 0;
  let retryAfter: string | undefined;
  /** What this answer has taken of the room for bodies. */
  let bytes = 0;
  let bytesSinceGone = 0;
  let firstByteAtMs: number | undefined;
  let paused = false;
  let over = false;
  let endReadOn = () => {};
  const { promise: ended, resolve: settle } = Promise.withResolvers<Ended>();

  /** The upstream has answered with a success: from here on the call may be billed. */
  const isAnswered = () => status >= 200 && status < 300;
  const isStream = () => stream !== undefined && isAnswered();

  function finish(result: Ended, abort: boolean): void {
    if (over) return;
    over = true;
    endReadOn();
    if (abort) exchange.abort();
    // What may still come is not for the client, so it does not wait for the client; else the connection were lost.
    else if (paused) exchange.resume();
    settle(result);
  }

  function broke(why: Broke, abort: boolean): void {
    if (isStream() && firstByteAtMs !== undefined) finish({ how: "stream_broke", why }, abort);
    // The status of a refusal says enough, however much of its body came.
    else if (status !== 0 && !isAnswered()) whole(abort);
    else finish({ how: "failed", why }, abort);
  }

  function whole(abort: boolean): void {
    finish({ how: "whole", status, retryAfter, body: pieces.take() }, abort);
  }

  /** Nobody reads the answer, and it is not read on any further: what has come is what will be known of it. */
  function readOnOver(): void {
    if (isStream()) finish({ how: "stream_broke", why: "read_on_over" }, true);
    else if (isAnswered()) finish({ how: "plain_cut", bytes }, true);
    else whole(true);
  }

  /** Ends the call from this side. What a client that has left would have got is then charged by what had come of it. */
  function cut(why: Broke): void {
    if (answer.isGone() && firstByteAtMs !== undefined) readOnOver();
    else broke(why, true);
  }

  function clientLeft(): void {
    if (over) return;
    if (firstByteAtMs === undefined) return finish({ how: "client_left" }, true);
    const giveBack = gateway.readOns.begin(orgId);
    if (!giveBack) return readOnOver();
    const cancel = clock.timer(limits.readOnMs, readOnOver);
    endReadOn = () => {
      cancel();
      giveBack();
    };
    if (paused) resume();
  }

  function resume(): void {
    paused = false;
    if (!over) exchange.resume();
  }

  /** Bytes of a streamed success: filtered, relayed, with the end held back. */
  function streamed(piece: Uint8Array, filter: AnswerStream): boolean {
    const { out, failed } = filter.push(piece);
    const goOn = out === undefined || out.length === 0 || answer.relay(out);
    if (!goOn) paused = true;
    if (!makeRoom(filter.heldBytes)) cut("no_room");
    else if (failed) finish({ how: "stream_broke", why: failed }, true);
    // What may follow the proper end is of no use to anybody; the connection is left to end by itself and be used again.
    else if (filter.done) finish({ how: "stream_done" }, false);
    return goOn || over;
  }

  /** Sets what this answer takes of the room; false when there is not so much. */
  function makeRoom(bytesNow: number): boolean {
    if (bytesNow > bytes && !inFlight.take(bytesNow - bytes, bytesNow)) return false;
    if (bytesNow < bytes) inFlight.give(bytes - bytesNow);
    bytes = bytesNow;
    return true;
  }

  /** Bytes that are kept until the body is whole. Of a refusal the first ones are enough. */
  function kept(piece: Uint8Array): boolean {
    const most = isAnswered() ? limits.answerBytesMax : REFUSAL_BYTES_MAX;
    const isTooLarge = bytes + piece.length > most;
    if (!isTooLarge && makeRoom(bytes + piece.length)) pieces.add(piece);
    else cut(isTooLarge ? "too_large" : "no_room");
    return true;
  }

  /** Gives back the room of a body that was kept; after this the body is not used any more. */
  function forget(): void {
    makeRoom(0);
    pieces.clear();
  }

  answer.listen({ drained: () => paused && resume(), gone: clientLeft });
  const exchange: UpstreamExchange = upstream.send(call, {
    head(answered, headers) {
      status = answered;
      retryAfter = headers["retry-after"];
      sent();
    },
    data(piece) {
      if (over) return true;
      firstByteAtMs ??= clock.elapsed();
      if (answer.isGone()) {
        bytesSinceGone += piece.length;
        if (bytesSinceGone > limits.readOnBytesMax) readOnOver();
      }
      if (over) return true;
      return stream && isStream() ? streamed(piece, stream) : kept(piece);
    },
    end() {
      if (!stream || !isStream()) return whole(false);
      const { out, failed } = stream.end();
      if (out !== undefined && out.length > 0) answer.relay(out);
      if (failed) finish({ how: "stream_broke", why: failed }, false);
      else if (stream.done || stream.isComplete) finish({ how: "stream_done" }, false);
      else finish({ how: "stream_broke", why: "truncated" }, false);
    },
    failed: (failure) => broke(failure, false),
  });
  if (answer.isGone()) clientLeft();
  // `beganMs` and `firstByteAtMs`, which is undefined while no byte of the body has come, are on the monotonic clock.
  // `status` is 0 while there is none.
  const known = { status: () => status, firstByteAtMs: () => firstByteAtMs, isAnswered };
  return { ended, beganMs, ...known, cut, forget };
}
