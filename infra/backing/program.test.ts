import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test, vi } from "vitest";
import { startEventStore } from "./event-store.ts";
import { findProgram } from "./find.ts";
import { startRedis } from "./redis.ts";

const folder = mkdtempSync(join(tmpdir(), "relai-programs-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A program that is a script. */
function script(name: string, text: string): string {
  const program = join(folder, name);
  writeFileSync(program, text);
  chmodSync(program, 0o755);
  return program;
}

const isThere = (pid: number) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

describe("Redis", () => {
  test("that does not start says why, and leaves no folder", async () => {
    const program = script("redis-server", `#!/bin/sh\necho "no memory in $6"; exit 1\n`);
    const failed = String(await startRedis({ program }).catch((error: unknown) => error));
    expect(failed).toContain("redis-server did not start:\nno memory in /");
    expect(existsSync(/no memory in (\S+)/.exec(failed)?.[1] ?? "/")).toBe(false);
  });

  test("whose program is gone says so", async () => {
    const program = join(folder, "gone");
    await expect(startRedis({ program })).rejects.toThrow("gone did not start:\nError: spawn");
  });

  test("is on its own port and folder, and gone afterwards", async (context) => {
    const program = findProgram("redis", process.env);
    if (program === undefined) return context.skip("no redis-server on the PATH");
    const server = await startRedis({ program });
    expect(server.port).not.toBe(6379);
    expect(existsSync(server.folder)).toBe(true);
    await server.kill();
    expect(existsSync(server.folder)).toBe(false);
    expect(isThere(server.pid)).toBe(false);
  });

  test("goes with its folder when who started it is killed", async (context) => {
    const program = findProgram("redis", process.env);
    if (program === undefined) return context.skip("no redis-server on the PATH");
    const module = fileURLToPath(new URL("redis.ts", import.meta.url));
    const code = `
      import { startRedis } from ${JSON.stringify(module)};
      const { pid, folder } = await startRedis({ program: ${JSON.stringify(program)} });
      console.log(JSON.stringify({ pid, folder }));`;
    const starter = spawn(process.execPath, ["--input-type=module-typescript", "-e", code]);
    const [line] = (await once(starter.stdout, "data")) as [Buffer];
    const server = JSON.parse(String(line)) as { pid: number; folder: string };
    expect(isThere(server.pid)).toBe(true);
    starter.kill("SIGKILL");
    await vi.waitFor(() => expect(isThere(server.pid)).toBe(false), { timeout: 20_000 });
    await vi.waitFor(() => expect(existsSync(server.folder)).toBe(false), { timeout: 20_000 });
  });
});

/** What an EventStoreDB is to whoever starts it: it takes these options, and is live after a while. */
const FAKE = `#!${process.execPath}
const { createServer } = require("node:http");
const { writeFileSync } = require("node:fs");
const args = process.argv.slice(2);
writeFileSync(process.env.HOME + "/args", args.join(" "));
const begun = Date.now();
const live = ({ url }, answer) =>
  answer.writeHead(url === "/health/live" && Date.now() - begun > 200 ? 204 : 503).end();
createServer(live).listen(Number(args[args.indexOf("--node-port") + 1]), "127.0.0.1");
process.on("SIGTERM", () => {
  writeFileSync(process.env.HOME + "/ended", "by itself");
  process.exit(0);
});
`;

describe("an event store", () => {
  test("is ready when it is live; its events stay in a folder that is given", async () => {
    const home = mkdtempSync(join(folder, "home-"));
    const server = await startEventStore({ program: script("KurrentDB", FAKE), folder: home });
    const port = Number(/^esdb:\/\/127\.0\.0\.1:(\d+)\?tls=false$/.exec(server.url)?.[1]);
    expect(readFileSync(join(home, "args"), "utf8")).toMatch(
      new RegExp(
        `^--insecure --node-ip 127.0.0.1 --node-port ${port} --replication-ip 127.0.0.1 --replication-port \\d+ --db ${home}/db --log ${home}/log$`,
      ),
    );
    await server.end(10_000);
    expect(readFileSync(join(home, "ended"), "utf8")).toBe("by itself");
    expect(isThere(server.pid)).toBe(false);
  });

  test("without a folder keeps them in memory", async () => {
    const server = await startEventStore({ program: script("KurrentDB", FAKE) });
    expect(readFileSync(join(server.folder, "args"), "utf8")).toContain(" --mem-db ");
    await server.kill();
    expect(existsSync(server.folder)).toBe(false);
  });

  test("that never gets ready is ended, with all that it started", async () => {
    const pids = join(folder, "pids");
    const program = script(
      "EventStore.ClusterNode",
      `#!/bin/sh\necho starting\nsleep 600 &\necho $$ $! > ${pids}\nwait\n`,
    );
    const started = startEventStore({ program, readyMsMax: 1000 });
    await expect(started).rejects.toThrow(
      "EventStore.ClusterNode was not ready within 1000 ms:\nstarting",
    );
    for (const pid of readFileSync(pids, "utf8").trim().split(" "))
      await vi.waitFor(() => expect(isThere(Number(pid))).toBe(false), { timeout: 20_000 });
  });

  test("that dies says what it said", async () => {
    const program = script("EventStore.ClusterNode", "#!/bin/sh\necho no licence >&2; exit 3\n");
    await expect(startEventStore({ program })).rejects.toThrow("did not start:\nno licence");
  });

  test("that does not end when it is asked to is ended", async () => {
    const program = script(
      "KurrentDB",
      FAKE.replace(/process\.on[^]*/, "process.on('SIGTERM', () => {});"),
    );
    const server = await startEventStore({ program });
    await server.end(100);
    expect(isThere(server.pid)).toBe(false);
  });
});
