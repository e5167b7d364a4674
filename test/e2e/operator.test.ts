import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { startRedis, type StartedRedis } from "#infra/backing/redis.ts";
import {
  ADMIN_TOKEN,
  killAll,
  startProcess,
  startSimulator,
  startStandInProcess,
  type Process,
} from "#test/faults/processes.ts";
import { NOT_FOLDED, NOT_SEALED } from "#services/start/stopping.ts";
import { commandLine } from "#test/repository/command-line.ts";
import { inCode, tableWith, textOf } from "#test/repository/documents.ts";
import { NO_PROGRAM, REDIS_PROGRAM } from "#test/servers/redis-world.ts";
import { leavesNothingRunning, manage, newFolder, openai } from "./relai.ts";

/** What an operator sees of real processes on servers that go away and come back. */

leavesNothingRunning();
const { relai } = commandLine(newFolder());

const PASSWORD = "canary-of-an-operator";
const withPassword = (url: string) => url.replace("://", `://default:${PASSWORD}@`);

const TOLD = z.object({
  url: z.url().nullable().default(null),
  internal: z.url().nullable().default(null),
  regions: z
    .object({ us: z.object({ gateway: z.url(), control: z.url(), internal: z.url() }) })
    .optional(),
});
const READY = z.strictObject({
  ready: z.boolean(),
  stopping: z.boolean(),
  dependencies: z.record(
    z.string(),
    z.strictObject({ state: z.enum(["up", "partly", "down"]), since: z.iso.datetime() }),
  ),
});
const VALUE = z.string().nullable();
const STARTED = z.object({ settings: z.record(z.string(), VALUE) });
const SHOWN = z.object({
  object: z.string(),
  data: z.array(z.object({ name: z.string(), value: VALUE })),
  shown: z.string(),
  url: z.url(),
});

/** Who needs which dependency, as the page says it. */
const NEEDED = tableWith(textOf("docs/operations.md"), [
  "dependency",
  "of",
  "is `down` when",
  "is `partly` when",
]).map(([name = "", of = ""]) => ({ name: inCode(name) ?? name, of: of.split(", ") }));
const AS: Readonly<Record<string, readonly string[]>> = {
  gateway: ["all", "gateways"],
  ledger: ["all", "ledgers"],
  control: ["all", "control APIs"],
  start: ["all", "gateways", "ledgers"],
};

/** What `/readyz` of a kind of process names, in the order of letters. */
function neededBy(kind: string): string[] {
  const needed = NEEDED.filter(({ of }) => AS[kind]?.some((as) => of.includes(as)));
  return needed.map(({ name }) => name).toSorted();
}

describe("a region of processes on servers", () => {
  if (REDIS_PROGRAM === undefined) {
    test("tells what is away", (context) => context.skip(NO_PROGRAM));
    return;
  }
  const program = REDIS_PROGRAM;
  let redis: StartedRedis;
  let events: Process;
  let customer = { gateway: "", key: "" };
  let settings: Record<string, string> = {};
  /** Of each process every listener, the internal one last. */
  const parts: { kind: string; process: Process; urls: string[] }[] = [];

  async function start(kind: string): Promise<void> {
    const process = startProcess([kind, "--json"], { ...settings, RELAI_DATA_DIR: newFolder() });
    const { url, internal, regions } = TOLD.parse(JSON.parse(await process.ready));
    const told = regions?.us ?? { gateway: url, internal };
    parts.push({ kind, process, urls: Object.values(told).filter((one) => one !== null) });
  }

  function part(kind: string) {
    const found = parts.find((one) => one.kind === kind);
    if (!found) throw new Error(`no ${kind} was started`);
    return found;
  }

  const metricsOfAll = () =>
    Promise.all(
      parts.map(async ({ urls }) => (await fetch(`${urls.at(-1) ?? ""}/metrics`)).text()),
    );

  beforeAll(async () => {
    redis = await startRedis({ program, args: ["--requirepass", PASSWORD] });
    events = startStandInProcess();
    const upstream = await startSimulator(join(newFolder(), "book.jsonl"));
    settings = {
      RELAI_EVENTSTORE_URL: withPassword(await events.ready),
      RELAI_EVENTSTORE_INSECURE: "1",
      RELAI_REDIS_URL: withPassword(redis.url),
      RELAI_ADMIN_TOKEN: ADMIN_TOKEN,
      RELAI_GATEWAY_PORT: "0",
      RELAI_CONTROL_PORT: "0",
      RELAI_INTERNAL_PORT: "0",
      RELAI_DEMO: "0",
      RELAI_DRAIN_MS: "1000",
      OPENAI_API_KEY: "sk-operator-upstream-key",
      OPENAI_BASE_URL: `${upstream.url}/openai/v1`,
    };
    // The ledger of the first serves at once, the next one stands by.
    for (const kind of ["start", "ledger", "gateway", "control"]) await start(kind);
    // Six processes, one after the other; each has a limit of its own.
  }, 360_000);
  afterAll(async () => {
    killAll();
    await redis.kill();
  });

  async function readinessOf(url: string) {
    const answer = await fetch(`${url}/readyz`);
    const { ready, dependencies } = READY.parse(await answer.json());
    const down = Object.entries(dependencies).filter(([, { state }]) => state === "down");
    const { status } = answer;
    return { status, ready, names: Object.keys(dependencies), down: down.map(([name]) => name) };
  }

  const listeners = () =>
    parts.flatMap(({ kind, urls }) => urls.map((url) => ({ kind, url, who: `${kind} at ${url}` })));

  async function expectAllReady(): Promise<void> {
    for (const { url, who } of listeners())
      await expect
        .poll(() => readinessOf(url), { message: who, timeout: 60_000 })
        .toMatchObject({ status: 200, ready: true, down: [] });
  }

  test("is told by every listener of every process, each with what that process needs", async () => {
    await expectAllReady();
    for (const { kind, url, who } of listeners())
      expect([who, (await readinessOf(url)).names.toSorted()]).toEqual([who, neededBy(kind)]);
  });

  test("is told once by each process what it runs with, in its log and to whoever asks, without a secret", async () => {
    for (const { kind, process, urls } of parts) {
      const lines = process.stderr().split("\n");
      const [told = "", ...more] = lines.filter((line) => line.includes('"settings":'));
      expect([kind, more]).toEqual([kind, []]);
      const { settings: logged } = STARTED.parse(JSON.parse(told));
      expect(JSON.parse(told)).toMatchObject({ level: "info", process: kind });
      expect(logged).toMatchObject({
        RELAI_EVENTSTORE_URL: (await events.ready).replace("?tls=false", ""),
        RELAI_REDIS_URL: redis.url,
        RELAI_DRAIN_MS: "1000",
        RELAI_DEMO: "0",
        OPENAI_API_KEY: "[hidden]",
      });
      const shown = await relai(["config", "--json", "--at", urls.at(-1) ?? ""]);
      expect(shown).toMatchObject({ code: 0, err: "" });
      const { data, ...whose } = SHOWN.parse(JSON.parse(shown.out));
      expect(whose).toEqual({ object: "config", shown: "running", url: urls.at(-1) });
      const hidden = (value: string | null) => value?.replace("(hidden)", "[hidden]") ?? null;
      expect(Object.fromEntries(data.map(({ name, value }) => [name, hidden(value)]))).toEqual({
        ...logged,
        OPENAI_API_KEY: "[hidden]",
      });
      for (const text of [process.stderr(), shown.out])
        for (const secret of [PASSWORD, ADMIN_TOKEN, settings["OPENAI_API_KEY"]])
          expect(text).not.toContain(secret);
    }
  });

  test.for(Object.keys(AS))(
    "relai %s does not start with a name that is no setting",
    async (kind) => {
      const process = startProcess([kind], { ...settings, RELAI_REDIS_ULR: redis.url });
      expect(await process.ended).toBe(2);
      expect(process.stderr()).toBe(
        "relai: RELAI_REDIS_ULR is not a setting of relai; the nearest is RELAI_REDIS_URL.\n",
      );
    },
  );

  test("is asked at an address that exists, or nothing is shown", async () => {
    for (const [at, says] of [
      ["http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9 (--at)"],
      ["gateway-1:8070", "--at takes an address such as http://127.0.0.1:8070"],
    ] as const) {
      const shown = await relai(["config", "--at", at]);
      expect(shown).toMatchObject({ code: 2, out: "" });
      expect(shown.err).toContain(says);
    }
  });

  test("counts what its parts do with the servers, and names no organization and no key", async () => {
    const managed = { control: part("control").urls[0] ?? "", adminToken: ADMIN_TOKEN };
    const { id } = await manage(managed, "POST", "/v1/orgs", { name: "Acme" });
    const org = `/v1/orgs/${String(id)}`;
    await manage(managed, "POST", `${org}/credits`, { amount_dollars: "1.00" });
    const issued = await manage(managed, "POST", `${org}/keys`, {});
    customer = { gateway: part("gateway").urls[0] ?? "", key: String(issued["key"]) };
    await openai(customer).chat.completions.create({
      model: "gpt-4o",
      messages: [{ role: "user", content: "[sim input=10 output=5]" }],
    });
    const [start = "", ledger = "", gateway = "", control = ""] = await metricsOfAll();
    // An organization that was not in place yet is asked for again.
    expect(gateway).toMatch(/^relai_store_call_seconds_count\{store="redis",call="admit"\} [1-9]/m);
    for (const line of [
      'relai_store_call_seconds_count{store="redis",call="close"} 1',
      'relai_admission_answers_total{verb="admit",answer="admitted"} 1',
      'relai_events_appended_total{type="RequestAdmitted.v1"} 1',
      'relai_events_appended_total{type="UsageRecorded.v1"} 1',
      "relai_ledger_serving 0",
    ])
      expect(gateway.split("\n")).toContain(line);
    expect(gateway).toMatch(/^relai_owner_epoch [1-9]/m);
    expect(start.split("\n")).toContain("relai_ledger_serving 1");
    expect(start).toMatch(/^relai_admission_answers_total\{verb="adopt",answer="adopted"\} [1-9]/m);
    expect(start).toMatch(/^relai_lag_seconds\{reader="ledger"\} \d/m);
    expect(ledger.split("\n")).toContain("relai_ledger_serving 0");
    expect(ledger).toMatch(/^relai_lag_seconds\{reader="projector"\} \d/m);
    expect(control.split("\n")).toContain('relai_events_appended_total{type="KeyIssued.v1"} 1');
    for (const text of [start, ledger, gateway, control])
      for (const word of [String(id), String(issued["id"]), customer.key.slice(-20)])
        expect(text).not.toContain(word);
  });

  test.for(["redis", "event_store"] as const)(
    "is not ready while its %s is away, and ready again when that is back, without a restart",
    async (server) => {
      const signal = (name: "SIGSTOP" | "SIGCONT") =>
        server === "redis" ? process.kill(redis.pid, name) : events.kill(name);
      signal("SIGSTOP");
      for (const { url, who } of listeners()) {
        await expect
          .poll(() => readinessOf(url), { message: who, timeout: 60_000 })
          .toMatchObject({
            status: 503,
            ready: false,
            down: expect.arrayContaining([server]) as unknown,
          });
        // Whoever is away, no process is to be ended for it.
        expect((await fetch(`${url}/healthz`)).status).toBe(200);
      }
      for (const text of await metricsOfAll())
        expect(text).toContain(`relai_dependency_state{dependency="${server}"} 0`);
      signal("SIGCONT");
      await expectAllReady();
    },
  );

  /** Has processes told to stop, and waits until they have ended as it should be while no server answers. */
  async function expectStopped(ending: typeof parts): Promise<void> {
    for (const { process } of ending) process.kill("SIGTERM");
    const undone = (sentence: string) => `relai: left undone: ${sentence}`;
    for (const { kind, process } of ending) {
      expect([kind, await process.ended]).toEqual([kind, 0]);
      const said = process
        .stderr()
        .split("\n")
        .filter((line) => line.startsWith("relai:"));
      // Whoever stands by has no journal, and a control API never has one.
      const hasJournal = kind === "gateway" || kind === "start";
      expect([kind, said.includes(undone(NOT_SEALED))]).toEqual([kind, hasJournal]);
      const rest = said.filter((line) => ![NOT_SEALED, NOT_FOLDED].map(undone).includes(line));
      expect(rest).toEqual([]);
    }
  }

  test("ends in time when its servers are stalled, loses nothing, and says what it left undone", async () => {
    for (const kind of ["ledger", "gateway", "control"]) await start(kind);
    await expectAllReady();
    process.kill(redis.pid, "SIGSTOP");
    events.kill("SIGSTOP");
    await expectStopped(parts.splice(-3));
    process.kill(redis.pid, "SIGCONT");
    events.kill("SIGCONT");
    await expectAllReady();
  });

  test("and so when they are gone; but an answer that was given and is in no journal is a loss", async () => {
    const begun = await openai(customer).chat.completions.create({
      model: "gpt-4o",
      messages: [{ role: "user", content: "[sim output=50 chunks=50 delay=200]" }],
      stream: true,
    });
    const chunks = begun[Symbol.asyncIterator]();
    expect((await chunks.next()).done).toBe(false);
    await redis.kill();
    events.kill("SIGKILL");
    const { process: losing } = part("gateway");
    losing.kill("SIGTERM");
    await expectStopped(parts.splice(0).filter(({ kind }) => kind !== "gateway"));
    expect(await losing.ended).toBe(1);
    expect(losing.stderr()).toContain(
      "relai: the stop was not clean: answered requests that no journal has taken: 1; nobody is",
    );
  });
});
