import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer as createTcpServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import type { Clock, UpstreamCall, UpstreamExchange, UpstreamReceiver } from "#services/ports.ts";
import { createUpstream } from "./undici.ts";
import type { UpstreamClient, UpstreamOptions } from "./undici.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** A clock that stands until it is moved. */
function handClock(): Clock & { advance(ms: number): void; armed(): number } {
  let timeMs = 1_000;
  const timers = new Set<{ dueMs: number; callback: () => void }>();
  return {
    now: () => timeMs,
    elapsed: () => timeMs,
    timer(delayMs, callback) {
      const timer = { dueMs: timeMs + delayMs, callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    advance(ms) {
      timeMs += ms;
      for (const timer of timers) {
        if (timer.dueMs > timeMs || !timers.delete(timer)) continue;
        timer.callback();
      }
    },
    armed: () => timers.size,
  };
}

function setUp(options: Partial<UpstreamOptions> = {}): {
  clock: ReturnType<typeof handClock>;
  upstream: UpstreamClient;
} {
  const clock = handClock();
  const upstream = createUpstream({
    clock,
    connectMs: 5_000,
    firstByteMs: 300_000,
    idleMs: 120_000,
    connectionsMax: 512,
    waitingMax: 512,
    ...options,
  });
  closers.push(() => upstream.close());
  return { clock, upstream };
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function httpServer(
  handler: (request: IncomingMessage, response: ServerResponse) => unknown,
): Promise<string> {
  const server = createServer((request, response) => void handler(request, response));
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://${await listen(server)}/v1`;
}

async function tcpServer(onSocket: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    onSocket(socket);
  });
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return await listen(server);
}

function callTo(baseUrl: string, more: Partial<UpstreamCall> = {}): UpstreamCall {
  const body = new TextEncoder().encode('{"model":"m"}');
  const ids = { requestId: "req_1", orgId: "org_a" };
  return { ...ids, baseUrl, path: "/chat/completions", headers: {}, body, ...more };
}

interface Heard {
  readonly said: string[];
  headers: Readonly<Record<string, string>>;
  text: string;
  bytes: number;
  exchange: UpstreamExchange;
  /** Resolves when one more thing was said that starts with this. */
  until(start: string): Promise<void>;
}

/** Sends and writes down what the receiver hears: `head 200`, `data`, `end`, `failed reset`. */
function send(
  upstream: UpstreamClient,
  call: UpstreamCall,
  on: Partial<UpstreamReceiver> = {},
): Heard {
  const waiters: { start: string; resolve: () => void }[] = [];
  let returned = false;
  const say = (what: string): void => {
    expect(returned).toBe(true);
    heard.said.push(what);
    for (const waiter of waiters) if (what.startsWith(waiter.start)) waiter.resolve();
  };
  const heard: Heard = {
    said: [],
    headers: {},
    text: "",
    bytes: 0,
    exchange: { abort() {}, resume() {} },
    until: (start) =>
      heard.said.some((what) => what.startsWith(start))
        ? Promise.resolve()
        : new Promise((resolve) => waiters.push({ start, resolve })),
  };
  heard.exchange = upstream.send(call, {
    head(status, headers) {
      heard.headers = headers;
      say(`head ${status}`);
      on.head?.(status, headers);
    },
    data(bytes) {
      heard.bytes += bytes.length;
      if (heard.bytes < 10_000) heard.text += Buffer.from(bytes).toString();
      say("data");
      return on.data?.(bytes) ?? true;
    },
    end() {
      say("end");
      on.end?.();
    },
    failed(failure) {
      say(`failed ${failure}`);
      on.failed?.(failure);
    },
  });
  returned = true;
  return heard;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const piece of request) body += String(piece);
  return body;
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(5);
}

test("a call arrives as it was given and its answer comes back, over one kept connection", async () => {
  const { upstream, clock } = setUp();
  const ports = new Set<number | undefined>();
  const seen: string[] = [];
  const baseUrl = await httpServer(async (request, response) => {
    ports.add(request.socket.remotePort);
    seen.push(`${request.method} ${request.url} ${await bodyOf(request)}`);
    const { "x-a": a, "accept-encoding": encoding, "content-length": length } = request.headers;
    seen.push(`${String(a)} ${String(encoding)} ${length}`);
    response.writeHead(201, { "X-Mixed-Case": "Yes", "set-cookie": ["a=1", "b=2"] });
    response.write("one ");
    response.end("two");
  });
  const headers = { "x-a": "b", "Accept-Encoding": "gzip" };
  for (const base of [baseUrl, `${baseUrl}/`, baseUrl]) {
    const heard = send(upstream, callTo(base, { headers }));
    await heard.until("end");
    expect(heard.said[0]).toBe("head 201");
    expect(heard.said.at(-1)).toBe("end");
    expect(heard.text).toBe("one two");
    expect(heard.headers["x-mixed-case"]).toBe("Yes");
    expect(heard.headers["set-cookie"]).toBe("a=1, b=2");
    // A connection is free again one turn of the loop after its answer's end.
    await sleep(5);
  }
  expect(seen.slice(0, 2)).toEqual(['POST /v1/chat/completions {"model":"m"}', "b identity 13"]);
  expect(seen.length).toBe(6);
  expect(ports.size).toBe(1);
  expect(clock.armed()).toBe(0);
});

test("redirects are not followed, bodies are not decoded, 1xx is no head, no body is an end", async () => {
  const { upstream } = setUp();
  let requests = 0;
  const baseUrl = await httpServer((request, response) => {
    requests += 1;
    request.resume();
    if (request.url?.endsWith("/moved"))
      response.writeHead(307, { location: "/v1/elsewhere" }).end("moved");
    else if (request.url?.endsWith("/packed"))
      response.writeHead(200, { "content-encoding": "gzip" }).end("not gzip");
    else {
      response.writeEarlyHints({ link: "</x>; rel=preload" });
      response.writeHead(204).end();
    }
  });
  const moved = send(upstream, callTo(baseUrl, { path: "/moved" }));
  await moved.until("end");
  expect(moved.said).toEqual(["head 307", "data", "end"]);
  const packed = send(upstream, callTo(baseUrl, { path: "/packed" }));
  await packed.until("end");
  expect(packed.text).toBe("not gzip");
  const hinted = send(upstream, callTo(baseUrl, { path: "/hinted" }));
  await hinted.until("end");
  expect(hinted.said).toEqual(["head 204", "end"]);
  expect(requests).toBe(3);
});

test("connect: a refused connection, a failed handshake, a header that cannot be sent", async () => {
  const { upstream, clock } = setUp();
  const gone = createTcpServer();
  const address = await listen(gone);
  await new Promise((resolve) => gone.close(resolve));
  const refused = send(upstream, callTo(`http://${address}/v1`));
  await refused.until("failed");
  const plain = await httpServer((_request, response) => response.end());
  const noTls = send(upstream, callTo(plain.replace("http:", "https:")));
  await noTls.until("failed");
  const badHeader = send(upstream, callTo(plain, { headers: { "x-a": "b\r\nc: d" } }));
  await badHeader.until("failed");
  for (const heard of [refused, noTls, badHeader]) expect(heard.said).toEqual(["failed connect"]);
  expect(clock.armed()).toBe(0);
});

test("connect: a host that accepts and never finishes the handshake, after exactly its time", async () => {
  const { upstream, clock } = setUp({ connectMs: 5_000 });
  let accepted = false;
  const address = await tcpServer(() => (accepted = true));
  const heard = send(upstream, callTo(`https://${address}/v1`));
  await eventually(() => accepted);
  clock.advance(4_999);
  expect(heard.said).toEqual([]);
  clock.advance(1);
  expect(heard.said).toEqual(["failed connect"]);
});

test("overloaded: no connection free and no place to wait, no connection free in time; a place given up is free", async () => {
  const { upstream, clock } = setUp({ connectionsMax: 1, waitingMax: 1 });
  const answers: ServerResponse[] = [];
  const baseUrl = await httpServer((_request, response) => answers.push(response));
  const running = send(upstream, callTo(baseUrl));
  await eventually(() => answers.length === 1);
  const givenUp = send(upstream, callTo(baseUrl));
  givenUp.exchange.abort();
  const waitsTooLong = send(upstream, callTo(baseUrl));
  const refused = send(upstream, callTo(baseUrl));
  await refused.until("failed");
  expect(refused.said).toEqual(["failed overloaded"]);
  clock.advance(4_999);
  expect(waitsTooLong.said).toEqual([]);
  clock.advance(1);
  expect(waitsTooLong.said).toEqual(["failed overloaded"]);
  const waits = send(upstream, callTo(baseUrl));
  answers[0]?.end("first");
  await running.until("end");
  await eventually(() => answers.length === 2);
  answers[1]?.end("second");
  await waits.until("end");
  expect(waits.text).toBe("second");
  expect(givenUp.said).toEqual([]);
  expect(answers.length).toBe(2);
});

test("connect: a call that has waited has its whole time to connect, and only then is it the upstream's fault", async () => {
  const { upstream, clock } = setUp({ connectionsMax: 1, connectMs: 5_000 });
  const dialled: Socket[] = [];
  const address = await tcpServer((socket) => dialled.push(socket));
  const first = send(upstream, callTo(`https://${address}/v1`));
  const second = send(upstream, callTo(`https://${address}/v1`));
  await eventually(() => dialled.length === 1);
  clock.advance(4_000);
  dialled[0]?.destroy();
  await first.until("failed");
  expect(first.said).toEqual(["failed connect"]);
  await eventually(() => dialled.length === 2);
  clock.advance(4_999);
  expect(second.said).toEqual([]);
  clock.advance(1);
  expect(second.said).toEqual(["failed connect"]);
});

test("an organization of slow readers does not keep others from their answers", async () => {
  const { upstream } = setUp({ connectionsMax: 8, waitingMax: 8 });
  const baseUrl = await httpServer((request, response) => {
    response.end(request.url?.endsWith("/long") ? Buffer.alloc(2 ** 23, "x") : "short");
  });
  const slow = Array.from({ length: 40 }, () =>
    send(upstream, callTo(baseUrl, { orgId: "slow", path: "/long" }), { data: () => false }),
  );
  await eventually(() => slow.filter(({ said }) => said.includes("data")).length === 4);
  // Four run, four wait, the rest were refused at once.
  expect(slow.filter(({ said }) => said.includes("failed overloaded"))).toHaveLength(32);
  for (let round = 0; round < 20; round++) {
    const other = send(upstream, callTo(baseUrl, { orgId: `org_${round}` }));
    await other.until("end");
    expect(other.text).toBe("short");
  }
  expect(slow.filter(({ said }) => said.includes("data"))).toHaveLength(4);
});

test("many calls at once stay within the connections and all come through", async () => {
  const { upstream, clock } = setUp({ connectionsMax: 4, waitingMax: 100 });
  let open = 0;
  let openMax = 0;
  const baseUrl = await httpServer(async (request, response) => {
    open += 1;
    openMax = Math.max(openMax, open);
    await bodyOf(request);
    await sleep(2);
    open -= 1;
    response.end("x".repeat(10));
  });
  const all = Array.from({ length: 104 }, (_, at) =>
    send(upstream, callTo(baseUrl, { orgId: `org_${at % 8}` })),
  );
  await Promise.all(all.map((heard) => heard.until("end")));
  expect(openMax).toBe(4);
  expect(all.every((heard) => heard.bytes === 10)).toBe(true);
  expect(clock.armed()).toBe(0);
});

test("reset: before the head, after the head, in mid-body, and a chunked body that just stops", async () => {
  const { upstream } = setUp();
  const head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
  const answers: Record<string, string> = {
    "/nothing": "",
    "/head": head,
    "/body": `${head}5\r\nhello\r\n`,
    "/close": `HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n`,
    "/short": "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
    "/garbage": "SSH-2.0-OpenSSH_9.6\r\n",
  };
  const address = await tcpServer((socket) => {
    socket.on("data", (bytes: Buffer) => {
      const path = bytes.toString().split(" ")[1] ?? "";
      if (path === "/nothing") socket.resetAndDestroy();
      else socket.write(answers[path] ?? "", () => setTimeout(() => socket.end(), 20));
    });
  });
  const saidFor = async (path: string): Promise<string[]> => {
    const heard = send(upstream, callTo(`http://${address}`, { path }));
    await heard.until("failed");
    return heard.said;
  };
  expect(await saidFor("/nothing")).toEqual(["failed reset"]);
  expect(await saidFor("/head")).toEqual(["head 200", "failed reset"]);
  expect(await saidFor("/body")).toEqual(["head 200", "data", "failed reset"]);
  expect(await saidFor("/close")).toEqual(["head 200", "data", "failed reset"]);
  expect(await saidFor("/short")).toEqual(["head 200", "data", "failed reset"]);
  expect(await saidFor("/garbage")).toEqual(["failed reset"]);
});

test("first_byte_timeout: counted from the sending, headers alone do not stop it", async () => {
  const { upstream, clock } = setUp();
  let sockets = 0;
  let closed = 0;
  const baseUrl = await httpServer((request, response) => {
    sockets += 1;
    request.socket.once("close", () => (closed += 1));
    if (request.url?.endsWith("/head")) response.writeHead(200).flushHeaders();
  });
  const silent = send(upstream, callTo(baseUrl));
  const headOnly = send(upstream, callTo(baseUrl, { path: "/head" }));
  await headOnly.until("head");
  await eventually(() => sockets === 2);
  clock.advance(299_999);
  expect(silent.said).toEqual([]);
  expect(headOnly.said).toEqual(["head 200"]);
  clock.advance(1);
  expect(silent.said).toEqual(["failed first_byte_timeout"]);
  expect(headOnly.said).toEqual(["head 200", "failed first_byte_timeout"]);
  await eventually(() => closed === 2);
  expect(clock.armed()).toBe(0);
});

test("idle_timeout: counted from the last byte", async () => {
  const { upstream, clock } = setUp();
  let answer: ServerResponse | undefined;
  const baseUrl = await httpServer((_request, response) => {
    answer = response;
    response.write("one");
  });
  const heard = send(upstream, callTo(baseUrl));
  await heard.until("data");
  clock.advance(119_999);
  answer?.write("two");
  await eventually(() => heard.text === "onetwo");
  clock.advance(119_999);
  expect(heard.said).toEqual(["head 200", "data", "data"]);
  clock.advance(1);
  expect(heard.said.at(-1)).toBe("failed idle_timeout");
});

test("idle_timeout: in its time also after a first byte that was long in coming", async () => {
  const { upstream, clock } = setUp();
  let answer: ServerResponse | undefined;
  const baseUrl = await httpServer((_request, response) => (answer = response));
  const heard = send(upstream, callTo(baseUrl));
  await eventually(() => answer !== undefined);
  clock.advance(20_000);
  expect(heard.said).toEqual([]);
  answer?.write("one");
  await heard.until("data");
  clock.advance(119_999);
  expect(heard.said).toEqual(["head 200", "data"]);
  clock.advance(1);
  expect(heard.said.at(-1)).toBe("failed idle_timeout");
  expect(clock.armed()).toBe(0);
});

test("back-pressure: a slow reader stops the upstream, holds little, is not idle, and gets everything", async () => {
  const { upstream, clock } = setUp();
  const total = 50 * 1024 * 1024;
  let written = 0;
  const baseUrl = await httpServer((_request, response) => {
    const piece = Buffer.alloc(64 * 1024, "x");
    const more = (): void => {
      while (written < total) {
        written += piece.length;
        if (!response.write(piece)) return void response.once("drain", more);
      }
      response.end();
    };
    more();
  });
  let open = false;
  const heard = send(upstream, callTo(baseUrl), { data: () => open });
  await heard.until("data");
  await sleep(300);
  const atStand = { written, bytes: heard.bytes };
  clock.advance(1_000_000);
  await sleep(100);
  // The rest stays in the sender's hands, but for what the kernel's two buffers take.
  expect(atStand.bytes).toBeLessThanOrEqual(128 * 1024);
  expect(heard.bytes).toBe(atStand.bytes);
  expect(written).toBe(atStand.written);
  expect(written).toBeLessThan(20 * 1024 * 1024);
  heard.exchange.resume();
  await eventually(() => heard.bytes > atStand.bytes);
  expect(heard.bytes).toBeLessThan(1024 * 1024);
  open = true;
  heard.exchange.resume();
  await heard.until("end");
  expect(heard.bytes).toBe(total);
});

test("a resumed upstream that stays silent is idle", async () => {
  const { upstream, clock } = setUp();
  const baseUrl = await httpServer((_request, response) => response.write("one"));
  const heard = send(upstream, callTo(baseUrl), { data: () => false });
  await heard.until("data");
  clock.advance(500_000);
  clock.advance(100_000);
  heard.exchange.resume();
  clock.advance(119_999);
  expect(heard.said).toEqual(["head 200", "data"]);
  clock.advance(1);
  expect(heard.said.at(-1)).toBe("failed idle_timeout");
});

test.each(["/before", "/head", "/data"])(
  "abort: nothing is heard after it, the connection closes (%s)",
  async (path) => {
    const { upstream, clock } = setUp();
    let arrived = 0;
    let closed = 0;
    const baseUrl = await httpServer((request, response) => {
      arrived += 1;
      request.socket.once("close", () => (closed += 1));
      if (path === "/head") response.writeHead(200).flushHeaders();
      if (path === "/data") {
        const timer = setInterval(() => response.write("more"), 1);
        response.once("close", () => clearInterval(timer));
      }
    });
    const heard = send(upstream, callTo(baseUrl, { path }));
    await (path === "/before" ? eventually(() => arrived === 1) : heard.until(path.slice(1)));
    heard.exchange.abort();
    heard.exchange.abort();
    heard.exchange.resume();
    const said = heard.said.length;
    await eventually(() => closed === 1);
    clock.advance(1_000_000);
    expect(heard.said.length).toBe(said);
    expect(clock.armed()).toBe(0);
  },
);

test("abort within head and within data, and at once after send: nothing is sent", async () => {
  const { upstream, clock } = setUp();
  let arrived = 0;
  const baseUrl = await httpServer((_request, response) => {
    arrived += 1;
    response.write("one");
    setTimeout(() => response.end("two"), 5);
  });
  const inHead = send(upstream, callTo(baseUrl), { head: () => inHead.exchange.abort() });
  await inHead.until("head");
  const inData = send(upstream, callTo(baseUrl), {
    data: () => {
      inData.exchange.abort();
      return false;
    },
  });
  await inData.until("data");
  const atOnce = send(upstream, callTo(baseUrl));
  atOnce.exchange.abort();
  await sleep(50);
  expect(inHead.said).toEqual(["head 200"]);
  expect(inData.said).toEqual(["head 200", "data"]);
  expect(atOnce.said).toEqual([]);
  expect(arrived).toBe(2);
  expect(clock.armed()).toBe(0);
});

test("a call given up while its connection is dialled is never sent, and the connection serves the next", async () => {
  const { upstream } = setUp({ connectionsMax: 1 });
  const paths: (string | undefined)[] = [];
  const baseUrl = await httpServer((request, response) => {
    paths.push(request.url);
    response.end();
  });
  const givenUp = send(upstream, callTo(baseUrl, { path: "/given-up" }));
  // The dial begins in the microtask after the call.
  await Promise.resolve();
  givenUp.exchange.abort();
  const next = send(upstream, callTo(baseUrl, { path: "/next" }));
  await next.until("end");
  expect(paths).toEqual(["/v1/next"]);
  expect(givenUp.said).toEqual([]);
});

test("a kept connection that the upstream has closed is not used; one that closes on the request is a reset, not a repeat", async () => {
  const { upstream } = setUp();
  const sockets: Socket[] = [];
  const requests: string[] = [];
  const address = await tcpServer((socket) => {
    sockets.push(socket);
    socket.on("data", (bytes: Buffer) => {
      const path = bytes.toString().split(" ")[1] ?? "";
      requests.push(path);
      if (path === "/dies") socket.resetAndDestroy();
      else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
  });
  const to = (path: string): UpstreamCall => callTo(`http://${address}`, { path });
  await send(upstream, to("/first")).until("end");
  sockets[0]?.end();
  await sleep(20);
  await send(upstream, to("/second")).until("end");
  expect(sockets.length).toBe(2);
  const dies = send(upstream, to("/dies"));
  await dies.until("failed");
  expect(dies.said).toEqual(["failed reset"]);
  await sleep(20);
  await send(upstream, to("/third")).until("end");
  expect(requests).toEqual(["/first", "/second", "/dies", "/third"]);
});

test("a connection that closes in the very moment of sending: answered or failed, never received twice", async () => {
  const { upstream } = setUp();
  const received = new Map<string, number>();
  const idle = new Set<Socket>();
  const address = await tcpServer((socket) => {
    socket.on("close", () => idle.delete(socket));
    socket.on("data", (bytes: Buffer) => {
      const path = bytes.toString().split(" ")[1] ?? "";
      received.set(path, (received.get(path) ?? 0) + 1);
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
      idle.add(socket);
    });
  });
  for (let round = 0; round < 200; round += 1) {
    for (const socket of idle) {
      if (round % 2 === 0) socket.end();
      else socket.resetAndDestroy();
    }
    const heard = send(upstream, callTo(`http://${address}`, { path: `/${round}` }));
    await Promise.race([heard.until("end"), heard.until("failed")]);
    const times = received.get(`/${round}`) ?? 0;
    expect(times).toBeLessThanOrEqual(1);
    if (heard.said.includes("end")) expect(times).toBe(1);
    else expect(heard.said).toEqual(["failed reset"]);
  }
});

test("a receiver may send and resume from within what it hears", async () => {
  const { upstream } = setUp();
  const baseUrl = await httpServer((request, response) => {
    if (request.url?.endsWith("/paused")) response.end("x".repeat(300_000));
    else response.end("short");
  });
  const paused = send(upstream, callTo(baseUrl, { path: "/paused" }), { data: () => free });
  let free = false;
  await paused.until("data");
  let inner: Heard | undefined;
  const outer = send(upstream, callTo(baseUrl), {
    data: () => {
      free = true;
      paused.exchange.resume();
      inner = send(upstream, callTo(baseUrl));
      return true;
    },
  });
  await outer.until("end");
  await paused.until("end");
  await inner?.until("end");
  expect(paused.bytes).toBe(300_000);
  expect(inner?.text).toBe("short");
});

test("close: what runs is reset, what waits or comes later was never sent", async () => {
  const { upstream, clock } = setUp({ connectionsMax: 1 });
  let arrived = 0;
  const baseUrl = await httpServer(() => (arrived += 1));
  const running = send(upstream, callTo(baseUrl));
  const waiting = send(upstream, callTo(baseUrl));
  await eventually(() => arrived === 1);
  await upstream.close();
  const late = send(upstream, callTo(baseUrl));
  await Promise.all([running, waiting, late].map((heard) => heard.until("failed")));
  expect(running.said).toEqual(["failed reset"]);
  expect(waiting.said).toEqual(["failed connect"]);
  expect(late.said).toEqual(["failed connect"]);
  expect(arrived).toBe(1);
  expect(clock.armed()).toBe(0);
});
