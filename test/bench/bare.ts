import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Pool } from "undici";
import { announce, type Ready } from "./child.ts";

/**
 * The measure of all others: a pass-through as a competent engineer writes it in thirty lines, without keys, limits
 * or books. What a gateway costs is told as a multiple of this one.
 */

async function pass(pool: Pool, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { host: _host, connection: _connection, ...headers } = request.headers;
  const upstream = await pool.request({
    path: request.url ?? "/",
    method: "POST",
    headers,
    body: request,
  });
  const {
    connection: _hop,
    "keep-alive": _idle,
    "transfer-encoding": _coding,
    ...rest
  } = upstream.headers;
  response.writeHead(upstream.statusCode, rest);
  // Not stream.pipeline: it makes an AbortError with its stack for every answer, which doubles the cost of a request
  // on Node 26 and would flatter whatever is compared with this.
  upstream.body.on("error", () => response.destroy());
  response.on("close", () => {
    if (!response.writableFinished) upstream.body.destroy();
  });
  upstream.body.pipe(response);
}

function startBare(upstreamUrl: string): Promise<Ready> {
  const pool = new Pool(upstreamUrl, { connections: 256, keepAliveTimeout: 30_000 });
  const server = createServer((request, response) => {
    pass(pool, request, response).catch(() => {
      if (response.headersSent) response.destroy();
      else response.writeHead(502).end();
    });
  });
  server.keepAliveTimeout = 60_000;
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      resolve({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
    });
  });
}

await announce(() => startBare(process.argv[2] ?? ""));
