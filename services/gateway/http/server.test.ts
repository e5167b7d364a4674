import { request, type IncomingHttpHeaders } from "node:http";
import { connect } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { chat, chunk, completion, DONE, gatewayWorld } from "#test/worlds/gateway-world.ts";
import { STOP_MS_MAX } from "#services/gateway/gateway.ts";
import { createGatewayServer, stopGateway } from "./server.ts";

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

/** A gateway on a real socket, with time standing still. */
async function listening(options: Parameters<typeof gatewayWorld>[0] = {}) {
  const world = await gatewayWorld(options);
  const app = createGatewayServer(world.gateway);
  await app.listen({ host: "127.0.0.1", port: 0 });
  closing.push(() => {
    app.server.closeAllConnections();
    return app.close();
  });
  const address = app.server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  function send(method: string, path: string, headers: Record<string, string> = {}, body?: string) {
    return new Promise<{ status: number; headers: IncomingHttpHeaders; text: string }>(
      (resolve, reject) => {
        const sent = request(
          {
            port,
            host: "127.0.0.1",
            method,
            path,
            headers: { authorization: `Bearer ${world.keys[0]}`, ...headers },
          },
          (response) => {
            let text = "";
            response.on("data", (piece: Buffer) => (text += piece.toString()));
            response.on("end", () =>
              resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
            );
            response.on("error", reject);
          },
        );
        sent.on("error", reject);
        sent.end(body);
      },
    );
  }
  return { world, app, port, send };
}

const JSON_TYPE = { "content-type": "application/json" };

/** Waits until a condition holds that follows from bytes on a socket. */
async function until(isSo: () => boolean): Promise<void> {
  for (let turn = 0; turn < 500 && !isSo(); turn++)
    await new Promise((resolve) => setTimeout(resolve, 5));
  expect(isSo()).toBe(true);
}

describe("every answer is ours, in our shape, with a request id", () => {
  const cases: [string, string, string, Record<string, string>, number, string][] = [
    ["an unknown route", "GET", "/v1/nothing", {}, 404, "not_found"],
    ["a path that cannot be decoded", "GET", "/v1/models/%zz", {}, 404, "not_found"],
    [
      "a model's name of 300 characters",
      "GET",
      `/v1/models/${"m".repeat(300)}`,
      {},
      404,
      "not_found",
    ],
    ["a model's name with a slash", "GET", "/v1/models/a%2Fb", {}, 404, "model_not_found"],
    ["an unusual method", "PROPFIND", "/v1/chat/completions", {}, 404, "not_found"],
    ["a wrong method", "DELETE", "/v1/balance", {}, 405, "method_not_allowed"],
    [
      "a content type that is none",
      "POST",
      "/v1/chat/completions",
      { "content-type": ",;" },
      415,
      "unsupported_media_type",
    ],
    ["no content type", "POST", "/v1/chat/completions", {}, 415, "unsupported_media_type"],
    [
      "a body that is no JSON",
      "POST",
      "/openai/v1/chat/completions",
      JSON_TYPE,
      400,
      "invalid_request",
    ],
    [
      "a stranger with a content type that is none",
      "POST",
      "/v1/chat/completions",
      { "content-type": ",;", authorization: "x" },
      401,
      "invalid_api_key",
    ],
    [
      "a stranger with an unusual method",
      "PROPFIND",
      "/v1/models",
      { authorization: "x" },
      401,
      "invalid_api_key",
    ],
    [
      "a stranger on an unknown route",
      "POST",
      "/v2",
      { authorization: "x" },
      401,
      "invalid_api_key",
    ],
  ];
  test.each(cases)("%s", async (_name, method, path, headers, status, code) => {
    const { send } = await listening();
    const answer = await send(method, path, headers, method === "POST" ? "{nothing" : undefined);
    expect([
      answer.status,
      (JSON.parse(answer.text) as { error: { code: string } }).error.code,
    ]).toEqual([status, code]);
    expect(answer.headers["x-request-id"]).toMatch(/^req_/);
  });
});

test("a chat goes through on a kept connection, in pieces too", async () => {
  const { world, send } = await listening();
  for (const headers of [JSON_TYPE, { ...JSON_TYPE, "transfer-encoding": "chunked" }]) {
    const before = world.calls.length;
    const answering = send("POST", "/v1/chat/completions", headers, chat());
    await until(() => world.calls.length > before);
    world.calls.at(-1)?.answer(completion([7, 5]));
    const answer = await answering;
    expect([answer.status, answer.headers["x-relai-cost-micro"]]).toEqual([200, "12"]);
    expect(JSON.parse(answer.text)).toEqual(completion([7, 5]));
  }
  await world.expectAtRest();
});

test("a large answer reaches a reader whole, and its room is given back", async () => {
  const { world, send } = await listening({
    limits: { answerBytesMax: 8_000_000, inFlightBytesMax: 9_000_000 },
  });
  const answering = send("POST", "/v1/chat/completions", JSON_TYPE, chat());
  await until(() => world.calls.length === 1);
  const large = completion([7, 5], "z".repeat(4_000_000));
  world.calls[0]?.answer(large);
  expect(JSON.parse((await answering).text)).toEqual(large);
  await until(() => world.gateway.inFlight.bytes() === 0);
  await world.expectAtRest();
});

test("a body beyond the limit is refused before it is all read, and the connection ends", async () => {
  const { world, send } = await listening();
  const answer = await send(
    "POST",
    "/v1/chat/completions",
    { ...JSON_TYPE, "transfer-encoding": "chunked" },
    "x".repeat(12_000),
  );
  expect([answer.status, answer.headers["connection"]]).toEqual([413, "close"]);
  expect(world.gateway.inFlight.bytes()).toBe(0);
});

describe("a body that arrives slower than 16 KiB/s over 10 s", () => {
  const SECOND_BYTES = 16 * 1024;

  /** A request whose body is told to be `bytes` long, and what comes back on its connection. */
  async function sending(bytes: number) {
    const found = await listening({
      limits: { bodyBytesMax: 1_000_000, inFlightBytesMax: 4_000_000 },
    });
    const socket = connect(found.port, "127.0.0.1");
    closing.unshift(() => Promise.resolve(socket.destroy()));
    const seen = { text: "", closed: false };
    socket.on("data", (piece: Buffer) => (seen.text += piece.toString()));
    socket.on("close", () => (seen.closed = true));
    const { inFlight } = found.world.gateway;
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${found.world.keys[0]}\r\ncontent-type: application/json\r\ncontent-length: ${bytes}\r\n\r\n`,
    );
    const idle = found.world.clock.armed();
    await until(() => found.world.clock.armed() > idle);
    let sent = 0;
    return {
      ...found,
      socket,
      seen,
      /** Sends more, and waits until it was read. */
      async send(more: number | string) {
        const bytesNow = typeof more === "string" ? Buffer.from(more) : Buffer.alloc(more, " ");
        socket.write(bytesNow);
        sent += bytesNow.length;
        if (sent < bytes) await until(() => inFlight.bytes() === sent);
      },
    };
  }

  test("ends as 408 after 10 s of silence, and gives back its room", async () => {
    const { world, seen, send } = await sending(100_000);
    await send(1);
    await world.clock.advance(9_999);
    expect(seen.text).toBe("");
    await world.clock.advance(1);
    await until(() => seen.text.includes("}}"));
    expect(seen.text).toMatch(/^HTTP\/1\.1 408 .*"code":"request_timeout"/s);
    expect(seen.text).toMatch(/^connection: close\r$/im);
    expect(world.gateway.inFlight.bytes()).toBe(0);
    await world.clock.advance(5_000);
    await until(() => seen.closed);
    expect(world.counted).toEqual([{ status: 408, code: "request_timeout" }]);
    await world.expectAtRest();
  });

  test("ends as 408 at half the rate after 20 s, and never at the whole", async () => {
    const slow = await sending(1_000_000);
    // What comes in one piece at a second's beginning is one second less than what comes all through it.
    for (let second = 0; second < 19; second++) {
      expect(slow.world.counted).toEqual([]);
      await slow.send(SECOND_BYTES / 2);
      await slow.world.clock.advance(1_000);
    }
    await until(() => slow.seen.text.includes(" 408 "));
    const steady = await sending(1_000_000);
    for (let second = 0; second < 50; second++) {
      await steady.send(SECOND_BYTES);
      await steady.world.clock.advance(1_000);
    }
    expect(steady.seen.text).toBe("");
  });

  test("is not one whose sender pauses for less than 10 s, nor one that earned more before", async () => {
    const { world, seen, send } = await sending(1_000_000);
    await send(1);
    await world.clock.advance(9_900);
    for (let second = 0; second < 10; second++) {
      await send(2 * SECOND_BYTES);
      await world.clock.advance(1_000);
    }
    await world.clock.advance(8_900);
    await send(10 * SECOND_BYTES);
    await world.clock.advance(9_999);
    expect(seen.text).toBe("");
    // However much came, there are never more than 10 s in hand.
    await world.clock.advance(1);
    await until(() => seen.text.includes(" 408 "));
  });

  test("is not a small one that is sent in one go, late; and nothing is armed for one that comes with its head", async () => {
    const body = chat();
    const { world, seen, send, port } = await sending(body.length);
    await world.clock.advance(9_900);
    await send(body);
    await until(() => world.calls.length === 1);
    const armed = world.clock.armed();
    const socket = connect(port, "127.0.0.1");
    closing.unshift(() => Promise.resolve(socket.destroy()));
    let armedMost = 0;
    const { timer } = world.clock;
    world.clock.timer = (delayMs, callback) => {
      if (delayMs === 10_000) armedMost += 1;
      if (delayMs > 0) return timer(delayMs, callback);
      const immediate = setImmediate(callback);
      return () => clearImmediate(immediate);
    };
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${world.keys[0]}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    await until(() => world.calls.length === 2);
    for (const call of world.calls) call.answer(completion([1, 1]));
    await until(() => seen.text.includes(" 200 "));
    expect([armedMost, world.clock.armed() <= armed]).toEqual([0, true]);
    await world.expectAtRest();
  });

  test("an answer about it does not wait for a sender who has left", async () => {
    const { world, socket } = await sending(100_000);
    socket.destroy();
    await until(() => world.counted.length === 1);
    expect(world.counted).toEqual([{ status: 499, code: "client_gone" }]);
    await world.expectAtRest();
  });
});

test("a client that leaves before its body is looked at is not waited for", async () => {
  const { world, port } = await listening();
  const { figures } = world.admission;
  let say = () => {};
  world.admission.figures = async (ask) => {
    await new Promise<void>((resolve) => (say = resolve));
    return figures(ask);
  };
  const socket = connect(port, "127.0.0.1");
  const body = chat();
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${world.keys[0]}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body.slice(5)}`,
  );
  const armed = world.clock.armed();
  await until(() => world.clock.armed() > armed);
  socket.destroy();
  await new Promise((resolve) => setTimeout(resolve, 50));
  world.admission.figures = figures;
  say();
  await until(() => world.counted.length === 1);
  expect(world.counted).toEqual([{ status: 499, code: "client_gone" }]);
  await world.expectAtRest();
});

test.each(["while it sends its body", "while it waits"])(
  "a client that breaks its connection %s leaves nothing behind",
  async (when) => {
    const { world, port } = await listening();
    const body = chat();
    const socket = connect(port, "127.0.0.1");
    const sent = when === "while it waits" ? body : body.slice(0, 10);
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${world.keys[0]}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${sent}`,
    );
    if (when === "while it waits") await until(() => world.calls.length === 1);
    else await until(() => world.gateway.inFlight.bytes() > 0);
    socket.destroy();
    await until(() => world.gateway.inFlight.bytes() === 0);
    if (when === "while it waits") await until(() => world.calls[0]?.aborted === true);
    await world.expectAtRest();
  },
);

test("bytes that are no HTTP end their connection and nothing else", async () => {
  const { port, send } = await listening();
  const socket = connect(port, "127.0.0.1");
  const closed = new Promise((resolve) => socket.on("close", resolve));
  socket.on("error", () => {});
  socket.on("data", () => {});
  socket.write("\u0016\u0003\u0001 hello\r\n\r\n");
  await closed;
  expect((await send("GET", "/v1/models")).status).toBe(200);
});

test("a stop waits for a client that has yet to take the end of its answer", async () => {
  const { world, app, port } = await listening();
  const body = chat({ stream: true });
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${world.keys[0]}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  );
  await until(() => world.calls.length === 1);
  const [call] = world.calls;
  call?.head();
  // More than the system keeps for a client that reads nothing, so that the end is still here when the stop begins.
  const piece = chunk({ content: "z".repeat(1_000_000) });
  for (let sent = 0; sent < 20; sent++) call?.data(piece);
  call?.data(chunk({}, { finish_reason: "stop" }));
  call?.data(chunk(undefined, { usage: { prompt_tokens: 7, completion_tokens: 5 } }) + DONE);
  await until(() => world.counted.length === 1);
  let isStopped = false;
  const stopping = stopGateway(world.gateway, app, 10_000).then(() => (isStopped = true));
  await new Promise((resolve) => setImmediate(resolve));
  expect(isStopped).toBe(false);
  const closed = new Promise((resolve) => socket.on("close", resolve));
  socket.on("data", (bytes: Buffer) => (text = (text + bytes.toString()).slice(-1_000)));
  await Promise.all([closed, stopping]);
  expect(text).toContain("data: [DONE]\n\n");
  expect(world.counted).toEqual([{ status: 200, code: "ok" }]);
  await world.expectAtRest();
});

test("a stop hangs up on clients that neither send nor take on, after the drain, and seals the journal", async () => {
  const { world, app, port } = await listening();
  const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${world.keys[0]}\r\ncontent-type: application/json\r\n`;
  const sockets = [`${head}x-half:`, `${head}content-length: 100\r\n\r\n{`].map((sent) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => {});
    socket.write(sent);
    return socket;
  });
  const closed = sockets.map((socket) => new Promise((resolve) => socket.on("close", resolve)));
  await until(() => world.gateway.inFlight.bytes() > 0);
  let isStopped = false;
  void stopGateway(world.gateway, app, 1_000).then(() => (isStopped = true));
  // Half a head is no request: nobody waits for the rest of it.
  await closed[0];
  for (let passedMs = 0; passedMs < 1_000 + STOP_MS_MAX; passedMs += 100) {
    await world.clock.advance(100);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(isStopped).toBe(true);
  await closed[1];
  expect(await world.types()).toEqual(["JournalSealed.v1"]);
  expect(world.gateway.inFlight.bytes()).toBe(0);
});
