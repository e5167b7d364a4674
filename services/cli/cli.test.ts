import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CONTROL_FILE_NAME, controlFileText } from "#services/control/control-file.ts";
import { BIN, commandLine } from "#test/repository/command-line.ts";
import { ADMIN_TOKEN, controlWorld, type ControlWorld } from "#test/worlds/control-world.ts";

const aText: unknown = expect.any(String);
const aNumber: unknown = expect.any(Number);
const containing = (text: string): unknown => expect.stringContaining(text);

const scratch = mkdtempSync(join(tmpdir(), "relai-cli-"));
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

const { relai, json } = commandLine(scratch);

const list = (data: unknown[]) => ({ object: "list", data, has_more: false });

test("one organization from its creation to its end", { timeout: 60_000 }, async () => {
  expect(await relai(["org", "list"])).toEqual({
    code: 0,
    out: "no organizations yet: relai org create <name>\n",
    err: "",
  });
  expect(await relai(["key", "list"])).toMatchObject({
    code: 0,
    out: "no keys yet: relai key create\n",
  });
  expect(await json("key", "list")).toMatchObject(list([]));
  expect(await relai(["balance"])).toEqual({
    code: 2,
    out: "",
    err: "relai: no organizations yet: relai org create <name>\n",
  });

  const acme = await json<{ id: string }>("org", "create", "Acme Corp");
  expect(acme).toMatchObject({ object: "organization", name: "Acme Corp", home_region: "us" });
  expect(await json("org", "list")).toEqual({
    ...list([acme]),
    first_id: acme.id,
    last_id: acme.id,
  });
  expect((await relai(["org", "list"])).out).toMatch(
    /^ID {27,}NAME {7}HOME REGION {2}CREATED\norg_\w{26} {2}Acme Corp {2}us {11}\d{4}-.*Z\n$/,
  );

  const added = ["credit", "add", "25.00", "--idempotency-key", "invoice-1"];
  const credit = await json(...added);
  expect(credit).toMatchObject({ amount_micro: 25_000_000, amount_dollars: "25.00" });
  expect(await json(...added)).toEqual(credit);
  expect(await relai(["credit", "add", "26", "--idempotency-key", "invoice-1"])).toEqual({
    code: 1,
    out: "",
    err: "relai: This Idempotency-Key was used before with another body\n",
  });
  expect((await relai(["credit", "add", "0.010001", "--org", acme.id])).out).toMatch(
    /^Added 0.010001 USD to org_\w{26} \(lot_\w{26}\)\n$/,
  );
  const balance = await json("balance");
  expect(balance).toMatchObject({ organization: acme.id, credits_micro: 25_010_001 });
  expect((await relai(["balance", acme.id])).out).toMatch(
    /^organization {2}org_\w{26}\n {17}USD\ncredits {4}25.010001\nheld {12}0.00\navailable {2}25.010001\nas of {2}\d.*Z\n$/,
  );

  const issue = ["key", "create", "--name", "app", "--rpm", "60", "--budget", "5.50"];
  const { key, ...issued } = await json<{ id: string; key: string; display_prefix: string }>(
    ...issue,
    "--expires",
    "2999-01-31",
    "--idempotency-key",
    "k1",
  );
  expect(key).toMatch(/^relai_sk_us_live_[0-9A-Za-z]{38}$/);
  expect(issued).toMatchObject({ name: "app", rpm: 60, budget_micro: 5_500_000 });
  const again = await relai([...issue, "--expires", "2999-01-31", "--idempotency-key", "k1"]);
  expect(again.out).toMatch(/^key +not shown again/);
  const shown = await relai(["key", "issue", "--org", acme.id]);
  expect(shown.out).toMatch(
    /^key {11}relai_sk_us_live_[0-9A-Za-z]{38}\nid .*\nname .*\norganization .*\nrpm +no limit\nbudget +no limit\nexpires +never\nThe key is shown this once: keep it now.\n$/,
  );
  expect(await json("key", "list")).toMatchObject({ data: [{ name: null }, issued] });
  expect(await json("key", "list", "--org", acme.id)).toMatchObject({ data: [{}, issued] });
  const lines = (await relai(["key", "list"])).out.split("\n");
  expect(lines[0]).toMatch(/^ID +KEY +NAME +RPM +BUDGET \(USD\) +STATE +EXPIRES +CREATED$/);
  expect(lines[2]).toMatch(/^key_\w{26} +relai_sk_us_live_.{9} +app +60 +5.50 +live +2999-01-31T/);

  const second = await json<{ id: string }>("org", "create", "Other");
  expect(await relai(["credit", "add", "1"])).toMatchObject({ code: 2, out: "" });
  expect(await json("key", "list", "--org", second.id)).toMatchObject({ data: [] });
});

describe("a key is revoked", () => {
  let orgId: string;
  beforeAll(async () => {
    const created = await world.control.createOrganization({ name: "Revoking" });
    orgId = created.ok ? created.value.id : "";
  });
  async function issue() {
    const issued = await world.control.issueKey(orgId, {});
    if (!issued.ok) throw new Error(issued.error.code);
    return issued.value;
  }
  test.for([
    ["its id", (issued) => issued.id],
    ["its text", (issued) => issued.key ?? ""],
    ["how lists show it", (issued) => issued.display_prefix],
    ["the beginning of that", (issued) => issued.display_prefix.split("…")[0] ?? ""],
  ] as const satisfies readonly (readonly [
    string,
    (issued: Awaited<ReturnType<typeof issue>>) => string,
  ])[])("by %s", async ([, of]) => {
    const issued = await issue();
    expect(await json("key", "revoke", of(issued))).toMatchObject({
      id: issued.id,
      revoked_at: aText,
    });
    const again = await relai(["key", "revoke", issued.id]);
    expect(again).toEqual({
      code: 0,
      out: `Revoked key ${issued.display_prefix} (${issued.id})\n`,
      err: "",
    });
  });

  test("only when it is clear which", async () => {
    const first = await issue();
    await issue();
    expect(await relai(["key", "revoke", "relai_sk_us_live_"])).toMatchObject({
      code: 2,
      err: containing("several keys match"),
    });
    for (const which of [
      `key_${"0".repeat(26)}`,
      "nonsense",
      "…",
      `${(first.key ?? "").slice(0, -1)}!`,
    ]) {
      const ended = await relai(["key", "revoke", which]);
      expect(ended).toMatchObject({ out: "" });
      expect(ended.code).toBeGreaterThan(0);
      expect(ended.err).not.toContain(first.key?.slice(17, 50));
    }
    expect(await world.control.listKeysOf(orgId, { limit: 2, order: "desc" })).toMatchObject({
      value: { data: [{ revoked_at: null }, { revoked_at: null }] },
    });
  });
});

describe("replay", () => {
  test("prints a line for each step, and what was made anew", async () => {
    const all = await relai(["replay"]);
    expect(all).toMatchObject({ code: 0, err: "" });
    expect(all.out).toMatch(/^accounts: \d+ events\n/);
    expect(all.out).toMatch(/READ MODEL +EVENTS +POSITION\naccounts +\d+ +\d+\nkey-directory /);
    const one = await relai(["replay", "--projection", "usage", "--from", "0", "--json"]);
    const lines = one.out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as object);
    expect(lines.at(-1)).toMatchObject({ done: true, data: [{ projection: "usage" }] });
    expect(lines[0]).toMatchObject({ projection: "usage", events_done: aNumber });
  });
  test("is refused for what there is not", async () => {
    expect(await relai(["replay", "--projection", "x"])).toMatchObject({
      code: 1,
      err: containing("'projection' must be one of accounts"),
    });
    expect(await relai(["replay", "--from", "7"])).toMatchObject({ code: 1 });
  });
});

describe("wrong usage ends with 2 before anything is asked", () => {
  test.for([
    ["credit add 1e3", "<dollars> must be an amount in dollars such as 25.00"],
    ["credit add 0.0000001", "<dollars> must be an amount in dollars such as 25.00"],
    ["credit add -5", "<dollars> must be an amount in dollars such as 25.00"],
    ["credit add -- -5", "<dollars> must be an amount in dollars such as 25.00"],
    ["credit add 0", "<dollars> must be at least 0.01; add more at once"],
    ["credit add 0.009999", "<dollars> must be at least 0.01"],
    ["credit add", "missing required argument 'dollars'"],
    ["credit add 1 2", "too many arguments"],
    ["key create --budget 1e3", "--budget must be an amount"],
    ["key create --rpm 0", "--rpm must be a whole number"],
    ["key create --rpm 1.5", "--rpm must be a whole number"],
    ["key create --rpm 100000000", "--rpm must be a whole number from 1 to 1000000\n"],
    ["key create --rpm 1000001", "--rpm must be a whole number from 1 to 1000000\n"],
    ["key create --scope global", "scope global are not built yet"],
    ["key create --scope galaxy", "--scope must be regional"],
    ["key create --nmae x", "unknown option '--nmae'"],
    ["kye list", "unknown command 'kye'"],
    ["simulator --port 70000", "--port must be a number from 0 to 65535"],
    ["key", "Usage: relai key"],
    ["", "Usage: relai"],
  ] as const)("relai %s", async ([line, message]) => {
    const ended = await relai(line.split(" ").filter(Boolean), {
      RELAI_CONTROL_URL: "http://127.0.0.1:9",
    });
    expect(ended).toMatchObject({ code: 2, out: "" });
    expect(ended.err).toContain(message);
  });
});

describe("--help", () => {
  test.for([
    "",
    "start",
    "simulator",
    "config",
    "org",
    "org create",
    "org list",
    "credit",
    "credit add",
    "key",
    "key create",
    "key issue",
    "key list",
    "key revoke",
    "balance",
    "replay",
  ])("relai %s --help", async (line) => {
    const ended = await relai([...line.split(" ").filter(Boolean), "--help"]);
    expect(ended).toMatchObject({ code: 0, err: "" });
    expect(ended.out).toMatch(/^Usage: relai/);
    expect(ended.out).toMatch(/--json/);
    expect(ended.out).toMatch(/Examples:\n {2}\$ relai /);
  });
});

describe("the running process", () => {
  const nowhere = "http://127.0.0.1:9";
  test("is found by the settings first", async () => {
    const env = { RELAI_CONTROL_URL: url, RELAI_ADMIN_TOKEN: ADMIN_TOKEN, RELAI_DATA_DIR: "none" };
    expect(await relai(["org", "list"], env)).toMatchObject({ code: 0 });
    expect(await relai(["org", "list"], { RELAI_CONTROL_URL: nowhere })).toEqual({
      code: 2,
      out: "",
      err: `relai: relai is not running: nothing answers at ${nowhere} (RELAI_CONTROL_URL); start it with: relai start\n`,
    });
  });
  test("may be named by the address that the data folder's file has: then the file's token is meant", async () => {
    for (const same of [url, `${url}/`, url.replace("http:", "HTTP:")])
      expect(await relai(["org", "list"], { RELAI_CONTROL_URL: same })).toMatchObject({ code: 0 });
  });
  test("refuses a wrong token, and the token is not repeated", async () => {
    const wrong = "another-token-of-a-test";
    const env = { RELAI_CONTROL_URL: url, RELAI_ADMIN_TOKEN: wrong };
    const ended = await relai(["org", "list"], env);
    expect(ended).toMatchObject({ code: 1, out: "" });
    expect(ended.err).toContain("the token (RELAI_ADMIN_TOKEN) is not the one");
    expect(ended.err).not.toContain(wrong);
    const elsewhere = { RELAI_CONTROL_URL: url, RELAI_DATA_DIR: "none" };
    const none = await relai(["org", "list"], elsewhere);
    expect(none).toMatchObject({ code: 1, err: containing("set RELAI_ADMIN_TOKEN") });
  });
  test("may be none: one sentence says how to start it", async () => {
    const env = { RELAI_DATA_DIR: join(scratch, "none"), RELAI_CONTROL_PORT: "9" };
    for (const command of [["org", "list"], ["balance"], ["replay"], ["credit", "add", "1"]]) {
      const ended = await relai(command, env);
      expect(ended).toMatchObject({ code: 2, out: "" });
      expect(ended.err).toMatch(/^relai: relai is not running: .*; start it with: relai start\n$/);
    }
  });
  test("may be something else, and the token of the data folder's file is not for it", async () => {
    const other = await import("fastify").then(({ fastify }) => fastify());
    const heard: unknown[] = [];
    other.addHook("onRequest", async ({ headers }) => void heard.push(headers.authorization));
    const at = await other.listen({ port: 0, host: "127.0.0.1" });
    const ended = await relai(["org", "list"], { RELAI_CONTROL_URL: at });
    expect(ended).toMatchObject({
      code: 2,
      err: containing("is not relai's control API"),
    });
    await other.close();
    expect(heard).toEqual([undefined]);
  });
  test("is not looked for in a file that others can read, or that is damaged", async () => {
    const folder = mkdtempSync(join(scratch, "bad-"));
    const path = join(folder, CONTROL_FILE_NAME);
    writeFileSync(path, controlFileText({ url, token: ADMIN_TOKEN }), { mode: 0o644 });
    const open = await relai(["org", "list"], { RELAI_DATA_DIR: folder });
    expect(open).toMatchObject({ code: 2, err: containing("chmod 600") });
    rmSync(path);
    writeFileSync(path, "{", { mode: 0o600 });
    const damaged = await relai(["org", "list"], { RELAI_DATA_DIR: folder });
    expect(damaged).toMatchObject({ code: 2, err: containing("is damaged") });
  });
});

test("relai simulator says where it is, keeps its book, and stops when it is told to", async () => {
  const book = join(scratch, "books", "book.jsonl");
  const child = spawn(
    process.execPath,
    [BIN, "simulator", "--port", "0", "--book", book, "--json"],
    {
      cwd: scratch,
      env: { PATH: process.env["PATH"], RELAI_DATA_DIR: scratch },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  const line = await new Promise<string>((resolve) => {
    child.stdout.setEncoding("utf8").once("data", resolve);
  });
  const ready = JSON.parse(line) as { ready: boolean; url: string };
  expect(ready.ready).toBe(true);
  await fetch(`${ready.url}/openai/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer abcd" },
    body: JSON.stringify({ model: "sim-flat", messages: [{ role: "user", content: "hi" }] }),
  });
  const ended = new Promise((resolve) => child.on("close", resolve));
  child.kill("SIGTERM");
  expect(await ended).toBe(0);
  expect(readFileSync(book, "utf8")).toContain("sim-flat");
});
