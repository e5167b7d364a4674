import Fastify, { type FastifyHttpOptions, type FastifyInstance, type FastifyReply } from "fastify";
import type { Server } from "node:http";
import {
  refuseConnection,
  errorHeaders,
  openaiErrorBody,
  statusOf,
  type ApiError,
} from "#services/errors.ts";
import type { Telemetry } from "#services/ports.ts";
import { readinessView, type Readiness } from "./readiness.ts";

/** What the control API and the internal listener have in common: probes, limits, and errors of our own shape. */
export interface OperatorServerParts {
  readonly telemetry: Pick<Telemetry, "alarm">;
  readonly readiness: Readiness;
}

const BODY_BYTES_MAX = 64 * 1024;
/** A whole request must have arrived within this; an answer may take longer. */
const REQUEST_MS_MAX = 30_000;
const CONNECTIONS_MAX = 1_000;

/** What is wrong with a request, thrown where it is read. */
export class RequestFault extends Error {
  override readonly name = "RequestFault";
  readonly refusal: ApiError;
  constructor(refusal: ApiError) {
    super(refusal.code);
    this.refusal = refusal;
  }
}

/** A server that answers `/healthz` (the process lives) and `/readyz` (every dependency, as JSON), and nothing else yet. */
export function createOperatorServer(
  parts: OperatorServerParts,
  options: FastifyHttpOptions<Server>,
): FastifyInstance {
  const app = Fastify({
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_MS_MAX,
    exposeHeadRoutes: false,
    // The framework's own answers would repeat the path and the query.
    frameworkErrors: (_error, _request, reply) =>
      void sendError(reply, { code: "invalid_request", message: "The request URL is not valid" }),
    clientErrorHandler: refuseConnection,
    ...options,
  });
  app.server.maxConnections = CONNECTIONS_MAX;
  app.setNotFoundHandler((_request, reply) => sendError(reply, { code: "not_found" }));
  app.setErrorHandler((error, request, reply) => {
    const known = requestFault(error);
    if (known) return sendError(reply, known);
    // The message stays out of the answer and the alarm: it could quote the request.
    const name = error instanceof Error ? error.name : "unknown";
    parts.telemetry.alarm("control_request_failed", { requestId: request.id, error: name });
    return sendError(reply, { code: "internal_error", extra: { request_id: request.id } });
  });
  addProbes(app, parts.readiness);
  return app;
}

/**
 * Adds `/healthz`, which says that the process lives and asks nobody else, and `/readyz`, which says whether it can do its
 * work: 200 or 503, with each dependency by name.
 */
export function addProbes(app: FastifyInstance, readiness: Readiness): void {
  app.get("/healthz", () => ({ ok: true }));
  app.get("/readyz", async (_request, reply) => {
    const view = await readinessView(readiness);
    return reply.code(view.ready ? 200 : 503).send(view);
  });
}

/** Answers with an error of the table. */
export function sendError(reply: FastifyReply, error: ApiError): FastifyReply {
  return reply.code(statusOf(error)).headers(errorHeaders(error)).send(openaiErrorBody(error));
}

/** What is wrong with a request that Fastify, or the reading of its body, turned away. */
function requestFault(error: unknown): ApiError | undefined {
  if (error instanceof RequestFault) return error.refusal;
  const status = (error as { readonly statusCode?: unknown } | null)?.statusCode;
  if (status === 413) {
    const message = `The body is too large: at most ${BODY_BYTES_MAX} bytes`;
    return { code: "request_too_large", message };
  }
  if (status === 415) return { code: "unsupported_media_type" };
  return typeof status === "number" && status >= 400 && status < 500
    ? { code: "invalid_request", message: "The request is not valid" }
    : undefined;
}
