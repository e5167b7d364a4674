import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { expect, test } from "vitest";
import { guardLoopback } from "./loopback.ts";

/** What a server at an address does with requests of these headers, one after the other. */
function serve(address: string, ...requests: readonly { host?: string; origin?: string }[]) {
  const done: string[] = [];
  const server = createServer(() => done.push("served"));
  guardLoopback(server, address, (_response, { code, message = "" }) => {
    done.push(`${code}: ${/the Host|another Origin/.exec(message)?.[0]}`);
  });
  for (const headers of requests)
    server.emit("request", { headers } as IncomingMessage, {} as ServerResponse);
  return done;
}

const FOREIGN_HOST = "loopback_only: the Host";
const FOREIGN_ORIGIN = "loopback_only: another Origin";

test.each(["127.0.0.1", "127.1.2.3", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"])(
  "a listener on %s asks for a name of its own machine, under its own address too",
  (address) => {
    const own = new URL(`http://${address.includes(":") ? `[${address}]` : address}:8080`).host;
    expect(serve(address, { host: own }, { host: "localhost" })).toEqual(["served", "served"]);
    expect(serve(address, { host: "example.com" })).toEqual([FOREIGN_HOST]);
  },
);

test.each(["0.0.0.0", "::", "10.0.0.1", "192.168.1.2", "fe80::1", "::ffff:10.0.0.1"])(
  "a listener on %s asks nobody",
  (address) => {
    const page = { host: "relai.example.com", origin: "https://example.com" };
    expect(serve(address, page)).toEqual(["served"]);
  },
);

test("every request is looked at, also behind others that were its like", () => {
  const own = { host: "localhost:8080" };
  const answers = serve(
    "127.0.0.1",
    own,
    own,
    { ...own, origin: "https://example.com" },
    { host: "example.com" },
    { host: "example.com" },
    { ...own, origin: "http://localhost:8080" },
    own,
    {},
    { origin: "http://undefined" },
  );
  expect(answers).toEqual([
    "served",
    "served",
    FOREIGN_ORIGIN,
    FOREIGN_HOST,
    FOREIGN_HOST,
    "served",
    "served",
    "served",
    FOREIGN_ORIGIN,
  ]);
});
