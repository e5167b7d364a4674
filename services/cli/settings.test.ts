import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CONTROL_FILE_NAME, controlFileText } from "#services/control/control-file.ts";
import { commandLine } from "#test/repository/command-line.ts";
import {
  ADMIN_TOKEN,
  RUNNING_SETTINGS,
  controlWorld,
  type ControlWorld,
} from "#test/worlds/control-world.ts";

const containing = (text: string): unknown => expect.stringContaining(text);

const scratch = mkdtempSync(join(tmpdir(), "relai-settings-"));
const { relai, json } = commandLine(scratch);
let world: ControlWorld;
let app: FastifyInstance;
let url: string;

beforeAll(async () => {
  world = await controlWorld();
  app = world.server();
  url = await app.listen({ port: 0, host: "127.0.0.1" });
  writeFileSync(join(scratch, CONTROL_FILE_NAME), controlFileText({ url, token: ADMIN_TOKEN }), {
    mode: 0o600,
  });
});
afterAll(async () => {
  await app.close();
  await world.close();
  rmSync(scratch, { recursive: true });
});

describe("config", () => {
  const own = { RELAI_ADMIN_TOKEN: ADMIN_TOKEN, RELAI_DRAIN_MS: "5", RELAI_LOG_LEVEL: "warn" };
  const nowhere = { ...own, RELAI_CONTROL_URL: "http://127.0.0.1:9" };
  const local = "Settings of this command's own environment";

  test("shows the settings of the process that runs, wherever they are from here, and no secret", async () => {
    const ended = await relai(["config"], own);
    expect(ended).toMatchObject({ code: 0, err: "" });
    expect(ended.out).toMatch(/^Settings of the relai that runs at (.*):\nSETTING +VALUE +FROM\n/);
    expect(ended.out).toContain(`runs at ${url}:\n`);
    expect(ended.out).toMatch(/^RELAI_DRAIN_MS +1234 +file$/m);
    expect(ended.out).toMatch(/^RELAI_LOG_LEVEL +info +default$/m);
    expect(ended.out).toMatch(/^OPENAI_API_KEY +\(hidden\) +environment$/m);
    expect(ended.out).not.toContain(ADMIN_TOKEN);
    expect(await json("config")).toEqual({
      object: "config",
      data: RUNNING_SETTINGS,
      shown: "running",
      url,
    });
  });
  test("shows the command's own with --local, and no secret", async () => {
    const ended = await relai(["config", "--local"], own);
    expect(ended).toMatchObject({ code: 0, err: "" });
    expect(ended.out).toMatch(
      /^Settings of this command's own environment:\nSETTING +VALUE +FROM\n/,
    );
    expect(ended.out).toMatch(/^RELAI_DRAIN_MS +5 +environment$/m);
    expect(ended.out).toMatch(/^RELAI_ADMIN_TOKEN +\(hidden\) +environment$/m);
    expect(ended.out).not.toContain(ADMIN_TOKEN);
  });
  test("shows the command's own, and says why, where nothing of relai answers", async () => {
    const ended = await relai(["config"], nowhere);
    expect(ended).toMatchObject({ code: 0, err: "" });
    expect(ended.out).toContain(`${local} (relai is not running: nothing answers at http://127.0`);
    expect(ended.out).toMatch(/^RELAI_DRAIN_MS +5 +environment$/m);
    const shown = await relai(["config", "--json"], nowhere);
    expect(JSON.parse(shown.out)).toMatchObject({ object: "config", shown: "local", url: null });
  });
  test("shows nothing where a relai answers and does not let it in", async () => {
    const env = { RELAI_CONTROL_URL: url, RELAI_ADMIN_TOKEN: "another-token-of-16" };
    expect(await relai(["config"], env)).toMatchObject({
      code: 1,
      out: "",
      err: containing("Invalid admin token"),
    });
  });
  test("reads a file", async () => {
    const file = join(scratch, "settings.json");
    writeFileSync(file, JSON.stringify({ RELAI_DRAIN_MS: 7 }));
    const { data } = await json<{ data: unknown[] }>("config", "--local", "--config", file);
    expect(data).toContainEqual({ name: "RELAI_DRAIN_MS", value: "7", source: "file" });
  });
  test("says what is wrong with a setting", async () => {
    for (const command of [["config"], ["org", "list"]])
      expect(await relai(command, { RELAI_DRAIN_MS: "soon" })).toEqual({
        code: 2,
        out: "",
        err: 'relai: RELAI_DRAIN_MS is "soon" but must be a whole number from 0 to 86400000 (milliseconds).\n',
      });
  });
});
