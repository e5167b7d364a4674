import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { SIMULATOR_MODELS } from "#domain/catalogue/simulator.ts";
import { errorPlan, planAnswer } from "./answer.ts";
import { openBook } from "./book.ts";
import { planEmbeddings, readEmbeddings } from "./embeddings.ts";
import { createGates } from "./gates.ts";
import { readRequest } from "./request.ts";
import { sendAnswer } from "./send.ts";
import type { AnswerPlan } from "./answer.ts";
import type { Book, BookCall, CallBeginning } from "./book.ts";
import type { Directives } from "./directives.ts";
import type { Gates } from "./gates.ts";
import type { Refused } from "./request.ts";
import { guardLoopback } from "#services/loopback.ts";
import type { Clock, Random } from "#services/ports.ts";

export interface SimulatorOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** File of the book; without it the book is in memory only. */
  readonly bookPath?: string;
  /** Calls that `book()` and `GET /book` know, the newest. */
  readonly bookCallsMax?: number;
  readonly bodyBytesMax?: number;
  /** Told in one sentence, without any text of a caller, what went wrong on this side. */
  readonly warn?: (message: string) => void;
}

/** A simulated upstream host in OpenAI's shape. */
export interface Simulator {
  /** Starts to listen on loopback (0 takes a free port) and gives its address, without a path. Rejects when it cannot. */
  listen(port: number): Promise<string>;
  /** Closes all connections, running answers included, and the book. */
  close(): Promise<void>;
  book(afterCall?: number): BookCall[];
  /** Lets go the answers that wait for this name, now and from now on; says how many waited. */
  release(name: string): number;
}

/** Whatever else a process opens to others, nobody else has anything to ask here. */
const LOOPBACK = "127.0.0.1";
const BODY_BYTES_MAX = 32 * 1024 * 1024;
const BOOK_CALLS_MAX = 100_000;
const RELEASED_NAMES_MAX = 10_000;
const HEADER_CHARACTERS_MAX = 256;
/** Longer than the callers' pools keep a connection, so that no call meets one that is just being closed. */
const KEEP_ALIVE_MS = 75_000;

/** What a provider says of our account in its heads, and what a gateway must not pass on. */
const ACCOUNT_HEADERS = {
  "openai-organization": "simulated-organization",
  "openai-version": "2020-10-01",
  "x-ratelimit-limit-requests": "10000",
  "x-ratelimit-remaining-requests": "9999",
  "set-cookie": "__cf_bm=simulated; path=/; HttpOnly",
};

interface Host {
  readonly options: SimulatorOptions;
  readonly book: Book;
  readonly gates: Gates;
  /** Different at each start, so that ids never repeat. */
  readonly startId: string;
  answers: number;
  closing: boolean;
}

/** Makes a simulated upstream. Throws when the book cannot be opened or is damaged. */
export function createSimulator(options: SimulatorOptions): Simulator {
  const host: Host = {
    options,
    book: openBook({ path: options.bookPath, callsMax: options.bookCallsMax ?? BOOK_CALLS_MAX }),
    gates: createGates(RELEASED_NAMES_MAX),
    startId: Buffer.from(options.random.bytes(6)).toString("hex"),
    answers: 0,
    closing: false,
  };
  const running = new Set<Promise<void>>();
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (req, res) => {
    const run = handle(host, req, res).catch((error: unknown) => {
      warn(host, "a call failed", error);
      res.destroy();
    });
    running.add(run);
    void run.finally(() => running.delete(run));
  });
  return {
    listen: (port) =>
      new Promise((resolve, reject) => {
        server.once("error", reject);
        guardLoopback(server, LOOPBACK, (res, { message }) => {
          sendPlan(res, errorPlan(403, message ?? ""));
        });
        server.listen(port, LOOPBACK, () => {
          server.off("error", reject);
          const bound = server.address();
          if (typeof bound !== "object" || bound === null)
            throw new Error("the server has no address");
          resolve(`http://${LOOPBACK}:${bound.port}`);
        });
      }),
    async close() {
      host.closing = true;
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      });
      await Promise.all(running);
      host.book.close();
    },
    book: (afterCall) => host.book.calls(afterCall),
    release: (name) => host.gates.release(name),
  };
}

async function handle(host: Host, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const url = URL.parse(req.url ?? "/", "http://simulator");
  if (url === null) return sendPlan(res, errorPlan(400, "the address cannot be read"));
  const route = `${req.method} ${url.pathname}`;
  const plan = CALLS[route];
  if (plan) return answer(host, plan, req, res);
  req.resume();
  const released = /^POST \/release\/([^/]{1,128})$/.exec(route)?.[1];
  if (released !== undefined) {
    const name = decoded(released);
    if (name === undefined) return sendPlan(res, errorPlan(400, "the name cannot be read"));
    return sendJson(res, { name, released: host.gates.release(name) });
  }
  if (route === "GET /openai/v1/models") {
    if (keyOf(req) === undefined) return sendPlan(res, noKeyPlan());
    return sendJson(res, { object: "list", data: SIMULATOR_MODELS.map(modelObject) });
  }
  if (route === "GET /book") return sendBook(host, url, res);
  if (route === "GET /healthz") return sendJson(res, { status: "ok" });
  sendPlan(res, errorPlan(404, `there is no ${req.method} on this path of the simulator`));
}

/** What a call asks of the simulator besides its answer. */
interface Asked {
  readonly model: string;
  readonly stream: boolean;
  readonly directives: Directives;
}
interface Planned {
  readonly plan: AnswerPlan;
  readonly asked?: Asked;
}
type PlanCall = (body: unknown, id: string, createdUnix: number) => Planned;

/** The routes whose calls are booked, each with what decides its answers. */
const CALLS: Readonly<Record<string, PlanCall>> = {
  "POST /openai/v1/chat/completions": (body, id, createdUnix) =>
    planned(readRequest(body), (request) =>
      planAnswer(request, { id: `chatcmpl-${id}`, createdUnix }),
    ),
  "POST /openai/v1/embeddings": (body) => planned(readEmbeddings(body), planEmbeddings),
};

function planned<Request extends Asked>(
  read: { readonly ok: true; readonly request: Request } | Refused,
  plan: (request: Request) => AnswerPlan,
): Planned {
  if (!read.ok) return { plan: errorPlan(400, read.message, { param: read.param }) };
  return { plan: plan(read.request), asked: read.request };
}

/** One call: read, decided, booked, answered, booked as ended. */
async function answer(
  host: Host,
  planCall: PlanCall,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const { clock } = host.options;
  const body = await readBody(req, host.options.bodyBytesMax ?? BODY_BYTES_MAX);
  if (body === "gone") return;
  const key = keyOf(req);
  const atMs = clock.now();
  host.answers += 1;
  const id = `sim${host.startId}${host.answers.toString(36)}`;
  const { plan, asked }: Planned =
    key === undefined
      ? { plan: noKeyPlan() }
      : planBody(body, (json) => planCall(json, id, Math.floor(atMs / 1000)));
  const call = begin(host, {
    atMs,
    requestId: headerText(req, "x-client-request-id") ?? null,
    keyLast4: key?.slice(-4) ?? "",
    model: asked?.model ?? "",
    stream: asked?.stream ?? false,
    status: plan.cut?.how === "hang-up" ? 0 : plan.status,
    tokens: plan.tokens,
  });
  if (call === undefined)
    return sendPlan(res, errorPlan(500, "the simulator cannot write its book"));
  const headers = { ...ACCOUNT_HEADERS, "x-request-id": `req_${id}` };
  const waits = asked?.directives ?? {};
  const outcome = await sendAnswer({ plan, waits, headers, clock, gates: host.gates }, res);
  const clientGone = outcome.clientGone && !host.closing;
  host.book.end({ call, endedAtMs: clock.now(), ...outcome, clientGone });
}

/** The call's number in the book; undefined when the book cannot be written, and then nothing may be answered. */
function begin(host: Host, facts: Omit<CallBeginning, "call">): number | undefined {
  try {
    return host.book.begin(facts);
  } catch (error) {
    warn(host, "the book cannot be written", error);
    return undefined;
  }
}

/** The whole body, as text; `too_large` past the limit, `gone` when the caller left first. */
function readBody(
  req: IncomingMessage,
  bytesMax: number,
): Promise<{ text: string } | "too_large" | "gone"> {
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    req.on("data", (part: Buffer) => {
      bytes += part.length;
      if (bytes <= bytesMax) parts.push(part);
      else parts.length = 0;
    });
    req.once("end", () =>
      resolve(bytes > bytesMax ? "too_large" : { text: Buffer.concat(parts).toString() }),
    );
    req.once("close", () => resolve("gone"));
  });
}

function planBody(body: { text: string } | "too_large", plan: (json: unknown) => Planned): Planned {
  if (body === "too_large") return { plan: errorPlan(413, "the body is too large") };
  let json: unknown;
  try {
    json = JSON.parse(body.text);
  } catch {
    return { plan: errorPlan(400, "the body is not JSON, or nested too deep") };
  }
  return plan(json);
}

/** The key of `Authorization: Bearer <key>`. Any key will do. */
function keyOf(req: IncomingMessage): string | undefined {
  return /^Bearer +(\S+)$/i.exec(req.headers.authorization ?? "")?.[1];
}

function headerText(req: IncomingMessage, name: string): string | undefined {
  const value = req.headers[name];
  return typeof value === "string" ? value.slice(0, HEADER_CHARACTERS_MAX) : undefined;
}

function noKeyPlan(): AnswerPlan {
  return errorPlan(401, "no API key: the simulator takes any key as 'Authorization: Bearer <key>'");
}

/** The models of the catalogue are listed; any other name is answered as well. */
function modelObject(model: { readonly id: string; readonly createdUnix: number }): object {
  return { id: model.id, object: "model", created: model.createdUnix, owned_by: "relai-simulator" };
}

/** The book as JSON lines, one per call; `?after=N` leaves out the calls up to number N. */
function sendBook(host: Host, url: URL, res: ServerResponse): void {
  const after = url.searchParams.get("after") ?? "0";
  if (!/^\d{1,15}$/.test(after))
    return sendPlan(res, errorPlan(400, "after is not the number of a call"));
  res.writeHead(200, { "content-type": "application/x-ndjson" });
  const lines = host.book.calls(Number(after)).map((call) => `${JSON.stringify(call)}\n`);
  res.end(lines.join(""));
}

/** Sends an answer that is not booked. */
function sendPlan(res: ServerResponse, plan: AnswerPlan): void {
  res.writeHead(plan.status, { "content-type": plan.contentType });
  res.end(plan.body);
}

function sendJson(res: ServerResponse, value: object): void {
  res.writeHead(200, { "content-type": "application/json" });
  res.end(JSON.stringify(value));
}

function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

function warn(host: Host, what: string, error: unknown): void {
  host.options.warn?.(`${what}: ${error instanceof Error ? error.name : "unknown error"}`);
}
