import { timingSafeEqual } from "node:crypto";
import Fastify, { type FastifyInstance } from "fastify";
import { sha256Hex } from "#domain/hash.ts";
import { ID_RANDOM_BYTES, makeId } from "#domain/ids.ts";
import { openaiErrorBody, type ApiError } from "#services/errors.ts";
import { capRetryAfterSeconds, createRefusalCaps } from "#services/gateway/http/refusal-caps.ts";
import type { Clock, Random, Telemetry } from "#services/ports.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";
import type { Control } from "./commands.ts";
import { parseJson } from "./json.ts";
import { addRoutes, sendError } from "./routes.ts";
import type { SettingView } from "./views.ts";

export interface ControlServerParts {
  readonly control: Control;
  readonly adminToken: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly telemetry: Pick<Telemetry, "alarm">;
  /** What the process runs with, without a secret in it. */
  readonly settings: readonly SettingView[];
  /** Each dependency by name, and whether it can be used right now. */
  readonly ready: () => Readonly<Record<string, boolean>>;
  /** From the moment that the process was told to end: nothing should be sent to it any more. */
  readonly isStopping: () => boolean;
}

const BODY_BYTES_MAX = 64 * 1024;
/** A whole request must have arrived within this; an answer may take longer. */
const REQUEST_MS_MAX = 30_000;
const CONNECTIONS_MAX = 1_000;
/** How long a closing server waits for the requests that it has; then it closes their connections too. */
const CLOSE_MS_MAX = 500;
/** Wrong tokens per caller address and minute. */
const LOGINS_MAX = 60;
const OPEN_PATHS: ReadonlySet<string> = new Set(["/healthz", "/readyz"]);

/**
 * The control API: for whoever holds the admin token, on a port of its own. Everything but the two probes asks for the
 * token first, so that a stranger learns nothing of the routes.
 */
export function createControlServer(parts: ControlServerParts): FastifyInstance {
  const { control, clock, random, telemetry } = parts;
  const isAdmin = adminCheck(parts.adminToken);
  const caps = createRefusalCaps(clock);
  const app = Fastify({
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_MS_MAX,
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    return503OnClosing: false,
    genReqId: () => makeId("req", clock.now(), random.bytes(ID_RANDOM_BYTES)),
    requestIdHeader: false,
    frameworkErrors: (_error, _request, reply) =>
      void sendError(reply, { code: "invalid_request", message: "The request URL is not valid" }),
    clientErrorHandler(error, socket) {
      if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
      const body = openaiErrorBody({ code: "invalid_request", message: "This is not valid HTTP" });
      socket.end(
        `HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      );
    },
  });
  app.server.maxConnections = CONNECTIONS_MAX;

  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) => {
    if (body.length === 0) return done(null, undefined);
    const parsed = parseJson(Buffer.from(body));
    if (parsed) done(null, parsed.value);
    else done(new NotJson("the body is not JSON"));
  });

  app.addHook("onRequest", async (request, reply) => {
    void reply.header("x-request-id", request.id).header("cache-control", "no-store");
    if (OPEN_PATHS.has(request.url) || isAdmin(request.headers.authorization)) return undefined;
    if (!caps.isPast(request.ip, LOGINS_MAX))
      return sendError(reply, { code: "invalid_admin_token" });
    const seconds = capRetryAfterSeconds(clock);
    const message = "Too many wrong admin tokens; look at what is refused before you try again";
    return sendError(reply, {
      code: "rate_limit_exceeded",
      message,
      extra: { retry_after: seconds },
      retryAfterSeconds: seconds,
    });
  });
  app.setErrorHandler((error, request, reply) => {
    const known = requestFault(error);
    if (known) return sendError(reply, known);
    // The message stays out of the answer and the alarm: it could quote the request.
    const name = error instanceof Error ? error.name : "unknown";
    telemetry.alarm("control_request_failed", { requestId: request.id, error: name });
    return sendError(reply, { code: "internal_error", extra: { request_id: request.id } });
  });
  app.setNotFoundHandler((_request, reply) => sendError(reply, { code: "not_found" }));

  app.get("/healthz", () => ({ ok: true }));
  app.get("/readyz", (_request, reply) => {
    const dependencies = parts.ready();
    const ready = Object.values(dependencies).every(Boolean) && !parts.isStopping();
    return reply.code(ready ? 200 : 503).send({ ready, dependencies });
  });
  addRoutes(app, control, telemetry, parts.settings);
  return app;
}

/** Takes no more connections, lets commands that run be answered, and ends in time whatever clients do. */
export async function closeControlServer(app: FastifyInstance, clock: Clock): Promise<void> {
  const closed: Promise<void> = app.close();
  if ((await within(clock, CLOSE_MS_MAX, closed)) === TIMED_OUT) app.server.closeAllConnections();
  await closed;
}

class NotJson extends Error {
  override readonly name = "NotJson";
}

/** Compares digests, so that neither the content nor the length of a wrong token shows in the time that it takes. */
function adminCheck(adminToken: string): (authorization: string | undefined) => boolean {
  const digest = (text: string) => Buffer.from(sha256Hex(text), "hex");
  const expected = digest(adminToken);
  return (authorization) => {
    const given = /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
    return timingSafeEqual(digest(given ?? ""), expected) && given !== undefined;
  };
}

/** What is wrong with a request that Fastify, or the reading of its body, turned away. */
function requestFault(error: unknown): ApiError | undefined {
  if (error instanceof NotJson)
    return { code: "invalid_request", message: "The body is not valid JSON in UTF-8" };
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
