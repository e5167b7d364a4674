import { connect, type Socket } from "node:net";
import { endWithHarness, tell } from "./child.ts";
import { PATH, requestBody } from "./request.ts";
import { quantile } from "./stats.ts";

/**
 * The load generator, in a process of its own. It speaks HTTP/1.1 over plain sockets with a request made once and the
 * least parsing that still notices every wrong or broken answer, because it shares its core with the upstream.
 */

/** One piece of load. With `perSecond` the loop is open: requests start by the clock, whatever has been answered. */
export interface LoadJob {
  /** Where requests go: as many to each. */
  readonly urls: readonly string[];
  readonly headers: Readonly<Record<string, string>>;
  readonly streamed: boolean;
  /** To each URL. */
  readonly connections: number;
  readonly seconds: number;
  readonly perSecond?: number;
}

/** What came of a job. Latencies in ms, in an open loop from the moment at which the request should have started. */
export interface LoadResult {
  readonly requests: number;
  readonly seconds: number;
  readonly latencyP50Ms: number;
  readonly latencyP99Ms: number;
  readonly firstByteP50Ms: number;
  readonly firstByteP99Ms: number;
  /** Failed requests by what was wrong with them. */
  readonly errors: Readonly<Record<string, number>>;
}

const IN_FLIGHT_MAX = 2_000;
const LAST_ANSWER_MS_MAX = 10_000;
const TAIL_BYTES = 64;
const HEAD_END = "\r\n\r\n";

interface Exchange {
  readonly firstByte: () => void;
  readonly done: (error: string | undefined) => void;
}

/** One keep-alive connection with at most one request on it. */
class Connection {
  readonly #socket: Socket;
  readonly #lastText: string;
  #exchange: Exchange | undefined;
  #head: Buffer | undefined;
  /** Body bytes still to come; undefined while the head is read or when the body is chunked. */
  #missing: number | undefined;
  #inBody = false;
  #bodyBegun = false;
  #failure: string | undefined;
  #tail = "";
  closed = false;

  /** `lastText` stands near the end of every whole answer. */
  constructor(url: URL, lastText: string) {
    this.#lastText = lastText;
    this.#socket = connect({ host: url.hostname, port: Number(url.port), noDelay: true });
    this.#socket.on("data", (bytes: Buffer) => this.#data(bytes));
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => {
      this.closed = true;
      this.#finish("connection closed");
    });
  }

  send(request: Buffer, exchange: Exchange): void {
    this.#exchange = exchange;
    this.#head = undefined;
    this.#missing = undefined;
    this.#inBody = false;
    this.#bodyBegun = false;
    this.#failure = undefined;
    this.#tail = "";
    this.#socket.write(request);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #data(bytes: Buffer): void {
    if (this.#inBody) {
      this.#body(bytes);
      return;
    }
    const head = this.#head === undefined ? bytes : Buffer.concat([this.#head, bytes]);
    const end = head.indexOf(HEAD_END);
    if (end < 0) {
      this.#head = head;
      return;
    }
    const text = head.toString("latin1", 0, end + 2).toLowerCase();
    if (!text.startsWith("200", 9)) this.#failure = `status ${text.slice(9, 12)}`;
    const length = /\r\ncontent-length: *(\d+)\r\n/.exec(text)?.[1];
    this.#missing = length === undefined ? undefined : Number(length);
    this.#inBody = true;
    this.#body(head.subarray(end + HEAD_END.length));
  }

  #body(bytes: Buffer): void {
    if (bytes.length > 0 && !this.#bodyBegun) {
      this.#bodyBegun = true;
      this.#exchange?.firstByte();
    }
    if (this.#missing !== undefined) {
      this.#missing -= bytes.length;
      if (this.#missing < 0) this.#finish("body longer than it said");
      else if (this.#missing === 0) this.#finish(this.#failure);
      return;
    }
    // No body of ours has a carriage return, so the last chunk can be told by its bytes alone.
    const from = Math.max(0, bytes.length - TAIL_BYTES);
    this.#tail = (this.#tail + bytes.toString("latin1", from)).slice(-TAIL_BYTES);
    if (!this.#tail.endsWith("0\r\n\r\n")) return;
    const whole = this.#tail.includes(this.#lastText);
    this.#finish(this.#failure ?? (whole ? undefined : "body cut short"));
  }

  #finish(error: string | undefined): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    exchange?.done(error);
  }
}

function requestBytes(job: LoadJob, url: URL): Buffer {
  const body = requestBody(job.streamed);
  const headers = {
    host: url.host,
    ...job.headers,
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`POST ${PATH} HTTP/1.1\r\n${lines.join("")}\r\n${body}`);
}

/** One of the URLs of a job, and the connections to it that nobody uses. */
interface Place {
  readonly connect: () => Connection;
  readonly request: Buffer;
  readonly idle: Connection[];
}

/** Takes down what happens to the requests of one job, and lends connections to them. */
class Run {
  readonly #places: readonly Place[];
  readonly #latencyMs: number[] = [];
  readonly #firstByteMs: number[] = [];
  readonly #errors: Record<string, number> = {};
  readonly #beganMs = performance.now();
  inFlight = 0;
  #endedMs = 0;

  constructor(job: LoadJob) {
    this.#places = job.urls.map((text) => {
      const url = new URL(text);
      const connect = () => new Connection(url, job.streamed ? "[DONE]" : "}");
      const idle = Array.from({ length: job.connections }, connect);
      return { connect, request: requestBytes(job, url), idle };
    });
  }

  /**
   * Makes one request whose times count from `fromMs`; `then` is called when it has ended, well or badly. Numbers that
   * follow each other go to the URLs in turn.
   */
  start(number: number, fromMs: number, then: () => void): void {
    const place = this.#places[number % this.#places.length];
    if (place === undefined || this.inFlight >= IN_FLIGHT_MAX) {
      this.fail("too many in flight");
      return;
    }
    const { idle } = place;
    let connection = idle.pop();
    while (connection?.closed === true) connection = idle.pop();
    const used = connection ?? place.connect();
    this.inFlight += 1;
    used.send(place.request, {
      firstByte: () => this.#firstByteMs.push(performance.now() - fromMs),
      done: (error) => {
        this.#endedMs = performance.now();
        this.inFlight -= 1;
        if (error === undefined) this.#latencyMs.push(this.#endedMs - fromMs);
        else this.fail(error);
        if (!used.closed) idle.push(used);
        then();
      },
    });
  }

  fail(error: string): void {
    this.#errors[error] = (this.#errors[error] ?? 0) + 1;
  }

  result(): LoadResult {
    for (const { idle } of this.#places) for (const connection of idle) connection.destroy();
    return {
      requests: this.#latencyMs.length,
      seconds: (this.#endedMs - this.#beganMs) / 1000,
      latencyP50Ms: quantile(this.#latencyMs, 0.5),
      latencyP99Ms: quantile(this.#latencyMs, 0.99),
      firstByteP50Ms: quantile(this.#firstByteMs, 0.5),
      firstByteP99Ms: quantile(this.#firstByteMs, 0.99),
      errors: this.#errors,
    };
  }
}

/** Closed loop: every connection asks again as soon as it has its answer. */
function closedLoop(job: LoadJob, run: Run): Promise<void> {
  const untilMs = performance.now() + job.seconds * 1000;
  return new Promise((resolve) => {
    const ask = (number: number): void => {
      const nowMs = performance.now();
      if (nowMs < untilMs) run.start(number, nowMs, () => ask(number));
      else if (run.inFlight === 0) resolve();
    };
    const all = job.connections * job.urls.length;
    for (let number = 0; number < all; number++) ask(number);
  });
}

/** Open loop: request i starts at i / perSecond. A late start counts as latency, so a slow gateway cannot hide. */
function openLoop(job: LoadJob, perSecond: number, run: Run): Promise<void> {
  const startMs = performance.now() + 5;
  const total = Math.round(job.seconds * perSecond);
  let next = 0;
  return new Promise((resolve) => {
    const ended = (): void => {
      if (next === total && run.inFlight === 0) resolve();
    };
    const tick = (): void => {
      const nowMs = performance.now();
      const dueMs = (): number => startMs + (next * 1000) / perSecond;
      while (next < total && dueMs() <= nowMs) {
        const fromMs = dueMs();
        run.start(next++, fromMs, ended);
      }
      if (next < total) setTimeout(tick, Math.ceil(dueMs() - nowMs));
      else ended();
    };
    tick();
  });
}

/** Does a job. Answers that never come end it too: they are errors. */
async function doJob(job: LoadJob): Promise<LoadResult> {
  const run = new Run(job);
  const loop =
    job.perSecond === undefined ? closedLoop(job, run) : openLoop(job, job.perSecond, run);
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, job.seconds * 1000 + LAST_ANSWER_MS_MAX);
  });
  await Promise.race([loop, limit]);
  clearTimeout(timer);
  for (let lost = run.inFlight; lost > 0; lost--) run.fail("no answer");
  return run.result();
}

/** Jobs come as messages with a number; results go back with the same number. Several may run at once. */
export type LoadMessage = { readonly id: number; readonly job: LoadJob };
export type LoadReply = { readonly id: number; readonly result: LoadResult };

if (import.meta.main) {
  endWithHarness();
  process.on("message", ({ id, job }: LoadMessage) => {
    void doJob(job).then((result) => tell({ id, result } satisfies LoadReply));
  });
}
