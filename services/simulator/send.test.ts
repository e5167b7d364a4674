import { createServer } from "node:http";
import { once } from "node:events";
import { connect } from "node:net";
import { expect, test, vi } from "vitest";
import { createGates } from "./gates.ts";
import { sendAnswer } from "./send.ts";
import type { AddressInfo } from "node:net";
import type { AnswerPlan } from "./answer.ts";
import type { StreamEvent } from "./chunks.ts";
import type { SendOutcome } from "./send.ts";

test("events are made no faster than the caller takes them, and all of them arrive", async () => {
  const eventsTotal = 2_000;
  const eventBytes = 20_000;
  let made = 0;
  function* events(): Generator<StreamEvent> {
    for (; made < eventsTotal; made += 1)
      yield { text: "x".repeat(eventBytes), tellsUsage: made === eventsTotal - 1 };
  }
  const plan: AnswerPlan = {
    status: 200,
    retryAfterSeconds: undefined,
    contentType: "text/event-stream",
    body: events(),
    tokens: {},
    tellsUsage: false,
    cut: undefined,
    complete: true,
  };
  const clock = { now: () => 0, elapsed: () => 0, timer: () => () => undefined };
  let outcome: Promise<SendOutcome> | undefined;
  const server = createServer((_req, res) => {
    outcome = sendAnswer({ plan, waits: {}, headers: {}, clock, gates: createGates(1) }, res);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  socket.pause();
  socket.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");

  // Without a reader the sender comes to a stop once the buffers of the connection are full.
  let before = -1;
  await vi.waitFor(
    () => {
      const still = made === before && made > 0;
      before = made;
      expect(still).toBe(true);
    },
    { interval: 100, timeout: 10_000 },
  );
  expect(made).toBeLessThan(eventsTotal / 2);

  let bytes = 0;
  socket.on("data", (part: Buffer) => {
    bytes += part.length;
  });
  socket.resume();
  await once(socket, "close");
  expect(bytes).toBeGreaterThan(eventsTotal * eventBytes);
  expect(await outcome).toEqual({ finished: true, clientGone: false, usageSent: true });
  server.close();
});
