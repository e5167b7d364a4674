import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { errorHeaders, openaiErrorBody, refuseConnection } from "#services/errors.ts";
import type { Clock } from "#services/ports.ts";
import { SHAPES } from "#services/gateway/shapes/all.ts";
import { handleShape } from "#services/gateway/way/request.ts";
import type { Gateway, StoppedGateway } from "#services/gateway/gateway.ts";
import type { GatewayRequest, Handle, Sink } from "#services/gateway/parts.ts";
import { handleBalance, handleModel, handleModels, handleUnknown } from "./reads.ts";
import { receiveBody } from "./receive-body.ts";

/** How long a connection may stay idle between two requests; longer than what clients and proxies keep theirs. */
const KEEP_ALIVE_MS = 72_000;
/** A whole request, body included, must have arrived within this: a slow sender does not keep its place for ever. */
const REQUEST_MS_MAX = 120_000;
const CONNECTIONS_MAX = 10_000;
/**
 * How long, beside the largest body, what a refused client still sends is read and dropped. Closing at once would reset
 * the connection, and the client would lose the answer that says why.
 */
const LINGER_MS_MAX = 5_000;

/** How long a connection that was idle for too long is still looked at before it is closed. */
const IDLE_GRACE_MS = 500;

/**
 * Closes a connection that was idle for too long, unless a request has come on it. A process that was stopped finds
 * that time over on waking, before it has looked at what its clients sent meanwhile.
 */
function closeIdle(clock: Clock, socket: Socket): void {
  const { bytesRead } = socket;
  clock.timer(IDLE_GRACE_MS, () => {
    if (socket.bytesRead === bytesRead) socket.destroy();
  });
}

/**
 * Closes a gateway: takes no more connections and drops those without a request, lets what runs finish within `drainMs`
 * down to the last byte that its client has yet to take, then cuts it. Whatever clients do, it ends in time.
 */
export async function stopGateway(
  gateway: Gateway,
  app: FastifyInstance,
  drainMs: number,
): Promise<StoppedGateway> {
  // The connections are a piece of work like any other: the drain waits until the last of them has gone.
  const closed = gateway.track(app.close());
  const stopped = await gateway.stop(drainMs, () => app.server.closeAllConnections());
  await closed;
  return stopped;
}

/** The data plane's routes, each handed to its function with the raw request and response: bodies are ours to read. */
export function createGatewayServer(gateway: Gateway): FastifyInstance {
  /** How many requests of each connection are being answered, to the last byte: with pipelining there can be several. */
  const running = new Map<Socket, number>();
  const app = Fastify({
    keepAliveTimeout: KEEP_ALIVE_MS,
    requestTimeout: REQUEST_MS_MAX,
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    // Fastify would answer a closing server with a body of its own shape.
    return503OnClosing: false,
    clientErrorHandler(error, socket) {
      // An answer that is under way is broken off: an error behind it would look like a part of it.
      if ((running.get(socket) ?? 0) > 0) socket.destroy();
      else refuseConnection(error, socket);
    },
    // A path that cannot be read. The framework's own answer would repeat it.
    frameworkErrors: (_error, request, reply) => unknown(request, reply),
  });
  app.server.maxConnections = CONNECTIONS_MAX;
  app.server.on("timeout", (socket: Socket) => closeIdle(gateway.parts.clock, socket));
  app.server.on("connection", (socket: Socket) => {
    running.set(socket, 0);
    socket.once("close", () => running.delete(socket));
  });
  // Node's own takes a connection for idle as soon as its answer was handed over, sent or not, and one with half a
  // request for busy.
  app.server.closeIdleConnections = () => {
    for (const [socket, answers] of running) if (answers === 0) socket.destroy();
  };
  function count(socket: Socket, change: 1 | -1): void {
    const answers = running.get(socket);
    if (answers === undefined) return;
    running.set(socket, answers + change);
    if (answers + change === 0 && gateway.isStopping()) socket.destroySoon();
  }
  const answered = (socket: Socket) => count(socket, -1);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_request, _payload, done) => done(null));

  function route(raw: IncomingMessage, response: ServerResponse, handle: Handle): void {
    count(raw.socket, 1);
    const sink = sinkOf(gateway, raw, response, answered);
    gateway
      .track(handle(gateway, requestOf(gateway.parts.clock, raw), sink))
      .catch((error: unknown) => {
        // The message stays out of the answer and the log: it could quote the request.
        const name = error instanceof Error ? error.name : "unknown";
        gateway.parts.telemetry.alarm("request_failed", { error: name, at: frameOf(error) });
        // Its handler has answered; only an error before there was a request id is left to answer here.
        if (response.headersSent) return;
        sink.head(500, errorHeaders({ code: "internal_error" }));
        sink.end(openaiErrorBody({ code: "internal_error" }));
      });
  }
  function unknown(request: FastifyRequest, reply: FastifyReply): void {
    reply.hijack();
    route(request.raw, reply.raw, handleUnknown);
  }
  function add(paths: readonly string[], handle: (parameters: unknown) => Handle): void {
    for (const path of paths) {
      app.all(path, {
        // Taken over before Fastify looks at the body: it is ours to read, and the rest of its way would do nothing.
        onRequest(request, reply, _done) {
          reply.hijack();
          route(request.raw, reply.raw, handle(request.params));
        },
        handler: taken,
      });
    }
  }

  const both = (path: string) => [`/v1${path}`, `/openai/v1${path}`];
  for (const shape of SHAPES) {
    const handle = handleShape(shape);
    add(both(shape.path), () => handle);
  }
  add(both("/models"), () => handleModels);
  add(both("/models/:id"), (parameters) => handleModel((parameters as { id: string }).id));
  add(["/v1/balance"], () => handleBalance);
  // The framework looks at the body of an unknown route, and may have an error of its own about it.
  app.setNotFoundHandler(unknown);
  app.setErrorHandler((_error, request, reply) => unknown(request, reply));
  return app;
}

/** The handler of a route whose request was taken over before. */
function taken(): never {
  throw new Error("the request was taken over before its handler");
}

/** Where an error was thrown: the first line of its stack that names a file, without the message. */
function frameOf(error: unknown): string {
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  return /\n\s+at [^\n]*?([\w./-]+\.ts:\d+)/.exec(stack)?.[1] ?? "";
}

function requestOf(clock: Clock, raw: IncomingMessage): GatewayRequest {
  return {
    method: raw.method ?? "",
    headers: raw.headers,
    remoteAddress: raw.socket.remoteAddress ?? "",
    body: (bytesMax, room) => receiveBody(clock, raw, bytesMax, room),
  };
}

function sinkOf(
  gateway: Gateway,
  raw: IncomingMessage,
  response: ServerResponse,
  answered: (socket: Socket) => void,
): Sink {
  const { socket } = raw;
  let gone = socket.destroyed;
  let told = { drained: () => {}, gone: () => {} };
  /** The head of an answer to a request that has not come whole; it waits for its body. */
  let early: { status: number; headers: Readonly<Record<string, string>> } | undefined;
  /** The answer went out before its request had come whole: its end waits for the rest. */
  let lingers = false;

  function sendEarly(more: Readonly<Record<string, string>>): void {
    if (early === undefined) return;
    response.writeHead(early.status, { ...early.headers, ...more, connection: "close" });
    early = undefined;
    lingers = true;
  }

  response.on("close", () => {
    answered(socket);
    if (gone || response.writableFinished) return;
    gone = true;
    told.gone();
  });
  response.on("drain", () => told.drained());
  // A client that breaks the connection is noticed by "close"; the error itself says nothing more.
  response.on("error", () => {});
  return {
    head(status, headers) {
      if (gone) return;
      const closing = gateway.isStopping() ? { connection: "close" } : {};
      if (!raw.complete) early = { status, headers };
      else response.writeHead(status, { ...headers, ...closing });
    },
    write(bytes) {
      if (gone) return true;
      sendEarly({});
      return response.write(bytes);
    },
    end(bytes = "") {
      if (gone) return;
      sendEarly({ "content-length": String(Buffer.byteLength(bytes)) });
      if (!lingers) return void response.end(bytes);
      response.write(bytes);
      void dropRest(gateway, raw).then(() => response.end());
    },
    destroy: () => void response.destroy(),
    listen(events) {
      told = events;
    },
    isGone: () => gone,
  };
}

/** Reads on and drops what a refused client still sends; comes back when it has ended, or has sent on for too long. */
function dropRest(gateway: Gateway, raw: IncomingMessage): Promise<void> {
  const { clock, limits } = gateway.parts;
  return new Promise((resolve) => {
    let dropped = 0;
    const through = () => {
      cancel();
      resolve();
    };
    const cancel = clock.timer(LINGER_MS_MAX, through);
    raw.on("data", (piece: Buffer) => {
      dropped += piece.length;
      if (dropped > limits.bodyBytesMax) through();
    });
    raw.on("end", through);
    raw.on("close", through);
    raw.resume();
  });
}
