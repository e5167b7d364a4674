import { ID_RANDOM_BYTES, makeId } from "#domain/ids.ts";
import { errorHeaders, statusOf, type ApiError } from "#services/errors.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import type { Caller } from "#services/gateway/http/authenticate.ts";
import type { GatewayRequest, Handle, Sink } from "#services/gateway/parts.ts";
import type { CallTrace, Telemetry } from "#services/ports.ts";
import type { ErrorShape } from "#services/gateway/shapes/shape.ts";

const CLIENT_REQUEST_ID_MAX = 256;
const KEEP_ALIVE_MS = 15_000;
const KEEP_ALIVE = ": keepalive\n\n";
/** A body is delivered in pieces of this size, so that a slow client is seen to take some. */
const DELIVERED_BYTES = 64 * 1024;
const JSON_TYPE = "application/json; charset=utf-8";

type Done = Parameters<Telemetry["requestDone"]>[0];
/** What a request came to, for the metrics. */
type Counted = Pick<Done, "status" | "code"> & Partial<Done>;

/**
 * The answer to one request: its head, its bytes, and how it is counted. Nobody else writes to the client. A head goes out
 * once; what fails before it has a status of its own, what fails behind it ends the stream as broken.
 */
export type Answer = ReturnType<typeof openAnswer>;

/** Gives a request its id, and an answer. The id is always ours; the caller's own is echoed. */
function openAnswer(
  gateway: Gateway,
  route: string,
  request: GatewayRequest,
  sink: Sink,
  errors: ErrorShape,
) {
  const { clock, random, region, limits, telemetry } = gateway.parts;
  const beganAt = clock.now();
  const requestId = makeId("req", beganAt, random.bytes(ID_RANDOM_BYTES));
  const clientRequestId = clientRequestIdOf(request);
  const headers: Record<string, string> = {
    "x-request-id": requestId,
    "x-relai-region": region,
    ...(clientRequestId === undefined ? {} : { "x-client-request-id": clientRequestId }),
  };
  let told = { drained: () => {}, gone: () => {} };
  /** What a trace says of a request that is broken off, with nothing counted. */
  let counted: Counted = { status: 500, code: "internal_error" };
  let hasHead = false;
  let lastWriteMs = 0;
  let isWaiting = false;
  let cancelStall = () => {};
  let cancelKeepAlive = () => {};
  sink.listen({
    drained() {
      isWaiting = false;
      cancelStall();
      told.drained();
    },
    gone() {
      rest();
      told.gone();
    },
  });

  function rest(): void {
    cancelStall();
    cancelKeepAlive();
  }

  function head(status: number, more: Readonly<Record<string, string>>): void {
    hasHead = true;
    sink.head(status, { ...headers, ...more });
  }

  function streamHead(): void {
    head(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "x-accel-buffering": "no",
      "x-relai-model": answer.model,
      "x-relai-attempts": String(answer.attempts),
    });
  }

  function armKeepAlive(delayMs: number): void {
    cancelKeepAlive = clock.timer(delayMs, () => {
      const leftMs = KEEP_ALIVE_MS - (clock.elapsed() - lastWriteMs);
      if (leftMs > 0) return armKeepAlive(leftMs);
      lastWriteMs = clock.elapsed();
      if (!isWaiting) sink.write(KEEP_ALIVE);
      armKeepAlive(KEEP_ALIVE_MS);
    });
  }

  /** A client that takes nothing is waited for, but not for ever. */
  function wait(): false {
    // More may come after the upstream was asked to wait; the client's time runs from the first time.
    if (!isWaiting) cancelStall = clock.timer(limits.clientIdleMs, () => sink.destroy());
    isWaiting = true;
    return false;
  }

  const answer = {
    requestId,
    clientRequestId,
    /** When the request arrived, on the monotonic clock. */
    beganMs: clock.elapsed(),
    /** Known once the body was read; for metrics and headers. */
    model: "",
    /** How many upstreams were called. */
    attempts: 0,
    /** Who asks, once that is known; for the trace. */
    caller: undefined as Caller | undefined,
    /** The calls of upstreams that have ended; undefined where nobody asked for traces. */
    calls: telemetry.requestTraced && ([] as CallTrace[]),
    /** Adds headers to the head that is still to come. */
    addHeaders: (more: Readonly<Record<string, string>>) => void Object.assign(headers, more),
    isGone: (): boolean => sink.isGone(),
    /** Told when the client can take more after `relay` asked to wait, and when it has left. */
    listen(events: { drained: () => void; gone: () => void }): void {
      told = events;
    },
    /** Sends bytes of a stream, behind its head. False asks to wait; a client that takes nothing for the limit is left. */
    relay(bytes: Uint8Array): boolean {
      if (sink.isGone()) return true;
      if (!hasHead) {
        streamHead();
        armKeepAlive(KEEP_ALIVE_MS);
      }
      lastWriteMs = clock.elapsed();
      return sink.write(bytes) || wait();
    },
    /** Ends a stream with its proper end; its head goes out first where nothing was relayed. */
    endStream(terminator: string): void {
      rest();
      if (!hasHead) streamHead();
      sink.end(terminator);
    },
    /** Sends a whole body with its head. Comes back when the client has taken it or has left; one that takes nothing is left. */
    deliver(body: Uint8Array, more: Readonly<Record<string, string>> = {}): Promise<void> {
      head(200, { "content-type": JSON_TYPE, "content-length": String(body.length), ...more });
      return new Promise((resolve) => {
        let at = 0;
        function goOn(): void {
          while (at < body.length && !sink.isGone()) {
            const piece = body.subarray(at, at + DELIVERED_BYTES);
            at += piece.length;
            if (!sink.write(piece)) return void wait();
          }
          through();
        }
        function through(): void {
          rest();
          sink.end();
          resolve();
        }
        told = { drained: goOn, gone: through };
        goOn();
      });
    },
    /** Ends with an error and counts it: with its status, inside the stream that has begun, or for nobody. */
    fail(error: ApiError): void {
      rest();
      const status = statusOf(error);
      if (sink.isGone()) return answer.count({ status: 499, code: "client_gone" });
      if (hasHead) {
        sink.end(errors.inStream(error));
        return answer.count({ status: 200, code: error.code });
      }
      head(status, errorHeaders(error));
      sink.end(errors.body(error));
      answer.count({ status, code: error.code });
    },
    count(facts: Counted): void {
      counted = facts;
      telemetry.requestDone({
        route,
        model: answer.model,
        durationMs: clock.elapsed() - answer.beganMs,
        firstByteMs: undefined,
        chargedMicro: 0,
        inputTokens: 0,
        outputTokens: 0,
        ...facts,
      });
    },
    /** Hands over the trace of a request whose work has ended; only where somebody asked for traces. */
    trace(): void {
      telemetry.requestTraced?.({
        requestId,
        method: request.method,
        route,
        parent: parentOf(request),
        orgId: answer.caller?.orgId,
        keyId: answer.caller?.keyId,
        beganAt,
        durationMs: clock.elapsed() - answer.beganMs,
        status: counted.status,
        code: counted.code,
        calls: answer.calls ?? [],
      });
    },
    /** Breaks the connection if anything has gone out; else this is a 500 with the request's id and nothing more. */
    breakOff(): void {
      rest();
      if (hasHead) return sink.destroy();
      // A fault of ours counts as one although nobody is there to be told.
      if (sink.isGone()) return answer.count({ status: 500, code: "internal_error" });
      answer.fail({ code: "internal_error" });
    },
  };
  return answer;
}

/** A caller that sends several has none: nobody can say which is meant. */
function parentOf(request: GatewayRequest): string | undefined {
  const value = request.headers["traceparent"];
  return typeof value === "string" ? value : undefined;
}

/** The caller's own id for the request: carried along and echoed, never an identity of money. */
function clientRequestIdOf(request: GatewayRequest): string | undefined {
  const value = request.headers["x-client-request-id"];
  if (typeof value !== "string" || value.length === 0 || value.length > CLIENT_REQUEST_ID_MAX)
    return undefined;
  return value;
}

/**
 * Serves a route by `work`, which answers a request. When it throws, the caller gets a 500 with the request's id and
 * nothing else, or a broken connection if the head of an answer has gone out already; the error goes on to whoever counts
 * errors.
 */
export function answering(
  route: string,
  errors: ErrorShape,
  work: (gateway: Gateway, request: GatewayRequest, answer: Answer) => Promise<void>,
): Handle {
  return async (gateway, request, sink) => {
    const answer = openAnswer(gateway, route, request, sink, errors);
    try {
      await work(gateway, request, answer);
    } catch (error) {
      answer.breakOff();
      throw error;
    } finally {
      if (answer.calls) answer.trace();
    }
  };
}
