import type { Gateway } from "#services/gateway/gateway.ts";
import type { GatewayRequest, Sink } from "#services/gateway/parts.ts";
import type { UpstreamCall, UpstreamFailure, UpstreamReceiver } from "#services/ports.ts";

/** Both ends of a gateway's request in tests: the client that asked, and the upstream that answers. */

export type Handle = (gateway: Gateway, request: GatewayRequest, sink: Sink) => Promise<void>;

/** A call as the upstream sees it, and the upstream's end of it. */
export interface SeenCall {
  readonly call: UpstreamCall;
  readonly receiver: UpstreamReceiver;
  aborted: boolean;
  /** The receiver has asked to wait. */
  paused: boolean;
  head(status?: number, headers?: Record<string, string>): void;
  data(text: string): boolean;
  fail(failure: UpstreamFailure): void;
  /** A whole plain answer at once. */
  answer(body: object | string, status?: number, headers?: Record<string, string>): void;
}

/** A client's side of one request. */
export interface SeenAnswer {
  status: number | undefined;
  headers: Readonly<Record<string, string>>;
  text: string;
  ended: boolean;
  destroyed: boolean;
  /** Writes are not taken until `drain`. */
  slow: boolean;
  writes: number;
  readonly done: Promise<void>;
  leave(): void;
  drain(): void;
  json(): { error: Record<string, unknown> } & Record<string, unknown>;
}

/** Takes a call as an upstream that does only what the test says. */
export function exchange(calls: SeenCall[], call: UpstreamCall, receiver: UpstreamReceiver) {
  const seen: SeenCall = {
    call,
    receiver,
    aborted: false,
    paused: false,
    head: (status = 200, headers = {}) => receiver.head(status, headers),
    data(text) {
      const goOn = receiver.data(Buffer.from(text));
      seen.paused ||= !goOn;
      return goOn;
    },
    fail: (failure) => receiver.failed(failure),
    answer(body, status = 200, headers = {}) {
      receiver.head(status, headers);
      const text = typeof body === "string" ? body : JSON.stringify(body);
      if (text.length > 0) receiver.data(Buffer.from(text));
      receiver.end();
    },
  };
  calls.push(seen);
  return {
    abort: () => void (seen.aborted = true),
    resume: () => void (seen.paused = false),
  };
}

/** A client at the end of one request; it throws where an answer breaks the rules of a sink. */
export function answerTo(
  gateway: Gateway,
  handle: Handle,
  how: { slow: boolean; left: boolean },
  request: GatewayRequest,
): SeenAnswer {
  let told = { drained: () => {}, gone: () => {} };
  let gone = how.left;
  let over = false;
  const gatherUp = (bytes: Uint8Array | string) => {
    if (over) throw new Error("written after the end");
    if (seen.status === undefined) throw new Error("written before the head");
    seen.text += typeof bytes === "string" ? bytes : Buffer.from(bytes).toString();
    seen.writes += 1;
  };
  const leave = () => {
    if (gone || over) return;
    gone = true;
    told.gone();
  };
  const sink: Sink = {
    head(status, headers) {
      if (gone) return;
      if (seen.status !== undefined) throw new Error("a second head");
      seen.status = status;
      seen.headers = headers;
    },
    write(bytes) {
      if (gone) return true;
      gatherUp(bytes);
      return !seen.slow;
    },
    end(bytes) {
      if (gone) return;
      if (bytes !== undefined) gatherUp(bytes);
      if (over) throw new Error("a second end");
      over = true;
      seen.ended = true;
    },
    destroy() {
      seen.destroyed = true;
      leave();
    },
    listen(events) {
      told = events;
    },
    isGone: () => gone,
  };
  const seen: SeenAnswer = {
    status: undefined,
    headers: {},
    text: "",
    ended: false,
    destroyed: false,
    slow: how.slow,
    writes: 0,
    leave,
    drain: () => told.drained(),
    json: () => JSON.parse(seen.text) as ReturnType<SeenAnswer["json"]>,
    done: Promise.resolve(),
  };
  return Object.assign(seen, {
    done: gateway.track(handle(gateway, request, sink)).catch(() => {}),
  });
}
