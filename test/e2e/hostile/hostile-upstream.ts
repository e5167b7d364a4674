import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { gzipSync } from "node:zlib";

/** An upstream that answers wrongly in every way asked for: the first `[do=<name>]` in a request's body names the way. */

export const MODEL = "gpt-4o-mini";
export const ANSWER = JSON.stringify({
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1,
  model: MODEL,
  choices: [{ index: 0, message: { role: "assistant", content: "Yes." }, finish_reason: "stop" }],
  usage: { prompt_tokens: 10, completion_tokens: 2, total_tokens: 12 },
});

const chunk = (delta: object, finish: string | null = null) =>
  `data: ${JSON.stringify({
    id: "chatcmpl-1",
    object: "chat.completion.chunk",
    created: 1,
    model: MODEL,
    choices: [{ index: 0, delta, finish_reason: finish }],
  })}\n\n`;
const USAGE = `data: ${JSON.stringify({
  id: "chatcmpl-1",
  object: "chat.completion.chunk",
  created: 1,
  model: MODEL,
  choices: [],
  usage: { prompt_tokens: 10, completion_tokens: 2, total_tokens: 12 },
})}\n\n`;
export const STREAM = `${chunk({ role: "assistant", content: "Yes." })}${chunk({}, "stop")}${USAGE}data: [DONE]\n\n`;

const MIB = 2 ** 20;
const JSON_TYPE = { "content-type": "application/json" };
const SSE_TYPE = { "content-type": "text/event-stream" };
const LETTERS = Buffer.alloc(MIB, "a");

/** Writes pieces for as long as the other side takes them and `count` lasts. */
function pour(res: ServerResponse, piece: Buffer | string, count: number, last = ""): void {
  let left = count;
  const go = () => {
    while (left > 0 && !res.destroyed) {
      left -= 1;
      if (!res.write(piece)) return void res.once("drain", go);
    }
    res.end(last);
  };
  go();
}

type Way = (res: ServerResponse, upstream: HostileUpstream) => void;

/** Bytes in place of an HTTP answer. */
const raw =
  (...texts: readonly string[]): Way =>
  (res) => {
    for (const text of texts) res.socket?.write(text);
    res.socket?.end();
  };

const status =
  (code: number, headers: Record<string, string>, body: string | Buffer): Way =>
  (res) => {
    res.writeHead(code, headers);
    res.end(body);
  };

export const WAYS = {
  // The plain answer and the stream, with their status and everything in order.
  answer: status(200, JSON_TYPE, ANSWER),
  stream: status(200, SSE_TYPE, STREAM),
  wait: (res, upstream) => void upstream.waiting.push(res),
  "long-stream": (res) => {
    res.writeHead(200, SSE_TYPE);
    pour(res, chunk({ content: "a".repeat(10_000) }), 400, STREAM);
  },
  "one-byte-chunks": (res) => {
    res.writeHead(200, JSON_TYPE);
    for (const letter of ANSWER) res.write(letter);
    pour(res, " ", 200_000);
  },
  "informational first": raw(
    "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n",
    `HTTP/1.1 200 OK\r\ncontent-length: ${ANSWER.length}\r\n\r\n${ANSWER}`,
  ),
  "no content-type": status(200, {}, ANSWER),
  // Too much.
  "100 MB": (res) => {
    res.writeHead(200, JSON_TYPE);
    pour(res, LETTERS, 100);
  },
  "10 MB line": (res) => {
    res.writeHead(200, SSE_TYPE);
    res.write('data: {"choices":[{"index":0,"delta":{"content":"');
    pour(res, LETTERS, 10, '"}}]}\n\ndata: [DONE]\n\n');
  },
  "no newline for ever": (res) => {
    res.writeHead(200, SSE_TYPE);
    pour(res, LETTERS, Infinity);
  },
  "comments for ever": (res) => {
    res.writeHead(200, SSE_TYPE);
    pour(res, Buffer.alloc(MIB, ": a\n"), Infinity);
  },
  "held-event": (res, upstream) => {
    res.writeHead(200, SSE_TYPE);
    res.write(`data: ${"a".repeat(3 * MIB)}`);
    upstream.waiting.push(res);
  },
  "large refusal": status(400, JSON_TYPE, JSON.stringify({ error: { message: "a".repeat(MIB) } })),
  "many headers": raw(`HTTP/1.1 200 OK\r\n${"x: y\r\n".repeat(20_000)}\r\n${ANSWER}`),
  // Wrong.
  gzip: status(200, { ...JSON_TYPE, "content-encoding": "gzip" }, gzipSync(ANSWER)),
  "length too long": raw(
    `HTTP/1.1 200 OK\r\ncontent-length: ${ANSWER.length + 9}\r\n\r\n${ANSWER}`,
  ),
  "length too short": raw(`HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n${ANSWER}`),
  "length and chunks": raw(
    `HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
  ),
  "not HTTP": raw("what?\r\n\r\n"),
  "an upgrade": raw(
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
  ),
  "only informational": raw("HTTP/1.1 100 Continue\r\n\r\n"),
  nothing: raw(),
  html: status(200, { "content-type": "text/html" }, "<html>"),
  empty: status(200, JSON_TYPE, ""),
  "no content": status(204, {}, ""),
  "deep answer": status(200, JSON_TYPE, `{"choices":${"[".repeat(9999)}`),
  moved: status(301, { location: "http://127.0.0.1:1/" }, ""),
  found: status(307, { location: "/elsewhere" }, ""),
  unauthorized: status(401, JSON_TYPE, '{"error":{"message":"no"}}'),
  teapot: status(418, JSON_TYPE, "{"),
  unavailable: status(503, { ...JSON_TYPE, "retry-after": "9".repeat(400) }, "[".repeat(9999)),
  limited: status(429, { ...JSON_TYPE, "retry-after": "-1" }, "null"),
  refused: status(400, JSON_TYPE, "[".repeat(9999)),
  "strange refusal": status(
    422,
    JSON_TYPE,
    '{"error":{"message":{"a":1},"type":5,"code":[],"param":"\\ud800\\r\\nx: y"}}',
  ),
} satisfies Record<string, Way>;

export interface HostileUpstream {
  readonly baseUrl: string;
  /** Answers that were asked to wait, or are half-way. */
  readonly waiting: ServerResponse[];
  /** Calls whose whole body has come. */
  readonly calls: () => number;
  close(): Promise<void>;
}

/** Listens on a free port of this machine. */
export async function startHostileUpstream(): Promise<HostileUpstream> {
  let calls = 0;
  const server: Server = createServer({ keepAliveTimeout: 60_000 }, (req, res) => {
    res.on("error", () => {});
    void wayOf(req).then((name) => {
      calls += 1;
      const way: Way = Object.entries(WAYS).find(([one]) => one === name)?.[1] ?? WAYS.answer;
      way(res, upstream);
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const upstream: HostileUpstream = {
    baseUrl: `http://127.0.0.1:${port}/v1`,
    waiting: [],
    calls: () => calls,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return upstream;
}

/** Reads a body to its end; what is asked for stands near its beginning. */
function wayOf(req: IncomingMessage): Promise<string | undefined> {
  return new Promise((resolve) => {
    let start = "";
    req.on("data", (piece: Buffer) => {
      if (start.length < 1000) start += piece.toString("latin1", 0, 1000);
    });
    req.on("end", () => resolve(/\[do=([^\]]+)\]/.exec(start)?.[1]));
    req.on("error", () => {});
  });
}
