import Fastify, { type FastifyInstance, type FastifyReply } from "fastify";
import {
  errorHeaders,
  openaiErrorBody,
  refuseConnection,
  statusOf,
  type ErrorCode,
} from "#services/errors.ts";

/** What the internal listener tells: for probes and for Prometheus, never for applications. */
export interface InternalParts {
  /** Each dependency by name, and whether it can be used right now. */
  readonly ready: () => Readonly<Record<string, boolean>>;
  /** From the moment that the process was told to end: nothing should be sent to it any more. */
  readonly isStopping: () => boolean;
  readonly metricsText: () => Promise<string>;
  readonly metricsContentType: string;
}

/** As the control API has them: nobody's half request, and nobody's connections, stay for ever. */
const REQUEST_MS_MAX = 30_000;
const CONNECTIONS_MAX = 1_000;

/** `/healthz` (the process lives), `/readyz` (every dependency, as JSON), `/metrics` (Prometheus text). */
export function createInternalServer(parts: InternalParts): FastifyInstance {
  const app = Fastify({
    requestTimeout: REQUEST_MS_MAX,
    forceCloseConnections: true,
    // The framework's own answers would repeat the path and the query.
    frameworkErrors: (_error, _request, reply) => void refuse(reply, "invalid_request"),
    clientErrorHandler: refuseConnection,
  });
  app.server.maxConnections = CONNECTIONS_MAX;
  app.setNotFoundHandler((_request, reply) => refuse(reply, "not_found"));
  app.setErrorHandler((error, _request, reply) => {
    const status = (error as { readonly statusCode?: unknown } | null)?.statusCode;
    const isTheirs = typeof status === "number" && status >= 400 && status < 500;
    return refuse(reply, isTheirs ? "invalid_request" : "internal_error");
  });
  app.get("/healthz", () => ({ ok: true }));
  app.get("/readyz", (_request, reply) => {
    const dependencies = parts.ready();
    const ready = Object.values(dependencies).every(Boolean) && !parts.isStopping();
    return reply.code(ready ? 200 : 503).send({ ready, dependencies });
  });
  app.get("/metrics", async (_request, reply) =>
    reply.type(parts.metricsContentType).send(await parts.metricsText()),
  );
  return app;
}

function refuse(reply: FastifyReply, code: ErrorCode): FastifyReply {
  return reply
    .code(statusOf({ code }))
    .headers(errorHeaders({ code }))
    .send(openaiErrorBody({ code }));
}
