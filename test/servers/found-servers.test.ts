import { expect, test } from "vitest";
import { findForTests } from "./found-servers.ts";

/** No engine, whatever this machine has. */
const DOCKER_HOST = "unix:///nowhere.sock";

test("each server has a variable of its own", async () => {
  const url = "esdb://127.0.0.1:1";
  const env = { RELAI_TEST_EVENTSTORE_URL: url, REQUIRE_SERVERS: "eventstore", DOCKER_HOST };
  expect(await findForTests("eventstore", env)).toEqual({ from: "url", url });
  expect(await findForTests("redis", env)).toMatchObject({ from: "nowhere" });
});

test("none is a reason to skip, and an error where it is required", async () => {
  const others = { DOCKER_HOST, REQUIRE_SERVERS: "kafka,eventstore" };
  expect(await findForTests("redis", others)).toMatchObject({ from: "nowhere" });
  const required = { DOCKER_HOST, REQUIRE_SERVERS: "kafka, redis" };
  await expect(findForTests("redis", required)).rejects.toThrow(
    "REQUIRE_SERVERS asks for redis: no URL, no Docker engine, and no redis-server or valkey-server on the PATH (RELAI_TEST_REDIS_URL names one)",
  );
});
