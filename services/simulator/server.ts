import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { SIMULATOR_MODELS } from "#domain/catalogue/simulator.ts";
import { guardLoopback } from "#services/loopback.ts";
import type { Clock, Random } from "#services/ports.ts";
import { errorPlan, planAnswer, type AnswerPlan } from "./answer.ts";
import { openBook, type Book, type BookCall, type CallBeginning } from "./book.ts";
import type { AnswerStamp } from "./chunks.ts";
import { planEmbeddings, readEmbeddings } from "./embeddings.ts";
import { createGates, type Gates } from "./gates.ts";
import { Refused } from "./refused.ts";
import { readRequest, type ChatRequest } from "./request.ts";
import { sendAnswer } from "./send.ts";

export interface SimulatorOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** 0 takes a free port. */
  readonly port: number;
  /** File of the book; without it the book is in memory only. */
  readonly bookPath?: string;
  readonly bodyBytesMax?: number;
  /** Told in one sentence, without any text of a caller, what went wrong on this side. */
  readonly warn?: (message: string) => void;
}

/** A simulated upstream host in OpenAI's shape. */
export interface Simulator {
  /** Its address on loopback, without a path. */
  readonly url: string;
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

/** Starts a simulated upstream. Rejects when the port is taken, or the book cannot be opened or is damaged. */
export async function startSimulator(options: SimulatorOptions): Promise<Simulator> {
  const host: Host = {
    options,
    book: openBook({ path: options.bookPath, callsMax: BOOK_CALLS_MAX }),
    gates: createGates(RELEASED_NAMES_MAX),
    startId: Buffer.from(options.random.bytes(6)).toString("hex"),
    answers: 0,
    closing: false,
  };
  const running = new Set<Promise<void>>();
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (req, res) => {
    const run = handle(host, req, res).catch((error: unknown) => {
      if (error instanceof Refused) return sendPlan(res, errorPlan(error));
      warn(host, "a call failed", error);
      res.destroy();
    });
    running.add(run);
    void run.finally(() => running.delete(run));
  });
  guardLoopback(server, LOOPBACK, (res, { message = "" }) => {
    sendPlan(res, errorPlan({ status: 403, message }));
  });
  try {
    await once(server.listen(options.port, LOOPBACK), "listening");
  } catch (error) {
    host.book.close();
    throw error;
  }
  return {
    url: `http://${LOOPBACK}:${(server.address() as AddressInfo).port}`,
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
  if (url === null) throw new Refused("the address cannot be read");
  const route = `${req.method} ${url.pathname}`;
  const call = CALLS[route];
  if (call) return answer(host, call, req, res);
  req.resume();
  const released = /^POST \/release\/([^/]{1,128})$/.exec(route)?.[1];
  if (released !== undefined) {
    const name = decoded(released);
    return sendJson(res, { name, released: host.gates.release(name) });
  }
  if (route === "GET /openai/v1/models") {
    if (keyOf(req) === undefined) throw noKey();
    return sendJson(res, { object: "list", data: SIMULATOR_MODELS.map(modelObject) });
  }
  if (route === "GET /book") return sendBook(host, url, res);
  if (route === "GET /healthz") return sendJson(res, { status: "ok" });
  throw new Refused(`there is no ${req.method} on this path of the simulator`, { status: 404 });
}

/** How a call is answered, and what it asks besides its answer. */
interface Planned {
  readonly plan: AnswerPlan;
  readonly asked?: Pick<ChatRequest, "model" | "stream" | "directives">;
}
type PlanCall = (body: unknown, stamp: AnswerStamp) => Planned;

/** The routes whose calls are booked, each with what decides its answers. */
const CALLS: Readonly<Record<string, PlanCall>> = {
  "POST /openai/v1/chat/completions"(body, { id, createdUnix }) {
    const asked = readRequest(body);
    return { plan: planAnswer(asked, { id: `chatcmpl-${id}`, createdUnix }), asked };
  },
  "POST /openai/v1/embeddings"(body) {
    const asked = readEmbeddings(body);
    return { plan: planEmbeddings(asked), asked };
  },
};

/** One call: read, decided, booked, answered, booked as ended. */
async function answer(
  host: Host,
  planCall: PlanCall,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const { clock, bodyBytesMax = BODY_BYTES_MAX } = host.options;
  const text = await readText(req, bodyBytesMax).catch(() => null);
  if (text === null) return;
  const key = keyOf(req);
  const atMs = clock.now();
  host.answers += 1;
  const id = `sim${host.startId}${host.answers.toString(36)}`;
  const stamp = { id, createdUnix: Math.floor(atMs / 1000) };
  const { plan, asked } = decide(planCall, key, text, stamp);
  const call = begin(host, {
    atMs,
    requestId: headerText(req, "x-client-request-id") ?? null,
    keyLast4: key?.slice(-4) ?? "",
    model: asked?.model ?? "",
    stream: asked?.stream ?? false,
    status: plan.cut?.how === "hang-up" ? 0 : plan.status,
    tokens: plan.tokens,
  });
  const headers = { ...ACCOUNT_HEADERS, "x-request-id": `req_${id}` };
  const waits = asked?.directives ?? {};
  const outcome = await sendAnswer({ plan, waits, headers, clock, gates: host.gates }, res);
  const clientGone = outcome.clientGone && !host.closing;
  host.book.end({ call, endedAtMs: clock.now(), ...outcome, clientGone });
}

/** The whole body as text, undefined past the limit. Rejects when the caller leaves first. */
async function readText(req: IncomingMessage, bytesMax: number): Promise<string | undefined> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of req as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes <= bytesMax) parts.push(part);
    else parts.length = 0;
  }
  return bytes > bytesMax ? undefined : Buffer.concat(parts).toString();
}

function decide(
  planCall: PlanCall,
  key: string | undefined,
  text: string | undefined,
  stamp: AnswerStamp,
): Planned {
  try {
    if (key === undefined) throw noKey();
    if (text === undefined) throw new Refused("the body is too large", { status: 413 });
    return planCall(parsed(text), stamp);
  } catch (error) {
    if (error instanceof Refused) return { plan: errorPlan(error) };
    throw error;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Refused("the body is not JSON, or nested too deep");
  }
}

/** The call's number in the book. Where the book cannot be written, nothing may be answered as asked. */
function begin(host: Host, facts: Omit<CallBeginning, "call">): number {
  try {
    return host.book.begin(facts);
  } catch (error) {
    warn(host, "the book cannot be written", error);
    throw new Refused("the simulator cannot write its book", { status: 500 });
  }
}

/** The key of `Authorization: Bearer <key>`. Any key will do. */
function keyOf(req: IncomingMessage): string | undefined {
  return /^Bearer +(\S+)$/i.exec(req.headers.authorization ?? "")?.[1];
}

function headerText(req: IncomingMessage, name: string): string | undefined {
  const value = req.headers[name];
  return typeof value === "string" ? value.slice(0, HEADER_CHARACTERS_MAX) : undefined;
}

function noKey(): Refused {
  const message = "no API key: the simulator takes any key as 'Authorization: Bearer <key>'";
  return new Refused(message, { status: 401 });
}

/** The models of the catalogue are listed; any other name is answered as well. */
function modelObject(model: { readonly id: string; readonly createdUnix: number }): object {
  return { id: model.id, object: "model", created: model.createdUnix, owned_by: "relai-simulator" };
}

/** The book as JSON lines, one per call; `?after=N` leaves out the calls up to number N. */
function sendBook(host: Host, url: URL, res: ServerResponse): void {
  const after = url.searchParams.get("after") ?? "0";
  if (!/^\d{1,15}$/.test(after)) throw new Refused("after is not the number of a call");
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

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new Refused("the name cannot be read");
  }
}

function warn(host: Host, what: string, error: unknown): void {
  host.options.warn?.(`${what}: ${error instanceof Error ? error.name : "unknown error"}`);
}
