import type { Socket } from "node:net";
import { expect, test } from "vitest";
import { eventsIn } from "./money/books.ts";
import { open } from "./hostile/raw-http.ts";
import {
  jsonOf,
  leavesNothingRunning,
  newOrganization,
  post,
  sse,
  startRelai,
  type RelaiProcess,
} from "./relai.ts";

/** How a stop goes: what runs ends well, and no client of any port can hold the process back. */

leavesNothingRunning();

const DRAIN_MS = 1_000;
/** What a stop may take beyond the drain, whatever clients do. */
const STOP_MS_MAX = 10_000;
const PORTS = ["gateway", "control", "internal", "simulator"] as const;

/** The path of a request that each port may read a body for, and a credential that it takes. */
const bodyHead: Record<(typeof PORTS)[number], (relai: RelaiProcess) => [string, string]> = {
  gateway: ({ key }: RelaiProcess) => ["/v1/chat/completions", key],
  control: ({ adminToken }: RelaiProcess) => ["/v1/orgs", adminToken],
  internal: () => ["/metrics", "none"],
  simulator: () => ["/openai/v1/chat/completions", "any"],
};

/** Clients that never come to an end. Each gives what it says again and again, or nothing. */
const clients: Record<string, (socket: Socket, path: string, credential: string) => string> = {
  "says nothing": () => "",
  "has sent half a head": (socket) => {
    socket.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Half: ");
    return "";
  },
  "has sent half a body": (socket, path, credential) => {
    socket.write(`${postHead(path, credential)}content-length: 100\r\n\r\n{`);
    return "";
  },
  "sends a head for ever": (socket) => {
    socket.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ");
    return "x";
  },
  "sends a body for ever": (socket, path, credential) => {
    socket.write(`${postHead(path, credential)}transfer-encoding: chunked\r\n\r\n`);
    return "1\r\n \r\n";
  },
  "asks on and on and reads nothing": (socket) => {
    socket.pause();
    return "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
  },
};

function postHead(path: string, credential: string): string {
  return `POST ${path} HTTP/1.1\r\nHost: localhost\r\nauthorization: Bearer ${credential}\r\ncontent-type: application/json\r\n`;
}

test.for(PORTS)("no client of the %s port keeps a stop from its end", async (port) => {
  const relai = await startRelai({ settings: { RELAI_DRAIN_MS: String(DRAIN_MS) } });
  const [path, credential] = bodyHead[port](relai);
  const saying = Object.values(clients).map((begin) => {
    const socket = open(relai[port]);
    const more = begin(socket, path, credential);
    const timer = setInterval(() => socket.writable && more !== "" && socket.write(more), 20);
    return () => {
      clearInterval(timer);
      socket.destroy();
    };
  });
  // Every connection has been accepted, and what was sent on it read, before the process is told to stop.
  expect((await fetch(`${relai[port]}/healthz`)).status).toBe(200);
  const stopping = relai.stop();
  const late = new Promise((resolve) => {
    setTimeout(resolve, DRAIN_MS + STOP_MS_MAX, "not ended");
  });
  const ended = await Promise.race([stopping, late]);
  for (const leave of saying) leave();
  relai.signal("SIGKILL");
  await stopping;
  expect(ended).toBe(0);
  // A clean end: both journals are sealed by the process itself, and nothing is left for the next start.
  const seals = (await eventsIn(relai)).filter(({ type }) => type === "JournalSealed.v1");
  expect(seals.map(({ data }) => data)).toEqual([{ by: "writer" }, { by: "writer" }]);
});

test("while what runs ends, control, metrics and the upstream go on, and nothing is ready", async () => {
  const relai = await startRelai();
  const org = await newOrganization(relai, { creditMicro: 1_000_000 });
  const answer = await post(org, "[sim output=5 chunks=5 delay=800]", { stream: true });
  const events = sse(answer);
  expect((await events.next()).done).toBe(false);
  const stopping = relai.stop();
  await expect
    .poll(() =>
      fetch(`${relai.gateway}/healthz`)
        .then(({ status }) => status)
        .catch(() => "refused"),
    )
    .toBe("refused");

  const bearer = { authorization: `Bearer ${relai.adminToken}` };
  const listed = await fetch(`${relai.control}/v1/orgs`, { headers: bearer });
  expect([listed.status, await listed.text()]).toEqual([
    200,
    expect.stringContaining(org.organization),
  ]);
  const metrics = await fetch(`${relai.internal}/metrics`);
  expect([metrics.status, await metrics.text()]).toEqual([
    200,
    expect.stringContaining("relai_requests_total"),
  ]);
  for (const url of [relai.control, relai.internal]) {
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    const ready = await fetch(`${url}/readyz`);
    expect([ready.status, await jsonOf(ready)]).toEqual([
      503,
      expect.objectContaining({ ready: false, stopping: true }),
    ]);
  }
  const rest: string[] = [];
  for await (const event of events) rest.push(event);
  expect(rest.at(-1)).toBe("[DONE]");
  expect(await stopping).toBe(0);
});
