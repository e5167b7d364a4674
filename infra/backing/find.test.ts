import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { describeSource, findServer, startServer } from "./find.ts";

const folder = mkdtempSync(join(tmpdir(), "relai-found-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A folder with one program in it. */
function having(name: string): string {
  const at = join(folder, name.replaceAll(".", "-"));
  mkdirSync(at, { recursive: true });
  writeFileSync(join(at, name), "#!/bin/sh\n");
  chmodSync(join(at, name), 0o755);
  return at;
}

/** An address at which no engine answers, whatever this machine has. */
const DOCKER_HOST = `unix://${join(folder, "no.sock")}`;

/** A Docker engine as far as it is looked for; gives its address. */
async function engine(answer: RequestListener): Promise<string> {
  const path = join(folder, `${answer.name}.sock`);
  const server = createServer(answer).listen(path);
  server.unref();
  await new Promise((resolve) => server.once("listening", resolve));
  return `unix://${path}`;
}

test("a named server comes before a container, that before a program, that before none", async () => {
  const url = "redis://127.0.0.1:1";
  const PATH = `/nowhere:${having("redis-server")}`;
  const docker = await engine(function answers({ url: path }, response) {
    response.writeHead(path === "/_ping" ? 200 : 404).end("OK");
  });
  const env = { PATH, DOCKER_HOST: docker };
  expect(await findServer("redis", env, { url })).toEqual({ from: "url", url });
  const inContainer = await findServer("redis", env, { url: "" });
  expect(inContainer).toEqual({ from: "container", image: "redis:7-alpine" });
  expect(describeSource(inContainer)).toBe("a container of redis:7-alpine");
  const program = { from: "program", program: join(having("redis-server"), "redis-server") };
  expect(await findServer("redis", env, { containers: false })).toEqual(program);
  expect(await findServer("redis", { PATH, DOCKER_HOST }, {})).toEqual(program);
  const reason = "no URL, no Docker engine, and no redis-server or valkey-server on the PATH";
  expect(await findServer("redis", { DOCKER_HOST }, {})).toEqual({ from: "nowhere", reason });
});

test("an engine that does not answer in a second, or refuses, is none", async () => {
  const silent = await engine(function silent() {});
  const refusing = await engine(function refusing(_, response) {
    response.writeHead(403).end();
  });
  const source = { from: "program" };
  const PATH = having("redis-server");
  for (const DOCKER_HOST of [silent, refusing, "tcp://127.0.0.1:1", "no address"])
    expect(await findServer("redis", { PATH, DOCKER_HOST }, {})).toMatchObject(source);
});

test("Valkey is a Redis, and no Redis is a Valkey", async () => {
  const valkey = having("valkey-server");
  const program = join(valkey, "valkey-server");
  for (const kind of ["redis", "valkey"] as const)
    expect(await findServer(kind, { PATH: valkey, DOCKER_HOST }, {})).toMatchObject({ program });
  expect(
    await findServer("valkey", { PATH: having("redis-server"), DOCKER_HOST }, {}),
  ).toMatchObject({ from: "nowhere" });
});

test.for(["KurrentDB", "EventStore.ClusterNode"])(
  "an event store is %s in the folder that is named",
  async (name) => {
    const env = { PATH: having(name), DOCKER_HOST };
    expect(await findServer("eventstore", env, {})).toMatchObject({ from: "nowhere" });
    const home = { ...env, RELAI_EVENTSTORE_HOME: having(name) };
    const program = join(having(name), name);
    expect(await findServer("eventstore", home, {})).toEqual({ from: "program", program });
  },
);

test("a server that was there before is not stopped", async () => {
  const url = "esdb://127.0.0.1:1";
  const server = await startServer("eventstore", { from: "url", url });
  expect(server.url).toBe(url);
  await server.stop();
});
