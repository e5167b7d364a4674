import type {
  Clock,
  Upstream,
  UpstreamCall,
  UpstreamExchange,
  UpstreamFailure,
} from "#services/ports.ts";
import type { InFlight } from "#services/gateway/http/in-flight.ts";
import { createChatStream, type ChatStream } from "#services/gateway/shapes/openai-chat/stream.ts";
import { createPieces } from "#services/gateway/http/collect.ts";
import type { GatewayLimits, Sink } from "#services/gateway/parts.ts";

/** Why a call was ended from this side. */
export type CutReason = "journal_sealed" | "stopping";

type Broke = UpstreamFailure | "too_large" | "no_room" | CutReason;

/** How a call to the upstream ended. `firstByte` says whether a byte of the answer's body had come. */
export type Ended =
  /** A whole body: of a plain answer, or of any status that is not a success. */
  | {
      readonly how: "whole";
      readonly status: number;
      readonly retryAfter: string | undefined;
      readonly body: Buffer;
    }
  /** A stream that came to its `[DONE]`, or ended cleanly after every choice had finished. */
  | { readonly how: "stream_done" }
  /** A stream that broke: what was relayed was relayed, and must not look finished. `read_on_over`: its client had left. */
  | {
      readonly how: "stream_broke";
      readonly why: Broke | "garbage" | "upstream_error" | "truncated" | "read_on_over";
    }
  /** A plain answer whose client had left, cut from this side: so many bytes of its body had come. */
  | { readonly how: "plain_cut"; readonly bytes: number }
  /** A plain answer, or anything before the first byte, that broke. */
  | { readonly how: "failed"; readonly why: Broke }
  /** The client left before the first byte; the upstream was told. */
  | { readonly how: "client_left" };

/** What is known of a call while it runs. */
export interface Forwarded {
  readonly ended: Promise<Ended>;
  /** Undefined for a plain answer. */
  readonly stream: ChatStream | undefined;
  /** The head of a streamed answer; empty for a plain one. */
  readonly headers: Readonly<Record<string, string>>;
  /** When the first byte of the body came, on the monotonic clock; undefined while there is none. */
  firstByteAtMs(): number | undefined;
  /** When the upstream was called, on the same clock. */
  readonly beganMs: number;
  /** The upstream has answered with a success: from here on the call may be billed. */
  isAnswered(): boolean;
  clientGone(): boolean;
  /** The head has gone to the client, so an error can only go into the stream. */
  headSent(): boolean;
  /** Ends the call from this side. */
  cut(reason: CutReason): void;
  /**
   * Sends a whole body behind a head that was sent, and ends the answer. Comes back when the client has taken it or
   * has left; one that takes nothing for the limit is left.
   */
  deliver(body: Uint8Array): Promise<void>;
  /** Gives back the room of a body that was kept; after this the body is not used any more. */
  forget(): void;
}

export interface ForwardOptions {
  readonly upstream: Upstream;
  readonly clock: Clock;
  readonly limits: GatewayLimits;
  readonly inFlight: InFlight;
  readonly call: UpstreamCall;
  readonly sink: Sink;
  /** Set for a streamed answer: its head, and whether its usage is for the client's eyes. */
  readonly streaming:
    | { readonly includeUsageAsked: boolean; readonly headers: Record<string, string> }
    | undefined;
  /** Called when the upstream has the whole request. */
  readonly sent: () => void;
  /**
   * Takes a place among the answers that are read on although their client has left; undefined when every place is
   * taken. What it gives is called once, to give the place back.
   */
  readonly readOn: () => (() => void) | undefined;
}

const KEEP_ALIVE_MS = 15_000;
const REFUSAL_BYTES_MAX = 64 * 1024;
/** A body is delivered in pieces of this size, so that a slow client is seen to take some. */
const DELIVERED_BYTES = 64 * 1024;

/**
 * Calls the upstream and relays its answer. Before a success's first byte nothing goes to the client, so that a
 * refusal keeps its status. The client leaving ends a call that has not answered yet; one that has is read on to its
 * end, because it will be billed: within limits of time and bytes, and as long as there is a place for it.
 */
export function forward(options: ForwardOptions): Forwarded {
  // `options` and the call itself are in no closure below, so that the request's body is not kept while it is answered.
  const { upstream, clock, limits, inFlight, sink, streaming, sent, readOn } = options;
  const beganMs = clock.elapsed();
  const stream = streaming && createChatStream(streaming);
  const pieces = createPieces();
  let status = 0;
  let retryAfter: string | undefined;
  /** What this answer has taken of the room for bodies. */
  let bytes = 0;
  let bytesSinceGone = 0;
  let firstByteAtMs: number | undefined;
  let headSent = false;
  let paused = false;
  let over = false;
  let lastWriteAt = beganMs;
  let endReadOn = () => {};
  let cancelStall = () => {};
  let cancelKeepAlive = () => {};
  let settle: (ended: Ended) => void = () => {};
  const ended = new Promise<Ended>((resolve) => {
    settle = resolve;
  });

  const isAnswered = () => status >= 200 && status < 300;
  const isStream = () => stream !== undefined && isAnswered();

  function finish(result: Ended, abort: boolean): void {
    if (over) return;
    over = true;
    endReadOn();
    cancelStall();
    cancelKeepAlive();
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
    if (sink.isGone() && firstByteAtMs !== undefined) readOnOver();
    else broke(why, true);
  }

  function clientLeft(): void {
    if (over) return;
    cancelStall();
    if (firstByteAtMs === undefined) return finish({ how: "client_left" }, true);
    const giveBack = readOn();
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
    cancelStall();
    if (!over) exchange.resume();
  }

  /** A client that takes nothing is waited for, but not for ever. */
  function pause(): false {
    // More may come after the upstream was asked to wait; the client's time runs from the first time.
    if (paused) return false;
    paused = true;
    cancelStall = clock.timer(limits.clientIdleMs, () => sink.destroy());
    return false;
  }

  function armKeepAlive(delayMs: number): void {
    cancelKeepAlive = clock.timer(delayMs, () => {
      const leftMs = KEEP_ALIVE_MS - (clock.elapsed() - lastWriteAt);
      if (leftMs > 0) return armKeepAlive(leftMs);
      lastWriteAt = clock.elapsed();
      if (!paused && !sink.isGone()) sink.write(": keepalive\n\n");
      armKeepAlive(KEEP_ALIVE_MS);
    });
  }

  function relay(out: Uint8Array): boolean {
    if (sink.isGone()) return true;
    if (!headSent && streaming) {
      headSent = true;
      sink.head(200, streaming.headers);
      armKeepAlive(KEEP_ALIVE_MS);
    }
    lastWriteAt = clock.elapsed();
    return sink.write(out) || pause();
  }

  /** Bytes of a streamed success: filtered, relayed, with the end held back. */
  function streamed(piece: Uint8Array, filter: ChatStream): boolean {
    const { out, failed } = filter.push(piece);
    const goOn = out === undefined || out.length === 0 || relay(out);
    if (!makeRoom(filter.heldBytes)) cut("no_room");
    else if (failed) finish({ how: "stream_broke", why: failed }, true);
    // What may follow [DONE] is of no use to anybody; the connection is left to end by itself and be used again.
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

  function forget(): void {
    makeRoom(0);
    pieces.clear();
  }

  function deliver(body: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      let at = 0;
      function through(): void {
        cancelStall();
        sink.end();
        resolve();
      }
      function goOn(): void {
        cancelStall();
        while (at < body.length && !sink.isGone()) {
          const piece = body.subarray(at, at + DELIVERED_BYTES);
          at += piece.length;
          if (sink.write(piece)) continue;
          cancelStall = clock.timer(limits.clientIdleMs, () => {
            sink.destroy();
            resolve();
          });
          return;
        }
        through();
      }
      sink.listen({ drained: goOn, gone: through });
      goOn();
    });
  }

  sink.listen({ drained: () => paused && resume(), gone: clientLeft });
  const exchange: UpstreamExchange = upstream.send(options.call, {
    head(answered, headers) {
      status = answered;
      retryAfter = headers["retry-after"];
      sent();
    },
    data(piece) {
      if (over) return true;
      firstByteAtMs ??= clock.elapsed();
      if (sink.isGone()) {
        bytesSinceGone += piece.length;
        if (bytesSinceGone > limits.readOnBytesMax) readOnOver();
      }
      if (over) return true;
      return stream && isStream() ? streamed(piece, stream) : kept(piece);
    },
    end() {
      if (!stream || !isStream()) return whole(false);
      const { out, failed } = stream.end();
      if (out !== undefined && out.length > 0) relay(out);
      if (failed) finish({ how: "stream_broke", why: failed }, false);
      else if (stream.done || stream.everyChoiceFinished) finish({ how: "stream_done" }, false);
      else finish({ how: "stream_broke", why: "truncated" }, false);
    },
    failed: (failure) => broke(failure, false),
  });
  if (sink.isGone()) clientLeft();
  return {
    ended,
    stream,
    headers: streaming?.headers ?? {},
    beganMs,
    firstByteAtMs: () => firstByteAtMs,
    isAnswered,
    clientGone: () => sink.isGone(),
    headSent: () => headSent,
    cut,
    deliver,
    forget,
  };
}
