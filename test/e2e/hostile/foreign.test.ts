import { networkInterfaces } from "node:os";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { answersIn, exchange, requestText } from "./raw-http.ts";
import { leavesNothingRunning, openHere } from "#test/e2e/relai.ts";

/** Who may speak to a listener on loopback: this machine's programs, and no page of the web behind a browser on it. */

leavesNothingRunning();

type Here = Awaited<ReturnType<typeof openHere>>;
const PORTS = ["gateway", "control", "internal", "simulator"] as const;

let relai: Here;
beforeAll(async () => {
  relai = await openHere();
});
afterAll(() => relai.stop());

/** Sends one request and gives its status and, of an error, the code. `{port}` stands for the port that is asked. */
async function ask(url: string, lines: readonly string[], request = "GET /healthz") {
  const { port } = new URL(url);
  const head = [`${request} HTTP/1.1`, "connection: close", ...lines];
  const [answer, more] = answersIn(
    await exchange(url, requestText(head.map((line) => line.replaceAll("{port}", port)))),
  );
  expect(more).toBeUndefined();
  const { error } = JSON.parse(answer?.body ?? "{}") as { error?: Record<string, unknown> };
  return { status: answer?.status, code: error?.["code"], error, head: answer?.head ?? "" };
}

describe.each(PORTS)("the %s port", (port) => {
  test.each([
    "localhost",
    "localhost:{port}",
    "LocalHost:1",
    "127.0.0.1",
    "127.0.0.1:{port}",
    "127.9.8.7:80",
    "[::1]",
    "[::1]:{port}",
  ])("answers a request for %s", async (host) => {
    expect((await ask(relai[port], [`host: ${host}`])).status).toBe(200);
  });

  test.each([
    "relai.example.com",
    "relai.example.com:{port}",
    "localhost.example.com",
    "127.0.0.1.example.com",
    "localhost.",
    "0.0.0.0:{port}",
    "10.0.0.1:{port}",
    "127.0.0.1@example.com",
    "localhost:{port}:1",
    "",
  ])("refuses a request for %j", async (host) => {
    const { status, error } = await ask(relai[port], [`host: ${host}`]);
    expect([status, error?.["type"]]).toEqual([
      403,
      port === "simulator" ? expect.any(String) : "permission_error",
    ]);
    expect(error?.["message"]).toMatch(/Host/);
  });

  test("answers its own page", async () => {
    const lines = ["host: localhost:{port}", "origin: http://localhost:{port}"];
    expect((await ask(relai[port], lines)).status).toBe(200);
  });

  test.each([
    "https://example.com",
    "http://example.com:{port}",
    "http://localhost:3000",
    "https://localhost:{port}",
    "http://127.0.0.1:{port}",
    "http://localhost",
    "null",
    "",
  ])("refuses a page of %j", async (origin) => {
    const lines = ["host: localhost:{port}", `origin: ${origin}`];
    const { status, error } = await ask(relai[port], lines);
    expect(status).toBe(403);
    expect(error?.["message"]).toMatch(/Origin/);
  });
});

test("who is refused has used no credential, whatever the route", async () => {
  const key = `authorization: Bearer ${relai.key}`;
  const token = `authorization: Bearer ${relai.adminToken}`;
  const foreign = "host: rebound.example.com";
  const code = (url: string, lines: readonly string[], request: string) =>
    ask(url, lines, request).then((answer) => answer.code);
  for (const path of [
    "/v1/models",
    "/v1/balance",
    "/v1/chat/completions",
    "/nowhere",
    "/%zz",
    "/readyz",
  ]) {
    expect(await code(relai.gateway, [foreign, key], `GET ${path}`)).toBe("loopback_only");
    expect(await code(relai.control, [foreign, token], `GET ${path}`)).toBe("loopback_only");
    expect(await code(relai.internal, [foreign], `GET ${path}`)).toBe("loopback_only");
  }
  const preflight = [
    "host: localhost",
    "origin: https://example.com",
    "access-control-request-method: POST",
  ];
  expect(await code(relai.gateway, preflight, "OPTIONS /v1/chat/completions")).toBe(
    "loopback_only",
  );
  // Before the key is looked at.
  expect(await code(relai.gateway, [foreign, "authorization: Bearer none"], "GET /v1/models")).toBe(
    "loopback_only",
  );
  for (const url of [relai.gateway, relai.control])
    expect((await ask(url, [foreign])).head).toMatch(/^x-request-id: req_[0-9A-Z]{26}\r?$/m);
});

test("a request that has no Host at all, as the oldest clients send it, is answered", async () => {
  const [answer] = answersIn(await exchange(relai.internal, "GET /healthz HTTP/1.0\r\n\r\n"));
  expect(answer?.status).toBe(200);
});

test("RELAI_BIND opens the gateway and nothing else, and a gateway that all may reach asks nobody where he comes from", async ({
  skip,
}) => {
  const lan = Object.values(networkInterfaces())
    .flat()
    .find((one) => one?.family === "IPv4" && !one.internal)?.address;
  if (lan === undefined) return skip("this machine has no address but loopback");
  const open = await openHere({ settings: { RELAI_BIND: "0.0.0.0" } });
  const at = (url: string) => `http://${lan}:${new URL(url).port}`;
  const foreign = ["host: relai.example.com", "origin: https://example.com"];
  expect((await ask(at(open.gateway), foreign)).status).toBe(200);
  for (const url of [open.control, open.internal, open.simulator]) {
    await expect(fetch(`${at(url)}/healthz`)).rejects.toThrow();
    expect((await ask(url, foreign)).status).toBe(403);
  }
  await open.stop();
});

test("RELAI_CONTROL_BIND and RELAI_INTERNAL_BIND move their own listener; the simulator stays", async () => {
  const settings = { RELAI_CONTROL_BIND: "127.0.0.2", RELAI_INTERNAL_BIND: "127.0.0.3" };
  const moved = await openHere({ settings });
  const hosts = PORTS.map((port) => new URL(moved[port]).hostname);
  expect(hosts).toEqual(["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]);
  for (const port of PORTS) {
    expect((await fetch(`${moved[port]}/healthz`)).status).toBe(200);
    expect((await ask(moved[port], ["host: example.com"])).status).toBe(403);
  }
  await moved.stop();
});
