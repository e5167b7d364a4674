import { connect, type Socket } from "node:net";

/** HTTP by hand, for requests that no client library would send. */

export interface RawAnswer {
  readonly status: number;
  /** The head as it came, status line included. */
  readonly head: string;
  readonly body: string;
}

/** Opens a connection. Its errors are its own business: a test looks at what came. */
export function open(url: string): Socket {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  return socket;
}

/**
 * Sends bytes and gives back everything that comes until the connection is closed. A server that has said nothing for
 * `patienceMs` waits for more: then our side is ended. Rejects when it is not closed even then, for that is a hang.
 */
export function exchange(
  url: string,
  sent: string | Buffer,
  { patienceMs = 10_000, hangMs = 30_000 } = {},
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = open(url);
    const pieces: Buffer[] = [];
    const hang = setTimeout(() => {
      socket.destroy();
      reject(new Error(`no end after ${hangMs} ms; so far ${String(Buffer.concat(pieces))}`));
    }, hangMs);
    socket.setTimeout(patienceMs, () => socket.end());
    socket.on("data", (piece: Buffer) => pieces.push(piece));
    socket.on("close", () => {
      clearTimeout(hang);
      resolve(Buffer.concat(pieces));
    });
    socket.write(sent);
  });
}

/** The answers in what a server sent, in order; interim ones are left out. Throws where it is no HTTP. */
export function answersIn(bytes: Buffer): RawAnswer[] {
  const answers: RawAnswer[] = [];
  let rest = bytes.toString("latin1");
  while (rest !== "") {
    const headEnd = rest.indexOf("\r\n\r\n");
    const head = rest.slice(0, headEnd);
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1]);
    if (headEnd < 0 || Number.isNaN(status)) throw new Error(`this is no HTTP answer: ${rest}`);
    rest = rest.slice(headEnd + 4);
    if (status < 200) continue;
    const { body, length } = /^transfer-encoding: chunked$/im.test(head)
      ? dechunked(rest)
      : plain(rest, head);
    answers.push({ status, head, body: Buffer.from(body, "latin1").toString() });
    rest = rest.slice(length);
  }
  return answers;
}

function plain(rest: string, head: string): { body: string; length: number } {
  const given = /^content-length: (\d+)$/im.exec(head)?.[1];
  // Without a length the body goes on to the connection's end: so it is for a client that says it speaks HTTP/1.0.
  const length = given === undefined ? rest.length : Number(given);
  if (rest.length < length) throw new Error(`an answer was cut: ${head}`);
  return { body: rest.slice(0, length), length };
}

function dechunked(rest: string): { body: string; length: number } {
  let body = "";
  let at = 0;
  for (;;) {
    const lineEnd = rest.indexOf("\r\n", at);
    if (lineEnd < 0) throw new Error("a chunked answer was cut");
    const size = Number.parseInt(rest.slice(at, lineEnd), 16);
    body += rest.slice(lineEnd + 2, lineEnd + 2 + size);
    at = lineEnd + 2 + size + 2;
    if (size === 0) return { body, length: at };
  }
}

/** A request's text: the lines of its head as given, and a body with its length. */
export function requestText(lines: readonly string[], body = ""): string {
  const length = body === "" ? [] : [`content-length: ${Buffer.byteLength(body)}`];
  return `${[...lines, ...length].join("\r\n")}\r\n\r\n${body}`;
}
