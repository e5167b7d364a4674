import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { bookIn, eventsIn, eventsOf, only } from "#test/e2e/money/books.ts";
import {
  balanceOf,
  cli,
  command,
  jsonOf,
  leavesNothingRunning,
  newFolder,
  openai,
  post,
  sse,
  startForAPerson,
  startRelai,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

const chargedMicro = 15;
/** Costs 15 micro: sim-flat takes one micro for a token of any class. */
const asked = "[sim input=10 output=5]";

test("a first start, and a second one that finds everything as it was", async () => {
  const dataDir = newFolder();
  const first = await startRelai({ dataDir });
  const demo = first.ready.demo;
  expect(demo?.key).toBe(first.key);
  expect(await balanceOf(first)).toMatchObject({
    credits_micro: 10_000_000,
    credits_dollars: "10.00",
    held_micro: 0,
    available_micro: 10_000_000,
  });
  const answer = await post(first, asked);
  expect(answer.status).toBe(200);
  expect(answer.headers.get("x-relai-cost-micro")).toBe(String(chargedMicro));
  await answer.text();
  expect(await first.stop()).toBe(0);
  expect(first.stderr()).not.toContain("not clean");

  const second = await startRelai({ dataDir });
  expect(second.ready.demo).toEqual({ organization: demo?.organization, key: null });
  expect([second.key, second.adminToken]).toEqual([first.key, first.adminToken]);
  expect(await balanceOf(second)).toMatchObject({
    credits_micro: 10_000_000 - chargedMicro,
    held_micro: 0,
  });
  expect((await post(second, asked)).status).toBe(200);
  // The text that can be sourced names the address of this start.
  expect(readFileSync(join(dataDir, "demo.env"), "utf8")).toContain(
    `export OPENAI_BASE_URL=${second.gateway}/v1\n`,
  );
  for (const name of ["demo.env", "admin-token", "control.json"])
    expect([name, statSync(join(dataDir, name)).mode & 0o777]).toEqual([name, 0o600]);
  expect(await second.stop()).toBe(0);
  const events = await eventsIn(second);
  for (const type of ["OrganizationCreated.v1", "CreditToppedUp.v1", "KeyIssued.v1"] as const)
    only(events, type);
});

test("a stop lets a running stream finish, and takes no new request", async () => {
  const relai = await startRelai();
  const answer = await post(relai, "[sim chunks=12 delay=60 output=12 input=3]", { stream: true });
  const events = sse(answer);
  expect((await events.next()).done).toBe(false);
  relai.signal("SIGTERM");
  await vi.waitFor(() => expect(balanceOf(relai)).rejects.toThrow(), { timeout: 30_000 });
  let last = "";
  for await (const event of events) last = event;
  expect(last).toBe("[DONE]");
  expect(await relai.exited).toBe(0);
  const recorded = await eventsIn(relai);
  expect(only(recorded, "UsageRecorded.v1")).toMatchObject({ chargedMicro: 15, finish: "stop" });
  // Its own seal is the last word of each journal: nothing is left for the next start to expire.
  const sealed = recorded.filter(({ type }) => type === "JournalSealed.v1");
  expect(sealed.length).toBeGreaterThan(0);
  for (const { data } of sealed) expect(data).toEqual({ by: "writer" });
});

test("a stop cuts what does not end in time, and charges what was relayed", async () => {
  const relai = await startRelai({ settings: { RELAI_DRAIN_MS: "300" } });
  const answer = await post(relai, "[sim stall-after=3]", { stream: true });
  relai.signal("SIGTERM");
  const events: string[] = [];
  for await (const event of sse(answer)) events.push(event);
  expect(JSON.parse(events.at(-1) ?? "")).toMatchObject({ error: { code: "overloaded" } });
  expect(await relai.exited).toBe(0);
  expect(only(await eventsIn(relai), "UsageRecorded.v1")).toMatchObject({
    billedBy: "estimate",
    finish: "stopping",
  });
});

test("a second signal at once is the first one said twice; a second later it is an order", async () => {
  const dataDir = newFolder();
  const relai = await startRelai({ dataDir });
  const answer = await post(relai, "[sim stall-after=3]", { stream: true, max_tokens: 40 });
  const events = sse(answer);
  await events.next();
  for (const _ of [1, 2]) relai.signal("SIGINT");
  let hasEnded = false;
  void relai.exited.then(() => (hasEnded = true));
  await new Promise((resolve) => setTimeout(resolve, 1200));
  expect(hasEnded).toBe(false);
  relai.signal("SIGINT");
  expect(await relai.exited).toBe(130);
  await expect(async () => {
    for await (const event of events) expect(event).not.toBe("[DONE]");
  }).rejects.toThrow();
  // What it left open ends with the next start: free for the caller, and on our account what it may have cost.
  const next = await startRelai({ dataDir });
  const recorded = await eventsOf(next, answer.headers.get("x-request-id") ?? "");
  const admitted = only(recorded, "RequestAdmitted.v1");
  expect(only(recorded, "RequestExpired.v1")).toMatchObject({
    holdMicro: admitted.holdMicro,
    unbilledMicro: admitted.holdCostMicro,
  });
  expect(await balanceOf(next)).toMatchObject({ credits_micro: 10_000_000, held_micro: 0 });
  expect(await next.stop()).toBe(0);
});

test("a person's first start shows a line that works as it stands, and drains on Ctrl-C", async () => {
  const dataDir = newFolder();
  const relai = await startForAPerson({ dataDir });
  const line = relai.shown.slice(relai.shown.indexOf("curl "));
  const [, at, bearer, body] =
    /^curl (\S+) \\\n +-H "Authorization: Bearer (\S+)" -H "Content-Type: application\/json" \\\n +-d '(.+)'\n/.exec(
      line,
    ) ?? [];
  const answer = await fetch(at ?? "", {
    method: "POST",
    headers: { authorization: `Bearer ${bearer}`, "content-type": "application/json" },
    body: body ?? "",
  });
  expect(answer.status).toBe(200);
  expect(await jsonOf(answer)).toMatchObject({ object: "chat.completion" });
  for (const text of ["$10.00", join(dataDir, "demo.env"), "gateway (us)", "control API"])
    expect(relai.shown).toContain(text);
  expect(await relai.interrupt()).toBe(0);

  const second = await startForAPerson({ dataDir });
  expect(second.shown).not.toContain(bearer);
  expect(second.shown).toContain("$OPENAI_API_KEY");
  expect(await second.interrupt()).toBe(0);
});

test("settings that are wrong, and a folder that is taken, end a start with exit 2", async () => {
  const relai = await startRelai();
  const head = (await eventsIn(relai)).length;
  await expect(startRelai({ dataDir: relai.dataDir })).rejects.toThrow(/ended with 2: relai: /);
  expect((await eventsIn(relai)).length).toBe(head);
  await expect(startRelai({ settings: { RELAI_GATEWAY_PORT: "eighty" } })).rejects.toThrow(
    /ended with 2: relai: .*RELAI_GATEWAY_PORT/,
  );
  // Nothing that ended so has run long enough to harm the one that runs.
  expect((await post(relai, asked)).status).toBe(200);
  expect(await relai.stop()).toBe(0);
});

test("a running relai tells the settings that it runs with, and no secret", async () => {
  const secret = "sk-a-secret";
  const relai = await startRelai({ settings: { RELAI_DRAIN_MS: "4321", OPENAI_API_KEY: secret } });
  const shown = await command(relai, "config");
  expect(shown).toMatchObject({ object: "config", shown: "running", url: relai.control });
  for (const setting of [
    { name: "RELAI_DRAIN_MS", value: "4321", source: "environment" },
    { name: "RELAI_READ_ON_MS", value: "600000", source: "default" },
    { name: "OPENAI_API_KEY", value: "(hidden)", source: "environment" },
  ])
    expect(shown["data"]).toContainEqual(setting);
  for (const text of [secret, relai.adminToken, relai.key])
    expect(JSON.stringify(shown)).not.toContain(text);
  expect(await relai.stop()).toBe(0);
});

test("without the demo and without a provider's key there is a relai without models", async () => {
  const relai = await startRelai({ settings: { RELAI_DEMO: "0" } });
  expect(relai.ready).toMatchObject({ simulator: null, demo: null });
  expect((await command(relai, "org", "create", "Acme"))["id"]).toMatch(/^org_/);
  const { key } = await command(relai, "key", "create");
  const client = openai({ ...relai, key: String(key) });
  expect((await client.models.list()).data).toEqual([]);
  await expect(
    client.chat.completions.create({ model: "sim-flat", messages: [] }),
  ).rejects.toMatchObject({ status: 402 });
  expect(await relai.stop()).toBe(0);
  const afterwards = await cli(relai, "balance");
  expect(afterwards.code).toBe(2);
  expect(afterwards.stderr).toMatch(/^relai: .*relai start/);
});

test("what says that it lives, that it is ready, and what it counts", async () => {
  const relai = await startRelai();
  await post(relai, asked);
  expect(await jsonOf(await fetch(`${relai.gateway}/healthz`))).toEqual({ ok: true });
  const names = ["catalogue", "event_store", "journal", "key_directory", "ledger", "projector"];
  for (const base of [relai.gateway, relai.internal, relai.control]) {
    const ready = await fetch(`${base}/readyz`);
    const up = { state: "up", since: expect.stringMatching(/^\d{4}-.*Z$/) as unknown };
    expect([ready.status, await ready.json()]).toEqual([
      200,
      {
        ready: true,
        stopping: false,
        dependencies: Object.fromEntries(names.map((name) => [name, up])),
      },
    ]);
  }
  const metrics = await (await fetch(`${relai.internal}/metrics`)).text();
  expect(metrics).toMatch(/^relai_\w+\{.*model="sim-flat".*\} \d/m);
  expect((await fetch(`${relai.gateway}/metrics`)).status).toBe(401);
  expect(bookIn(relai)).toHaveLength(1);
  expect(await relai.stop()).toBe(0);
});
