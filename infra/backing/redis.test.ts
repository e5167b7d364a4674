import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { findRedis, startRedis } from "./redis.ts";

const folder = mkdtempSync(join(tmpdir(), "relai-path-"));
const program = join(folder, "redis-server");
writeFileSync(program, "#!/bin/sh\necho no memory; exit 1\n");
chmodSync(program, 0o755);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a named server comes before the program on the PATH", () => {
  const url = "redis://127.0.0.1:1";
  expect(findRedis({ RELAI_TEST_REDIS_URL: url, PATH: folder })).toEqual({ from: "url", url });
  expect(findRedis({ PATH: `/nowhere:${folder}` })).toEqual({ from: "program", program });
});

test("none is a reason to skip, and an error where it is required", () => {
  const reason = expect.stringContaining("no redis-server on the PATH") as string;
  expect(findRedis({ PATH: "/nowhere" })).toEqual({ from: "nowhere", reason });
  expect(findRedis({ PATH: "/nowhere", REQUIRE_SERVERS: "kafka" })).toMatchObject({ reason });
  expect(() => findRedis({ PATH: "/nowhere", REQUIRE_SERVERS: "kafka, redis" })).toThrow(
    "REQUIRE_SERVERS asks for redis",
  );
});

test("a server that does not start says why, and leaves no folder", async () => {
  const failed = await startRedis({ program }).catch((error: unknown) => error);
  expect(String(failed)).toContain("no memory");
});

test("one that was started is on its own port and folder, and gone afterwards", async (context) => {
  const found = findRedis({ PATH: process.env["PATH"] });
  if (found.from !== "program") return context.skip("no redis-server on the PATH");
  const server = await startRedis(found);
  expect(server.port).not.toBe(6379);
  expect(existsSync(server.folder)).toBe(true);
  await server.kill();
  expect(existsSync(server.folder)).toBe(false);
  expect(() => process.kill(server.pid, 0)).toThrow("ESRCH");
});
