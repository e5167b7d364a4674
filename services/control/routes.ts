import { PassThrough } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { openaiErrorBody } from "#services/errors.ts";
import { sendError } from "#services/internal/operator-server.ts";
import type { RebuildProgress, Telemetry } from "#services/ports.ts";
import {
  invalid,
  readCreditBody,
  readKeyBody,
  readNameBody,
  readReplayBody,
  showable,
  type Read,
} from "./bodies.ts";
import type { CommandContext, Control } from "./commands.ts";
import type { Outcome, Replay } from "./queries.ts";
import type { Page, SettingView } from "./views.ts";

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"] as const;
type Method = (typeof METHODS)[number];
type Handle = (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply>;

const IDEMPOTENCY_KEY_LENGTH_MAX = 255;
const LIST_LIMIT = 20;
/** Progress that nobody reads is left out once so much of it waits. */
const UNREAD_BYTES_MAX = 64 * 1024;

/** The routes of the control API, each thin: read what was sent, call, answer. */
export function addRoutes(
  app: FastifyInstance,
  control: Control,
  telemetry: Pick<Telemetry, "alarm">,
  settings: readonly SettingView[],
): void {
  /** A command with a body: created things answer 201, a repeat with what the first call answered. */
  function create<Body, T>(
    read: (body: unknown) => Read<Body>,
    run: (request: FastifyRequest, body: Body, context: CommandContext) => Promise<Outcome<T>>,
  ): Handle {
    return async (request, reply) => {
      const context = commandContext(request);
      if (!context.ok) return sendError(reply, context.error);
      const query = readQuery(request, []);
      if (!query.ok) return sendError(reply, query.error);
      const body = read(request.body);
      if (!body.ok) return sendError(reply, body.error);
      return answer(reply, 201, await run(request, body.value, context.value));
    };
  }

  function list<T>(
    names: readonly string[],
    run: (
      request: FastifyRequest,
      page: Page,
      query: Readonly<Record<string, string>>,
    ) => Promise<Outcome<T>>,
  ): Handle {
    return async (request, reply) => {
      const query = readQuery(request, ["limit", "after", "order", ...names]);
      if (!query.ok) return sendError(reply, query.error);
      const page = readPage(query.value);
      if (!page.ok) return sendError(reply, page.error);
      return answer(reply, 200, await run(request, page.value, query.value));
    };
  }

  function one<T>(run: (request: FastifyRequest) => Promise<Outcome<T>>): Handle {
    return async (request, reply) => {
      const query = readQuery(request, []);
      if (!query.ok) return sendError(reply, query.error);
      return answer(reply, 200, await run(request));
    };
  }

  add(app, "/v1/orgs", {
    POST: create(readNameBody, (_request, body, context) =>
      control.createOrganization(body, context),
    ),
    GET: list([], (_request, page) => control.listOrganizations(page)),
  });
  add(app, "/v1/orgs/:id", { GET: one((request) => control.getOrganization(idOf(request))) });
  add(app, "/v1/orgs/:id/balance", { GET: one((request) => control.balance(idOf(request))) });
  add(app, "/v1/orgs/:id/credits", {
    POST: create(readCreditBody, (request, body, context) =>
      control.addCredit(idOf(request), body, context),
    ),
  });
  add(app, "/v1/orgs/:id/keys", {
    POST: create(readKeyBody, (request, body, context) =>
      control.issueKey(idOf(request), body, context),
    ),
    GET: list([], (request, page) => control.listKeysOf(idOf(request), page)),
  });
  add(app, "/v1/keys", {
    GET: list(["org", "token_sha256"], (_request, page, { org, token_sha256 }) =>
      org === undefined
        ? control.listKeys(page, token_sha256 === undefined ? {} : { tokenSha256: token_sha256 })
        : control.listKeysOf(org, page, token_sha256),
    ),
  });
  add(app, "/v1/keys/:id", {
    DELETE: one((request) => control.revokeKey(idOf(request), { requestId: request.id })),
  });
  add(app, "/v1/config", {
    GET: one(async () => {
      const value = { object: "config", data: settings };
      return { ok: true, value, replayed: false };
    }),
  });
  add(app, "/v1/replay", {
    async POST(request, reply) {
      const query = readQuery(request, []);
      if (!query.ok) return sendError(reply, query.error);
      const body = readReplayBody(request.body);
      if (!body.ok) return sendError(reply, body.error);
      const replay = control.openReplay(body.value.projection);
      if (!replay.ok) return sendError(reply, replay.error);
      return sendReplay(reply, replay.value, telemetry);
    },
  });
}

/** A path with its methods; any other method is told which there are. */
function add(app: FastifyInstance, url: string, handles: Partial<Record<Method, Handle>>): void {
  const allow = Object.keys(handles).join(", ");
  for (const method of METHODS) {
    const handler: Handle =
      handles[method] ??
      (async (_request, reply) =>
        sendError(reply.header("allow", allow), {
          code: "method_not_allowed",
          message: `Method not allowed: this URL takes ${allow}`,
        }));
    app.route({ method, url, handler });
  }
}

function answer<T>(reply: FastifyReply, status: number, outcome: Outcome<T>): FastifyReply {
  if (!outcome.ok) return sendError(reply, outcome.error);
  if (outcome.replayed) void reply.header("idempotent-replayed", "true");
  return reply
    .code(status)
    .type("application/json; charset=utf-8")
    .send(JSON.stringify(outcome.value));
}

/** The id in the path. One that is no id at all is simply unknown: no stream has its name. */
function idOf(request: FastifyRequest): string {
  const { id } = request.params as { readonly id: string };
  return /^[a-z]{3}_[0-9A-HJKMNP-TV-Z]{26}$/.test(id) ? id : "";
}

function commandContext(request: FastifyRequest): Read<CommandContext> {
  const given = request.headers["idempotency-key"];
  if (given === undefined) return { ok: true, value: { requestId: request.id } };
  if (
    typeof given !== "string" ||
    given.length === 0 ||
    given.length > IDEMPOTENCY_KEY_LENGTH_MAX
  ) {
    return invalid(
      `The header Idempotency-Key must have 1 to ${IDEMPOTENCY_KEY_LENGTH_MAX} characters`,
      null,
    );
  }
  return { ok: true, value: { requestId: request.id, idempotencyKey: given } };
}

function readQuery(
  request: FastifyRequest,
  allowed: readonly string[],
): Read<Readonly<Record<string, string>>> {
  const query: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.query as Record<string, unknown>)) {
    if (!allowed.includes(name))
      return invalid(`Unknown parameter of the URL: ${showable(name)}`, null);
    if (typeof value !== "string") return invalid(`'${name}' may be given once`, name);
    query[name] = value;
  }
  return { ok: true, value: query };
}

function readPage(query: Readonly<Record<string, string>>): Read<Page> {
  const { limit = String(LIST_LIMIT), after, order = "desc" } = query;
  if (!/^([1-9]\d?|100)$/.test(limit))
    return invalid("'limit' must be a whole number from 1 to 100", "limit");
  if (order !== "asc" && order !== "desc")
    return invalid("'order' must be asc (the oldest first) or desc", "order");
  return {
    ok: true,
    value: { limit: Number(limit), order, ...(after === undefined ? {} : { after }) },
  };
}

/** Answers with a line of JSON for each step, and one that says that it is done, or why it is not. */
function sendReplay(
  reply: FastifyReply,
  replay: Replay,
  telemetry: Pick<Telemetry, "alarm">,
): FastifyReply {
  const lines = new PassThrough();
  // Who asked may have left; the replay goes on, and its lines are not kept.
  lines.on("error", () => {});
  const write = (line: string) => {
    if (!lines.destroyed && lines.writableLength < UNREAD_BYTES_MAX) lines.write(`${line}\n`);
  };
  replay
    .run((progress) => write(JSON.stringify(progressView(progress))))
    .then(
      (done) => lines.end(`${JSON.stringify({ done: true, data: done.map(progressView) })}\n`),
      (error: unknown) => {
        const name = error instanceof Error ? error.name : "unknown";
        telemetry.alarm("replay_failed", { error: name });
        const message = "The replay failed; the read model in use is as it was";
        lines.end(`${openaiErrorBody({ code: "ledger_unavailable", message })}\n`);
      },
    );
  return reply.type("application/x-ndjson; charset=utf-8").send(lines);
}

/** Positions are texts: they may pass what a number in JSON carries; "start" is the one before the first event. */
function progressView({ projection, eventsDone, position, head }: RebuildProgress) {
  return { projection, events_done: eventsDone, position: String(position), head: String(head) };
}
