import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { answersIn, open } from "#test/e2e/hostile/raw-http.ts";
import {
  balanceOf,
  leavesNothingRunning,
  newOrganization,
  startRelai,
  type RelaiProcess,
} from "#test/e2e/relai.ts";

/** What one key can do to everybody else by taking what all share: nothing. */

leavesNothingRunning();

const MIB = 2 ** 20;
const CONNECTIONS_MAX = 8;
const MODEL = "gpt-4o-mini";
/** An answer that takes more room than a small one. */
const LARGE_ANSWER = JSON.stringify({
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1,
  model: MODEL,
  choices: [
    {
      index: 0,
      message: { role: "assistant", content: "z".repeat(100_000) },
      finish_reason: "stop",
    },
  ],
  usage: { prompt_tokens: 10, completion_tokens: 2, total_tokens: 12 },
});
const PIECE = `data: ${JSON.stringify({
  id: "chatcmpl-1",
  object: "chat.completion.chunk",
  created: 1,
  model: MODEL,
  choices: [{ index: 0, delta: { content: "z".repeat(50_000) }, finish_reason: null }],
})}\n\n`;

/** Goes on with a stream for as long as somebody takes it. */
function pour(response: ServerResponse): void {
  while (!response.destroyed && response.write(PIECE));
  response.once("drain", () => pour(response));
}

let upstream: Server;
/** Streams that the upstream has begun. */
let begun = 0;
let relai: RelaiProcess;
const sockets = new Set<Socket>();
beforeAll(async () => {
  upstream = createServer((request, response) => {
    let body = "";
    request.on("data", (piece: Buffer) => (body += piece.toString().slice(-200)));
    request.on("end", () => {
      const isStream = body.includes('"stream":true');
      const type = isStream ? "text/event-stream" : "application/json";
      response.writeHead(200, { "content-type": type });
      if (!isStream) return void response.end(LARGE_ANSWER);
      begun += 1;
      pour(response);
    });
  });
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  relai = await startRelai({
    settings: {
      RELAI_DEMO: "0",
      OPENAI_API_KEY: "sk-of-the-upstream",
      OPENAI_BASE_URL: `http://127.0.0.1:${(upstream.address() as AddressInfo).port}/v1`,
      RELAI_UPSTREAM_CONNECTIONS_MAX: String(CONNECTIONS_MAX),
      RELAI_UPSTREAM_WAITING_MAX: String(CONNECTIONS_MAX),
      RELAI_UPSTREAM_CONNECT_MS: "1000",
      RELAI_READ_ON_MS: "500",
      RELAI_DRAIN_MS: "1000",
    },
  });
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
});
afterAll(async () => {
  await relai.stop();
  upstream.closeAllConnections();
  upstream.close();
});

const chatOf = (contentBytes: number, more: object = {}) =>
  JSON.stringify({
    model: MODEL,
    max_tokens: 16,
    messages: [{ role: "user", content: "a".repeat(contentBytes) }],
    ...more,
  });

/** Sends a head, and of its body all but the last byte; `text` is what has come back. */
function sendHalf(key: string, bodyBytes: number): { text: () => string } {
  return sendAndKeep(key, bodyBytes, Buffer.alloc(bodyBytes - 1, " "));
}

function sendAndKeep(key: string, length: number, body: Buffer | string, isRead = true) {
  const socket = open(relai.gateway);
  sockets.add(socket);
  let text = "";
  if (isRead) socket.on("data", (piece: Buffer) => (text += piece.toString()));
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ${key}\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`,
  );
  socket.write(body);
  return { text: () => text };
}

/** Eleven bodies of 20 MiB and eighty of 100 kB, of which none comes whole. */
const sendManyHalf = (key: string) =>
  [...Array.from({ length: 11 }, () => 20 * MIB), ...Array.from({ length: 80 }, () => 100_000)].map(
    (bytes) => sendHalf(key, bytes),
  );

/** Another customer asks with a body, and gets an answer, that are not small. */
async function expectServed(key: string): Promise<void> {
  const answer = await fetch(`${relai.gateway}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: chatOf(150_000),
  });
  expect([answer.status, await answer.text()]).toEqual([200, LARGE_ANSWER]);
}

const outcomesOf = (asked: readonly { text: () => string }[]) => {
  const counts: Record<string, number> = {};
  for (const { text } of asked) {
    const answer = text() === "" ? undefined : answersIn(Buffer.from(text()))[0];
    const code = /"code":"(\w+)"/.exec(answer?.body ?? "")?.[1];
    const outcome = answer ? `${answer.status} ${code}` : "nothing yet";
    counts[outcome] = (counts[outcome] ?? 0) + 1;
  }
  return counts;
};

test("half-sent bodies of a key without money are not read, and leave others unharmed", async () => {
  const poor = await newOrganization(relai, { creditMicro: 0 });
  const other = await newOrganization(relai, { creditMicro: 100_000_000 });
  const asked = sendManyHalf(poor.key);
  await expect
    .poll(() => outcomesOf(asked), { timeout: 20_000 })
    .toEqual({ "402 insufficient_balance": 91 });
  for (let round = 0; round < 5; round++) await expectServed(other.key);
});

test("half-sent bodies of a key with money take a quarter of the room for 10 s, and leave others unharmed", async () => {
  const rich = await newOrganization(relai, { creditMicro: 100_000_000 });
  const other = await newOrganization(relai, { creditMicro: 100_000_000 });
  const asked = sendManyHalf(rich.key);
  // One organization has 40 MiB for large bodies. What found no room is told so; the others are waited for.
  await expect
    .poll(() => outcomesOf(asked)["503 overloaded"] ?? 0, { timeout: 8_000 })
    .toBeGreaterThanOrEqual(9);
  for (let round = 0; round < 5; round++) await expectServed(other.key);
  expect(outcomesOf(asked)["nothing yet"]).toBeGreaterThan(0);
  await expect.poll(() => outcomesOf(asked)["nothing yet"], { timeout: 60_000 }).toBe(undefined);
  const { "503 overloaded": refused = 0, "408 request_timeout": slow = 0 } = outcomesOf(asked);
  expect([refused + slow, slow > 0]).toEqual([91, true]);
  await expectServed(rich.key);
});

test("one key with slow readers does not take the connections of others; nothing of it counts against the upstream", async () => {
  const greedy = await newOrganization(relai, { creditMicro: 100_000_000 });
  const other = await newOrganization(relai, { creditMicro: 100_000_000 });
  const body = chatOf(10, { stream: true });
  const asked = Array.from({ length: 40 }, () => sendAndKeep(greedy.key, body.length, body, false));
  await expect.poll(() => begun, { timeout: 20_000 }).toBe(CONNECTIONS_MAX / 2);
  for (let round = 0; round < 5; round++) await expectServed(other.key);
  expect(begun).toBe(CONNECTIONS_MAX / 2);
  const refused = await fetch(`${relai.gateway}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${greedy.key}`, "content-type": "application/json" },
    body,
  });
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "1"]);
  expect(await refused.json()).toMatchObject({ error: { code: "overloaded" } });
  const metrics = await (await fetch(`${relai.internal}/metrics`)).text();
  expect(metrics).toContain('code="overloaded"');
  expect(metrics).not.toContain('code="upstream_error"');
  expect(asked).toHaveLength(40);
  for (const socket of sockets) socket.destroy();
  await expect.poll(async () => (await balanceOf(greedy)).held_micro, { timeout: 20_000 }).toBe(0);
  await expectServed(greedy.key);
});
