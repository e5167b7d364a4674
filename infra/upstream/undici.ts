import { Readable } from "node:stream";
import { Pool, type Dispatcher } from "undici";
import type {
  Clock,
  Upstream,
  UpstreamCall,
  UpstreamExchange,
  UpstreamFailure,
  UpstreamReceiver,
} from "#services/ports.ts";
import { createPlaces } from "./places.ts";

export interface UpstreamOptions {
  readonly clock: Clock;
  /** How long a call waits for a free connection; and then, until it is handed to that one, which may have to be dialled. */
  readonly connectMs: number;
  /** From there until the first byte of the answer's body. Headers alone are not an answer. */
  readonly firstByteMs: number;
  /** Between two pieces of the body; while the receiver has asked the upstream to wait it does not run. */
  readonly idleMs: number;
  /** Connections to one origin, each with one exchange at a time. */
  readonly connectionsMax: number;
  /** Calls that wait for one of them; one more fails as `overloaded` at once. */
  readonly waitingMax: number;
}

/**
 * How long an unused connection is kept when the upstream names no time. Less than the 5 s after which common servers
 * close it without having named one: a request written to a closing connection is lost, as `reset`.
 */
const KEEP_ALIVE_MS = 4_000;

/** An `Upstream` that holds connections. */
export interface UpstreamClient extends Upstream {
  /** Closes every connection: what runs fails as `reset`, what waits or comes later as `connect`. */
  close(): Promise<void>;
}

/**
 * The upstream client, on undici's pools: HTTP/1.1, keep-alive, one exchange per connection, no redirects, no
 * decompression (`accept-encoding: identity` is asked for), no retries, ever: a request that was handed to a connection
 * may have been received. undici itself gives a request another connection only when the first one closed before
 * anything of it was written.
 *
 * A receiver hears nothing before `send` has returned, and must not throw. After it has asked to wait it may still get
 * what was already read from the connection, at most 64 KiB.
 */
export function createUpstream(options: UpstreamOptions): UpstreamClient {
  const hosts = new Map<string, Host>();
  let closed = false;

  const bases = new Map<string, Base>();

  function baseOf(baseUrl: string): Base {
    const known = bases.get(baseUrl);
    if (known) return known;
    const { origin, pathname } = new URL(baseUrl);
    const host = hosts.get(origin) ?? openHost(origin, options);
    const base = { host, prefix: pathname.replace(/\/+$/u, "") };
    hosts.set(origin, host);
    bases.set(baseUrl, base);
    return base;
  }

  return {
    send(call, receiver) {
      const { host, prefix } = baseOf(call.baseUrl);
      const sending = dispatchOptions(prefix + call.path, call);
      const exchange = new Exchange(host.places, options, receiver, call.orgId, sending);
      if (closed) exchange.failSoon("connect");
      else if (!host.places.take(exchange)) exchange.failSoon("overloaded");
      return exchange;
    },
    async close() {
      closed = true;
      const closing = [...hosts.values()].map(async ({ pool, places }) => {
        for (const exchange of places.clear()) exchange.failSoon("connect");
        await pool.destroy();
      });
      await Promise.all(closing);
    },
  };
}

const LARGE_BODY_BYTES = 64 * 1024;

/** Gives the body once, and keeps it no longer. */
function* handedOver(holder: { body: Uint8Array }): Generator<Uint8Array> {
  const { body } = holder;
  holder.body = NO_BYTES;
  yield body;
}

const NO_BYTES = new Uint8Array(0);

function dispatchOptions(path: string, call: UpstreamCall): Dispatcher.DispatchOptions {
  const headers: string[] = [];
  for (const [name, value] of Object.entries(call.headers)) {
    if (name.toLowerCase() !== "accept-encoding") headers.push(name, value);
  }
  headers.push("accept-encoding", "identity");
  const { body } = call;
  const request = { method: "POST", path, headers } as const;
  if (body.length <= LARGE_BODY_BYTES) return { ...request, body };
  // undici would keep a buffer until the answer has ended; what it reads from a stream it keeps until it is sent.
  headers.push("content-length", String(body.length));
  return { ...request, body: Readable.from(handedOver({ body }), { objectMode: false }) };
}

/** One origin: its pool, and the calls that have a connection of it or wait for one. */
function openHost(origin: string, settings: UpstreamOptions) {
  const pool = new Pool(origin, {
    connections: settings.connectionsMax,
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: KEEP_ALIVE_MS,
    // Ours run on the Clock.
    headersTimeout: 0,
    bodyTimeout: 0,
    // Frees the socket; the call itself was failed by its own timer, undici's runs up to a second late.
    connect: { timeout: settings.connectMs },
  });
  // They wait here and not in the pool, where one that was given up could not leave, and nobody would have a share.
  const places = createPlaces<Exchange>({
    runningMax: settings.connectionsMax,
    waitingMax: settings.waitingMax,
    start: (exchange) => exchange.dispatch(pool),
  });
  return { pool, places };
}
type Host = ReturnType<typeof openHost>;

/** The host that a base URL names, and its path without a slash at the end. */
interface Base {
  readonly host: Host;
  readonly prefix: string;
}

/**
 * undici's HTTP parser is one for all connections and must not be entered from its own callbacks. A receiver may well
 * send, or resume another exchange, from within one; what would enter the parser then waits until the callback is over.
 */
let inParser = false;

function fromParser(tell: () => void): void {
  inParser = true;
  try {
    tell();
  } finally {
    inParser = false;
  }
}

/** Thrown into undici before anything is written: it drops the request and keeps the connection. */
const GIVEN_UP = new Error("The call was given up before it was sent.");

/** One call: undici's handler, the timer, and what the caller holds, in one object, for there is one per request. */
class Exchange implements UpstreamExchange, Dispatcher.DispatchHandler {
  readonly orgId: string;
  private readonly places: Host["places"];
  private readonly settings: UpstreamOptions;
  private readonly receiver: UpstreamReceiver;
  private options: Dispatcher.DispatchOptions | undefined;
  private controller: Dispatcher.DispatchController | undefined;
  private cancelTimer: () => void;
  /** Nothing more is told to the receiver. */
  private done = false;
  /** Has a connection, or one is dialled for it. */
  private placed = false;
  /** Handed to a connection: from here on the upstream may have it. */
  private sent = false;
  private gotBody = false;
  private paused = false;
  /** When the present phase began, or its last sign of life came. Elapsed milliseconds. */
  private sinceMs: number;

  constructor(
    places: Host["places"],
    settings: UpstreamOptions,
    receiver: UpstreamReceiver,
    orgId: string,
    options: Dispatcher.DispatchOptions,
  ) {
    this.orgId = orgId;
    this.places = places;
    this.settings = settings;
    this.receiver = receiver;
    this.options = options;
    this.sinceMs = settings.clock.elapsed();
    const lookMs = Math.min(settings.connectMs, this.laterAllowanceMs());
    this.cancelTimer = settings.clock.timer(lookMs, () => this.timerFired());
  }

  /** Hands the call to the pool, which answers with exactly one of `onResponseEnd` and `onResponseError`. */
  dispatch(pool: Pool): void {
    this.placed = true;
    this.sinceMs = this.settings.clock.elapsed();
    queueMicrotask(() => {
      const options = this.options;
      this.options = undefined;
      if (options === undefined || this.done) this.places.release(this);
      else pool.dispatch(options, this);
    });
  }

  failSoon(failure: UpstreamFailure): void {
    queueMicrotask(() => this.fail(failure));
  }

  abort(): void {
    if (this.done) return;
    this.finish();
    this.giveUp();
  }

  resume(): void {
    if (!this.paused) return;
    if (inParser) return queueMicrotask(() => this.resume());
    this.paused = false;
    this.sinceMs = this.settings.clock.elapsed();
    this.controller?.resume();
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    // A second start would be a second sending.
    if (this.done || this.sent) throw GIVEN_UP;
    this.sent = true;
    this.controller = controller;
    this.sinceMs = this.settings.clock.elapsed();
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
  ): void {
    // 1xx is no answer yet.
    if (this.done || status < 200) return;
    fromParser(() => this.receiver.head(status, joined(headers)));
  }

  onResponseData(controller: Dispatcher.DispatchController, bytes: Uint8Array): void {
    if (this.done) return;
    this.gotBody = true;
    this.sinceMs = this.settings.clock.elapsed();
    fromParser(() => {
      if (this.receiver.data(bytes)) return;
      this.paused = true;
      controller.pause();
    });
  }

  onResponseEnd(): void {
    this.places.release(this);
    if (this.done) return;
    this.finish();
    fromParser(() => this.receiver.end());
  }

  onResponseError(): void {
    this.places.release(this);
    this.fail(this.sent ? "reset" : "connect");
  }

  /** One timer serves all phases: it is armed anew when it fires too early for the present one, not at every byte. */
  private timerFired(): void {
    const nowMs = this.settings.clock.elapsed();
    if (this.paused) this.sinceMs = nowMs;
    const [allowedMs, failure] = this.allowance();
    const leftMs = this.sinceMs + allowedMs - nowMs;
    if (leftMs > 0) {
      // A later phase begins without arming the timer, so it must never be armed for longer than one of those may last.
      const lookMs = Math.min(leftMs, this.laterAllowanceMs());
      this.cancelTimer = this.settings.clock.timer(lookMs, () => this.timerFired());
    } else {
      this.fail(failure);
      this.giveUp();
    }
  }

  private allowance(): [number, UpstreamFailure] {
    if (!this.sent) return [this.settings.connectMs, this.placed ? "connect" : "overloaded"];
    if (!this.gotBody) return [this.settings.firstByteMs, "first_byte_timeout"];
    return [this.settings.idleMs, "idle_timeout"];
  }

  /** The shortest time that a phase after the present one may last. */
  private laterAllowanceMs(): number {
    const { firstByteMs, idleMs } = this.settings;
    if (!this.sent) return Math.min(firstByteMs, idleMs);
    return this.gotBody ? Infinity : idleMs;
  }

  private fail(failure: UpstreamFailure): void {
    if (this.done) return;
    this.finish();
    this.receiver.failed(failure);
  }

  private finish(): void {
    this.done = true;
    this.paused = false;
    this.cancelTimer();
  }

  /** Makes undici drop what it has of the call. One that it has not started is dropped when it would start. */
  private giveUp(): void {
    this.controller?.abort(GIVEN_UP);
    this.places.leave(this);
  }
}

/** undici gives names in lower case, and a list where a header came more than once. */
function joined(
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Record<string, string> {
  const one: Record<string, string> = {};
  for (const name in headers) {
    const value = headers[name];
    if (value !== undefined) one[name] = typeof value === "string" ? value : value.join(", ");
  }
  return one;
}
