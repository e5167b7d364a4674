import { timingSafeEqual } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { sha256Hex } from "#domain/hash.ts";
import { ID_RANDOM_BYTES, makeId } from "#domain/ids.ts";
import { createRefusalCaps } from "#services/gateway/http/refusal-caps.ts";
import {
  createOperatorServer,
  RequestFault,
  sendError,
  type OperatorServerParts,
} from "#services/internal/operator-server.ts";
import type { Clock, Random } from "#services/ports.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";
import type { Control } from "./commands.ts";
import { parseJson } from "./json.ts";
import { addRoutes } from "./routes.ts";
import type { SettingView } from "./views.ts";

export interface ControlServerParts extends OperatorServerParts {
  readonly control: Control;
  readonly adminToken: string;
  readonly clock: Clock;
  readonly random: Random;
  /** What the process runs with, without a secret in it. */
  readonly settings: readonly SettingView[];
}

/** How long a closing server waits for the requests that it has; then it closes their connections too. */
const CLOSE_MS_MAX = 500;
/** Wrong tokens per caller address and minute. */
const LOGINS_MAX = 60;
const NOT_JSON = {
  code: "invalid_request",
  message: "The body is not valid JSON in UTF-8",
} as const;
const OPEN_PATHS: ReadonlySet<string> = new Set(["/healthz", "/readyz"]);

/**
 * The control API: for whoever holds the admin token, on a port of its own. Everything but the two probes asks for the
 * token first, so that a stranger learns nothing of the routes.
 */
export function createControlServer(parts: ControlServerParts): FastifyInstance {
  const { control, clock, random, telemetry } = parts;
  const isAdmin = adminCheck(parts.adminToken);
  const tooMany = "Too many wrong admin tokens; look at what is refused before you try again";
  const caps = createRefusalCaps(clock, tooMany);
  const app = createOperatorServer(parts, {
    forceCloseConnections: "idle",
    return503OnClosing: false,
    genReqId: () => makeId("req", clock.now(), random.bytes(ID_RANDOM_BYTES)),
    requestIdHeader: false,
  });

  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) => {
    if (body.length === 0) return done(null, undefined);
    const parsed = parseJson(Buffer.from(body));
    if (parsed) done(null, parsed.value);
    else done(new RequestFault(NOT_JSON));
  });

  app.addHook("onRequest", async (request, reply) => {
    void reply.header("x-request-id", request.id).header("cache-control", "no-store");
    if (OPEN_PATHS.has(request.url) || isAdmin(request.headers.authorization)) return undefined;
    return sendError(reply, caps.told(request.ip, LOGINS_MAX, { code: "invalid_admin_token" }));
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

/** Compares digests, so that neither the content nor the length of a wrong token shows in the time that it takes. */
function adminCheck(adminToken: string): (authorization: string | undefined) => boolean {
  const digest = (text: string) => Buffer.from(sha256Hex(text), "hex");
  const expected = digest(adminToken);
  return (authorization) => {
    const given = /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
    return timingSafeEqual(digest(given ?? ""), expected) && given !== undefined;
  };
}
