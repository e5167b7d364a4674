import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  chat,
  complete,
  faultsIn,
  hostileWorld,
  IN_FLIGHT_BYTES_MAX,
  largeChat,
  memoryBytes,
  MIB,
  refusalIn,
  type HostileWorld,
} from "./hostile-world.ts";
import { ANSWER, MODEL, STREAM, type WAYS } from "./hostile-upstream.ts";
import { answersIn, exchange, open, requestText } from "./raw-http.ts";
import { leavesNothingRunning } from "#test/e2e/relai.ts";

/**
 * Hostile callers and hostile upstreams: whatever they do gets a clear refusal, costs bounded memory, leaves nothing
 * held, and does not keep a good client from its answers.
 */

leavesNothingRunning();

let world: HostileWorld;
let gateway = "";
let key = "";
let idleBytes = 0;
beforeAll(async () => {
  world = await hostileWorld();
  gateway = world.relai.gateway;
  key = await world.newKey();
  await world.settled();
  idleBytes = memoryBytes(world.relai.pid, "VmRSS");
});
afterEach(() => world.settled());
afterAll(() => world.close());

/** Counts answers: `200` for the right one, else the refusal. */
async function outcomes(
  asked: readonly Promise<{ status: number; text: string }>[],
): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const answer of await Promise.all(asked)) {
    const isRight = answer.status === 200 && answer.text === ANSWER;
    const outcome = isRight ? "200" : refusalIn(answer);
    counts[outcome] = (counts[outcome] ?? 0) + 1;
  }
  return counts;
}

const head = (...lines: string[]) => [
  "POST /v1/chat/completions HTTP/1.1",
  "host: localhost",
  `authorization: Bearer ${key}`,
  "content-type: application/json",
  ...lines,
];

describe("large bodies", () => {
  test.for([
    ["1 MB of one letter", 200, MIB],
    ["10 MB of one letter", 40, 10 * MIB],
  ] as const)("%s, %i in parallel", async ([, count, bytes]) => {
    const body = largeChat(bytes);
    const before = world.controlAnswers();
    const counts = await outcomes(
      Array.from({ length: count }, () => complete(gateway, key, body)),
    );
    const { "200": served = 0, "503 overloaded": refused = 0, ...other } = counts;
    expect(other).toEqual({});
    expect(served).toBeGreaterThan(0);
    expect(served + refused).toBe(count);
    expect(world.controlAnswers()).toBeGreaterThan(before);
  });

  test("a body that is refused before it is read still hears why", async () => {
    const body = largeChat(18 * MIB);
    const strangers = Array.from({ length: 8 }, () => complete(gateway, "wrong", body));
    expect(await outcomes(strangers)).toEqual({ "401 invalid_api_key": 8 });
    const tooLarge = Array.from({ length: 4 }, () => complete(gateway, key, largeChat(21 * MIB)));
    expect(await outcomes(tooLarge)).toEqual({ "413 request_too_large": 4 });
  });

  test("bodies cut into single bytes take no more memory than others", async () => {
    const piece = Buffer.from("1\r\na\r\n".repeat(25_000));
    const sockets = Array.from({ length: 4 }, () => open(gateway));
    await Promise.all(
      sockets.map(async (socket) => {
        socket.write(`${head("transfer-encoding: chunked").join("\r\n")}\r\n\r\n`);
        for (let sent = 0; sent < 10; sent += 1)
          await new Promise((resolve) => socket.write(piece, resolve));
      }),
    );
    for (const socket of sockets) socket.destroy();
  });
});

describe("bodies that cannot be read", () => {
  const model = `"model":"${MODEL}"`;
  const messages = '"messages":[{"role":"user","content":"x"}]';
  const invalid = "400 invalid_request";
  const ok = (more: string) => `{${model},${messages}${more}}`;

  test.for<[string, string | Buffer, string]>([
    ["10,000 levels of arrays", ok(`,"x":${"[".repeat(10_000)}${"]".repeat(10_000)}`), invalid],
    [
      "10,000 levels of objects",
      ok(`,"x":${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`),
      invalid,
    ],
    ["a million open brackets", "[".repeat(MIB), invalid],
    ["10 MB of empty objects", ok(`,"x":[${"{},".repeat(3_500_000)}{}]`), invalid],
    ["10 MB of numbers", ok(`,"x":[${"1,".repeat(5 * MIB)}1]`), invalid],
    ["a million members", ok(`,${'"A":1,'.repeat(1_000_000)}"b":1`), invalid],
    ["a name of 10 MB", ok(`,"${"K".repeat(10 * MIB)}":1`), "200"],
    [
      "100,000 messages",
      `{${model},"messages":[${'{"role":"user","content":"x"},'.repeat(100_000)}1]}`,
      invalid,
    ],
    [
      "20,000 messages",
      `{${model},"messages":[${'{"role":"user","content":"x"},'.repeat(20_000)}{"role":"user","content":"x"}]}`,
      "200",
    ],
    ["a name twice", ok(`,${model}`), invalid],
    ["a name in another case", ok(',"Max_Tokens":1'), invalid],
    ["a name with a long s", ok(',"ſtream":true'), invalid],
    ["a name in escapes, twice", ok(',"mod\\u0065l":"x"'), invalid],
    ["a prototype", ok(',"__proto__":{"stream":true,"n":5},"constructor":1'), "200"],
    ["invalid UTF-8", Buffer.from(ok(',"x":"\xff\xfe"'), "latin1"), invalid],
    ["a byte order mark", `\ufeff${ok("")}`, invalid],
    ["truncated JSON", ok("").slice(0, -4), invalid],
    ["trailing bytes", `${ok("")} {}`, invalid],
    ["no body", "", invalid],
    ["null", "null", invalid],
    ["NUL bytes", "\0".repeat(MIB), invalid],
    ["spaces", " ".repeat(MIB), invalid],
    ["quotes and backslashes", `{"${'\\"'.repeat(MIB)}`, invalid],
    ["a number of answers without end", ok(',"n":1e400'), invalid],
    ["a negative cap", ok(',"max_tokens":-1'), invalid],
    ["a cap beyond integers", ok(',"max_tokens":1e300'), invalid],
    ["a model of 1 MB", `{"model":"${"m".repeat(MIB)}",${messages}}`, invalid],
    ["half a character for a model", `{"model":"\\ud800",${messages}}`, invalid],
    ["an unknown model", `{"model":"\\r\\nx: y",${messages}}`, "404 model_not_found"],
    ["messages that are none", `{${model},"messages":[null,1,"x",[[]],{}]}`, "200"],
  ])("%s", async ([, body, expected]) => {
    expect(await outcomes([complete(gateway, key, body)])).toEqual({ [expected]: 1 });
  });

  test.for<[string, Record<string, string>, string]>([
    ["another type", { "content-type": "text/plain" }, "415 unsupported_media_type"],
    ["a compressed body", { "content-encoding": "gzip" }, "415 unsupported_media_type"],
    ["a key that is no text", { authorization: "Bearer \u00ff\u00fe" }, "401 invalid_api_key"],
    ["another scheme", { authorization: `Basic ${"a".repeat(1000)}` }, "401 invalid_api_key"],
    ["no key", { authorization: "" }, "401 invalid_api_key"],
    ["10,000 bytes in a header", { "x-long": "a".repeat(10_000) }, "200"],
  ])("%s", async ([, headers, expected]) => {
    expect(await outcomes([complete(gateway, key, chat("answer"), headers)])).toEqual({
      [expected]: 1,
    });
  });
});

describe("connections that do not keep to HTTP", () => {
  const close = "connection: close";
  const invalid = "400 invalid_request";

  test.for<[string, () => string | Buffer, string]>([
    ["no HTTP", () => Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]), invalid],
    ["HTTP/2 at once", () => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", invalid],
    ["an endless line", () => "GET /".padEnd(100_000, "a"), "413 request_too_large"],
    [
      "a header of 20,000 bytes",
      () => requestText(head(`x: ${"a".repeat(20_000)}`)),
      "413 request_too_large",
    ],
    [
      "a key of 1 MB",
      () => requestText(head(`x-api-key: ${"a".repeat(MIB)}`)),
      "413 request_too_large",
    ],
    ["a line break in a header", () => requestText(head("x-client-request-id: a\rb: c")), invalid],
    ["a NUL in a header", () => requestText(head("x-client-request-id: a\0b")), invalid],
    [
      "two lengths",
      () => requestText(head("content-length: 3", "content-length: 4"), "abc"),
      invalid,
    ],
    [
      "length and chunks",
      () => requestText(head("content-length: 3", "transfer-encoding: chunked"), "abc"),
      invalid,
    ],
    ["a negative length", () => requestText(head("content-length: -1")), invalid],
    [
      "a length beyond reason",
      () => requestText(head("content-length: 999999999999999")),
      "413 request_too_large",
    ],
    [
      "a path that cannot be decoded",
      () => requestText(["GET /v1/models/%zz HTTP/1.1", "host: localhost", close]),
      "401 invalid_api_key",
    ],
    [
      "a path of 10,000 bytes",
      () =>
        requestText([`GET /v1/models/${"a".repeat(10_000)} HTTP/1.1`, "host: localhost", close]),
      "401 invalid_api_key",
    ],
    [
      "a method that nobody knows here",
      () => requestText(["PROPFIND /v1/models HTTP/1.1", "host: localhost", close]),
      "401 invalid_api_key",
    ],
    [
      "an upgrade",
      () =>
        requestText([
          "GET /v1/models HTTP/1.1",
          "host: localhost",
          "connection: upgrade, close",
          "upgrade: websocket",
        ]),
      "401 invalid_api_key",
    ],
    [
      "many headers",
      () =>
        requestText(
          head(close, ...Array.from({ length: 900 }, (_, at) => `x${at}: y`)),
          chat("answer"),
        ),
      "200",
    ],
    [
      "a request id that is no text",
      () =>
        requestText(head(close, `x-client-request-id: ${"\u00ff".repeat(100)}`), chat("answer")),
      "200",
    ],
    [
      "an unknown path with a type that is none",
      () =>
        requestText(
          [
            `POST /v1/none HTTP/1.1`,
            "host: localhost",
            `authorization: Bearer ${key}`,
            "content-type: none",
            close,
          ],
          "{}",
        ),
      "404 not_found",
    ],
    [
      "two keys",
      () => requestText(head(close, "authorization: Bearer other"), chat("answer")),
      "200",
    ],
  ])("%s", async ([, sent, expected]) => {
    const bytes = Buffer.isBuffer(sent()) ? sent() : Buffer.from(sent() as string, "latin1");
    const [answer] = answersIn(await exchange(gateway, bytes));
    if (answer === undefined) throw new Error("there was no answer");
    expect(await outcomes([Promise.resolve({ status: answer.status, text: answer.body })])).toEqual(
      {
        [expected]: 1,
      },
    );
  });

  test("a length that is a lie, and chunks without end", async () => {
    const sockets = [
      requestText(head("content-length: 1000000"), "{").replace("content-length: 1\r\n", ""),
      requestText(
        head("transfer-encoding: chunked", "", `${MIB.toString(16)}\r\n${"a".repeat(MIB)}`),
      ),
    ].flatMap((text) =>
      Array.from({ length: 10 }, () => {
        const socket = open(gateway);
        socket.write(text);
        return socket;
      }),
    );
    await sleep(300);
    for (const socket of sockets) socket.destroy();
    const endless = requestText(head("transfer-encoding: chunked", "", "1400001"), "");
    const [answer] = answersIn(
      await exchange(
        gateway,
        Buffer.concat([Buffer.from(endless.slice(0, -2)), Buffer.alloc(21 * MIB, "a")]),
      ),
    );
    expect(answer?.status).toBe(413);
  });

  test("100 senders of a byte now and then", async () => {
    const before = world.controlAnswers();
    const sockets = Array.from({ length: 100 }, () => open(gateway));
    const text = requestText(head(), chat("answer"));
    for (const socket of sockets) socket.write(text.slice(0, -20));
    for (let at = -20; at < -17; at += 1) {
      for (const socket of sockets) socket.write(text.slice(at, at + 1));
      await sleep(500);
    }
    expect(world.controlAnswers()).toBeGreaterThan(before);
    // Half of them give up, the others come to their end and get their answer.
    const ended = sockets.slice(50).map(
      (socket) =>
        new Promise<string>((resolve) => {
          socket.once("data", (piece: Buffer) => resolve(piece.toString("latin1", 0, 15)));
          socket.write(text.slice(-17));
        }),
    );
    for (const socket of sockets.slice(0, 50)) socket.destroy();
    expect(new Set(await Promise.all(ended))).toEqual(new Set(["HTTP/1.1 200 OK"]));
    for (const socket of sockets) socket.destroy();
  });

  test("pipelined requests are answered in order", async () => {
    const bearer = `authorization: Bearer ${key}`;
    const asked = Array.from({ length: 50 }, (_, at) => {
      const lines = [
        `GET /v1/models/m${at} HTTP/1.1`,
        "host: localhost",
        bearer,
        `x-client-request-id: n${at}`,
      ];
      return requestText(at === 49 ? [...lines, "connection: close"] : lines);
    });
    const answers = answersIn(await exchange(gateway, asked.join("")));
    const ids = answers.map((answer) => /^x-client-request-id: n(\d+)$/im.exec(answer.head)?.[1]);
    expect(ids).toEqual(Array.from({ length: 50 }, (_, at) => String(at)));
  });

  test("a client that leaves with pipelined requests behind a waiting one leaves nothing held", async () => {
    const socket = open(gateway);
    const waiting = world.upstream.waiting.length;
    socket.write(requestText(head(), chat("wait")).repeat(4));
    await expect.poll(() => world.upstream.waiting.length - waiting, { timeout: 10_000 }).toBe(4);
    socket.destroy();
  });

  test("50 clients that open a stream and never read", async () => {
    const before = world.controlAnswers();
    const sockets = Array.from({ length: 50 }, () => {
      const socket = open(gateway);
      socket.pause();
      socket.write(requestText(head(), chat("long-stream", { stream: true })));
      return socket;
    });
    // They are dropped when they have taken nothing for the limit, which shows in that nothing is held at the end.
    await world.settled();
    expect(world.controlAnswers()).toBeGreaterThan(before);
    for (const socket of sockets) socket.destroy();
  });
});

describe("upstreams that do not keep to the protocol", () => {
  const failed = "502 upstream_error";
  /** What a caller of a plain answer and of a stream hears; `stream` says that a stream begins and then breaks. */
  const expected: Record<keyof typeof WAYS, [string, string] | undefined> = {
    answer: ["200", failed],
    stream: [failed, "stream"],
    wait: undefined,
    "held-event": undefined,
    "long-stream": [failed, "stream"],
    "one-byte-chunks": ["200", failed],
    "informational first": ["200", failed],
    "no content-type": ["200", failed],
    "100 MB": [failed, failed],
    "10 MB line": [failed, failed],
    "no newline for ever": [failed, failed],
    "comments for ever": [failed, failed],
    "large refusal": ["400", "400"],
    "many headers": [failed, failed],
    gzip: [failed, failed],
    "length too long": [failed, failed],
    "length too short": [failed, failed],
    "length and chunks": [failed, failed],
    "not HTTP": [failed, failed],
    "an upgrade": [failed, failed],
    "only informational": [failed, failed],
    nothing: [failed, failed],
    html: [failed, failed],
    empty: [failed, failed],
    "no content": [failed, failed],
    "deep answer": [failed, failed],
    moved: [failed, failed],
    found: [failed, failed],
    unauthorized: [failed, failed],
    teapot: [failed, failed],
    unavailable: [failed, failed],
    limited: ["429 upstream_rate_limited", "429 upstream_rate_limited"],
    refused: ["400", "400"],
    "strange refusal": ["422", "422"],
  };

  test.for(
    Object.entries(expected).flatMap(([way, said]) => (said ? [[way, ...said] as const] : [])),
  )("%s", async ([way, plain, streamed]) => {
    const said = async (stream: boolean) => {
      const answer = await complete(gateway, key, chat(way, { stream }));
      if (answer.status === 200) return stream ? "stream" : "200";
      // A fault of the request passes with the upstream's own status, and a code that is null.
      return answer.status === 400 || answer.status === 422
        ? String(answer.status)
        : refusalIn(answer);
    };
    expect([await said(false), await said(true)]).toEqual([plain, streamed]);
  });

  test("many events that are not whole take room like other bodies", async () => {
    const waiting = world.upstream.waiting.length;
    const asked = Array.from({ length: 80 }, () =>
      complete(gateway, key, chat("held-event", { stream: true })),
    );
    await expect.poll(() => world.upstream.waiting.length - waiting, { timeout: 10_000 }).toBe(80);
    await sleep(200);
    for (const res of world.upstream.waiting.slice(waiting)) res.end();
    const told = (await Promise.all(asked)).map(refusalIn);
    expect(new Set(told)).toEqual(new Set(["502 upstream_error", "503 overloaded"]));
  });

  test("a stream comes through whole beside all this", async () => {
    const asked = chat("stream", { stream: true, stream_options: { include_usage: true } });
    expect(await complete(gateway, key, asked)).toEqual({ status: 200, text: STREAM });
  });
});

describe("afterwards", () => {
  test("the room for bodies is all there, and no more than that", async () => {
    const waiting = world.upstream.waiting.length;
    // Large bodies may take five eighths of 256 MiB, 160, and those of one organization a quarter of it: 40.
    const keys = await Promise.all(Array.from({ length: 4 }, () => world.newKey()));
    const asked = keys.flatMap((of) =>
      [20, 20].map((size) => complete(gateway, of, largeChat(size * MIB - 1000, "wait"))),
    );
    await expect.poll(() => world.upstream.waiting.length - waiting, { timeout: 20_000 }).toBe(8);
    for (const of of [key, ...keys]) {
      expect(await outcomes([complete(gateway, of, largeChat(MIB))])).toEqual({
        "503 overloaded": 1,
      });
      expect(await outcomes([complete(gateway, of, largeChat(60_000))])).toEqual({ "200": 1 });
    }
    for (const res of world.upstream.waiting.slice(waiting)) res.end(ANSWER);
    expect(await outcomes(asked)).toEqual({ "200": 8 });
  });

  test("memory had its bound, and nothing happened that never should", async () => {
    const peakBytes = memoryBytes(world.relai.pid, "VmHWM");
    const mib = (bytes: number) => Math.round(bytes / MIB);
    console.log(`hostile input: ${mib(idleBytes)} MiB when idle, ${mib(peakBytes)} MiB at most`);
    expect(peakBytes).toBeLessThanOrEqual(idleBytes + 3 * IN_FLIGHT_BYTES_MAX);
    expect(await faultsIn(world.relai)).toEqual([]);
    expect(world.relai.stderr()).toBe("");
    expect((await fetch(`${gateway}/healthz`)).status).toBe(200);
  });
});
