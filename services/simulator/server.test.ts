import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { startSimulator, type Simulator } from "./server.ts";
import type { Clock } from "#services/ports.ts";

/** A clock that moves when the test says so. */
function handClock(): Clock & { advance(byMs: number): void; waiting(): number } {
  let nowMs = 1_000_000;
  const timers = new Map<() => void, number>();
  return {
    now: () => nowMs,
    elapsed: () => nowMs,
    timer(delayMs, callback) {
      const entry = (): void => callback();
      timers.set(entry, nowMs + delayMs);
      return () => timers.delete(entry);
    },
    advance(byMs) {
      nowMs += byMs;
      for (const [callback, dueMs] of timers) {
        if (dueMs > nowMs) continue;
        timers.delete(callback);
        callback();
      }
    },
    waiting: () => timers.size,
  };
}

let clock = handClock();
let simulator: Simulator;
let url = "";
const start = (): Promise<Simulator> =>
  startSimulator({
    clock,
    random: { bytes: (count) => new Uint8Array(count) },
    port: 0,
    bodyBytesMax: 10_000,
  });
beforeEach(async () => {
  clock = handClock();
  simulator = await start();
  ({ url } = simulator);
});
afterEach(() => simulator.close());

const post = (
  content: string,
  more: Record<string, unknown> = {},
  signal?: AbortSignal,
): Promise<Response> =>
  fetch(`${url}/openai/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: "Bearer sk-test-wxyz", "x-client-request-id": "req_7" },
    body: JSON.stringify({ model: "sim-flat", messages: [{ role: "user", content }], ...more }),
    ...(signal && { signal }),
  });
const clockHasTimers = (count: number): Promise<void> =>
  vi.waitFor(() => expect(clock.waiting()).toBe(count), { interval: 1 });

test("nothing is answered before `first`, and `delay` parts the events", async () => {
  let answered = false;
  const answer = post("[sim first=100 delay=20 chunks=2]", { stream: true }).then((response) => {
    answered = true;
    return response.text();
  });
  await clockHasTimers(1);
  clock.advance(99);
  expect([answered, clock.waiting()]).toEqual([false, 1]);
  clock.advance(1);
  // role, two contents, finish, [DONE]: four gaps.
  for (let gap = 0; gap < 4; gap += 1) {
    await clockHasTimers(1);
    clock.advance(20);
  }
  expect(await answer).toContain("[DONE]");
  expect(simulator.book()).toMatchObject([
    { atMs: 1_000_000, endedAtMs: 1_000_180, finished: true },
  ]);
});

test("a call that is held back is in the book, and waits ten minutes at the most", async () => {
  const answer = post("[sim hold=never output=5 input=6]");
  await clockHasTimers(1);
  expect(simulator.book()).toEqual([
    {
      call: 1,
      atMs: 1_000_000,
      requestId: "req_7",
      keyLast4: "wxyz",
      model: "sim-flat",
      stream: false,
      status: 200,
      tokens: { input: 6, output: 5 },
      finished: false,
      clientGone: false,
      usageSent: false,
    },
  ]);
  clock.advance(600_000);
  expect((await answer).status).toBe(200);
});

test("what was released in time or before leaves no timer behind", async () => {
  const early = post("[sim hold=x]");
  await clockHasTimers(1);
  expect(simulator.release("x")).toBe(1);
  expect((await early).status).toBe(200);
  expect((await post("[sim hold=x]")).status).toBe(200);
  expect(clock.waiting()).toBe(0);
});

test("a caller who leaves ends every wait", async () => {
  for (const words of ["hold=x", "first=50", "stall-after=0"]) {
    const leave = new AbortController();
    const answer = post(`[sim ${words}]`, { stream: true }, leave.signal)
      .then((response) => response.text())
      .catch((error: unknown) => error);
    await clockHasTimers(1);
    leave.abort();
    expect(await answer).toBeInstanceOf(DOMException);
    await clockHasTimers(0);
  }
  await vi.waitFor(() =>
    expect(simulator.book()).toMatchObject(
      Array.from({ length: 3 }, () => ({
        finished: false,
        clientGone: true,
        endedAtMs: 1_000_000,
      })),
    ),
  );
});

test("closing the simulator is not the caller's leaving", async () => {
  const answer = post("[sim hold=x]").catch((error: unknown) => error);
  await clockHasTimers(1);
  await simulator.close();
  expect(await answer).toBeInstanceOf(TypeError);
  expect(simulator.book()).toMatchObject([
    { finished: false, clientGone: false, endedAtMs: 1_000_000 },
  ]);
  simulator = await start();
});

test("what is no call is refused and booked without charge", async () => {
  const noKey = await fetch(`${url}/openai/v1/chat/completions`, { method: "POST", body: "{}" });
  expect(noKey.status).toBe(401);
  expect(await noKey.json()).toMatchObject({ error: { code: "invalid_api_key" } });
  expect((await post("x".repeat(20_000))).status).toBe(413);
  expect((await post("[sim what]")).status).toBe(400);
  const deep = await fetch(`${url}/openai/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: "Bearer k" },
    body: "[".repeat(9_000),
  });
  expect(deep.status).toBe(400);
  expect(simulator.book().map(({ status, tokens }) => [status, tokens])).toEqual([
    [401, {}],
    [413, {}],
    [400, {}],
    [400, {}],
  ]);
});

test("other paths", async () => {
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  expect((await fetch(`${url}/nothing`)).status).toBe(404);
  expect((await fetch(`${url}/openai/v1/models`)).status).toBe(401);
  expect((await fetch(`${url}/release/%E0`, { method: "POST" })).status).toBe(400);
  expect((await fetch(`${url}/book?after=x`)).status).toBe(400);
  await post("hi");
  await post("hi");
  const lines = await (await fetch(`${url}/book?after=1`)).text();
  expect(JSON.parse(lines)).toEqual(simulator.book(1)[0]);
});
