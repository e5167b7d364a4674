import type { IncomingMessage, ServerResponse } from "node:http";
import Fastify, { type FastifyInstance } from "fastify";
import { errorHeaders, openaiErrorBody } from "#services/errors.ts";
import { handleChat } from "./chat.ts";
import type { Gateway } from "./gateway.ts";
import type { InFlight } from "./in-flight.ts";
import type { GatewayRequest, Sink } from "./parts.ts";
import { handleBalance, handleModel, handleModels, handleUnknown } from "./reads.ts";

type Handle = (request: GatewayRequest, sink: Sink) => Promise<void>;

/** How long a connection may stay idle between two requests; longer than what clients and proxies keep theirs. */
const KEEP_ALIVE_MS = 72_000;
/** A whole request, body included, must have arrived within this: a slow sender does not keep its place for ever. */
const REQUEST_MS_MAX = 120_000;
const CONNECTIONS_MAX = 10_000;

/** The data plane's routes, each handed to its function with the raw request and response: bodies are ours to read. */
export function createGatewayServer(gateway: Gateway): FastifyInstance {
  const app = Fastify({
    keepAliveTimeout: KEEP_ALIVE_MS,
    requestTimeout: REQUEST_MS_MAX,
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    // Fastify would answer a closing server with a body of its own shape.
    return503OnClosing: false,
  });
  app.server.maxConnections = CONNECTIONS_MAX;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_request, _payload, done) => done(null));

  function route(raw: IncomingMessage, response: ServerResponse, handle: Handle): void {
    const sink = sinkOf(gateway, raw, response);
    gateway.track(handle(requestOf(raw), sink)).catch((error: unknown) => {
      // The message stays out of the answer and the log: it could quote the request.
      const name = error instanceof Error ? error.name : "unknown";
      gateway.parts.telemetry.alarm("request_failed", { error: name, at: frameOf(error) });
      // Its handler has answered; only an error before there was a request id is left to answer here.
      if (response.headersSent) return;
      sink.head(500, errorHeaders({ code: "internal_error" }));
      sink.end(openaiErrorBody({ code: "internal_error" }));
    });
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
  add(both("/chat/completions"), () => (request, sink) => handleChat(gateway, request, sink));
  add(both("/models"), () => (request, sink) => handleModels(gateway, request, sink));
  add(both("/models/:id"), (parameters) => (request, sink) => {
    return handleModel(gateway, (parameters as { id: string }).id, request, sink);
  });
  add(["/v1/balance"], () => (request, sink) => handleBalance(gateway, request, sink));
  app.get("/healthz", () => ({ ok: true }));
  app.setNotFoundHandler((request, reply) => {
    reply.hijack();
    route(request.raw, reply.raw, (asked, sink) => handleUnknown(gateway, asked, sink));
  });
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

function requestOf(raw: IncomingMessage): GatewayRequest {
  return {
    method: raw.method ?? "",
    headers: raw.headers,
    remoteAddress: raw.socket.remoteAddress ?? "",
    body: (bytesMax, room) => readBody(raw, bytesMax, room),
  };
}

function readBody(
  raw: IncomingMessage,
  bytesMax: number,
  room: InFlight,
): ReturnType<GatewayRequest["body"]> {
  return new Promise((resolve) => {
    const pieces: Buffer[] = [];
    let size = 0;
    let over = false;
    function fail(why: "too_large" | "no_room" | "gone"): void {
      over = true;
      room.give(size);
      pieces.length = 0;
      resolve({ ok: false, why });
    }
    raw.on("data", (piece: Buffer) => {
      if (over) return;
      if (size + piece.length > bytesMax) return fail("too_large");
      if (!room.take(piece.length)) return fail("no_room");
      size += piece.length;
      pieces.push(piece);
    });
    raw.on("end", () => {
      if (over) return;
      over = true;
      const [first] = pieces;
      resolve({
        ok: true,
        bytes: first && pieces.length === 1 ? first : Buffer.concat(pieces, size),
      });
    });
    raw.on("close", () => {
      if (!over) fail("gone");
    });
  });
}

function sinkOf(gateway: Gateway, raw: IncomingMessage, response: ServerResponse): Sink {
  let gone = false;
  let told = { drained: () => {}, gone: () => {} };
  response.on("close", () => {
    if (response.writableFinished) return;
    gone = true;
    told.gone();
  });
  response.on("drain", () => told.drained());
  // A client that breaks the connection is noticed by "close"; the error itself says nothing more.
  response.on("error", () => {});
  return {
    head(status, headers) {
      if (gone) return;
      // What was not read of a refused body is not read any more either.
      const closes = gateway.isStopping() || !raw.complete;
      response.writeHead(status, closes ? { ...headers, connection: "close" } : headers);
    },
    write: (bytes) => gone || response.write(bytes),
    end(bytes) {
      if (!gone) response.end(bytes);
    },
    destroy: () => void response.destroy(),
    listen(events) {
      told = events;
    },
    isGone: () => gone,
  };
}
