import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";

/** One request as it arrived, to the byte. */
export interface Recorded {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** An upstream that notes what it is sent, and answers with exactly the bytes that it is told. */
export interface Recorder {
  readonly url: string;
  readonly requests: readonly Recorded[];
  /** What the next requests are answered with. */
  answer(with_: (request: Recorded, response: ServerResponse) => void): void;
  close(): Promise<void>;
}

/** Listens on a free port. Until it is told what to answer, it answers 500. */
export async function openRecorder(): Promise<Recorder> {
  const requests: Recorded[] = [];
  let answering: (request: Recorded, response: ServerResponse) => void = (_request, response) =>
    void response.writeHead(500).end();
  const server = createServer((message, response) => {
    const pieces: Buffer[] = [];
    message.on("data", (piece: Buffer) => pieces.push(piece));
    message.on("end", () => {
      const { method = "", url = "", headers } = message;
      const request = { method, url, headers, body: Buffer.concat(pieces).toString() };
      requests.push(request);
      answering(request, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("no address");
  return {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    answer(with_) {
      answering = with_;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
