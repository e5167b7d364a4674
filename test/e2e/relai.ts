import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import OpenAI from "openai";
import { afterAll, expect } from "vitest";
import { z } from "zod";
import type { RecordedEvent } from "#domain/events/events.ts";
import { TOP_UP_MICRO_MIN } from "#domain/organization.ts";
import { readConfig } from "#infra/config.ts";
import type { BookCall } from "#services/simulator/book.ts";
import { openRelai, type Relai } from "#services/start/main.ts";

/**
 * relai as its users meet it: a process on free ports in a data folder of its own, spoken to over sockets, its books
 * read from the files that it leaves. Whatever a test file starts it must stop; what it forgets fails it.
 */

/** What npx and service managers start. */
export const BIN = new URL("../../bin/relai.mjs", import.meta.url).pathname;
const FREE_PORTS = {
  RELAI_GATEWAY_PORT: "0",
  RELAI_INTERNAL_PORT: "0",
  RELAI_CONTROL_PORT: "0",
  RELAI_SIMULATOR_PORT: "0",
};

type Settings = Readonly<Record<string, string>>;

const url = z.string().regex(/^http:\/\/127\.0\.0\.1:\d+$/);
/** The line of `start --json`, to the letter: a member more or less is a change of the interface. */
export const READY = z.strictObject({
  ready: z.literal(true),
  regions: z.strictObject({ us: z.strictObject({ gateway: url, control: url, internal: url }) }),
  simulator: url.nullable(),
  demo: z
    .strictObject({
      organization: z.string().regex(/^org_[0-9A-Z]{26}$/),
      key: z
        .string()
        .regex(/^relai_sk_us_live_\w{38}$/)
        .nullable(),
    })
    .nullable(),
});

/** What tests do with a relai, however it runs. */
export interface Running {
  readonly dataDir: string;
  readonly gateway: string;
  readonly control: string;
  readonly internal: string;
  /** Empty when it runs without the demo. */
  readonly simulator: string;
  readonly adminToken: string;
  /** The demo organization and its key; empty without the demo. */
  readonly organization: string;
  readonly key: string;
  /** What is asked of it in place of the simulated model `sim-flat`, which only a relai with the demo has. */
  readonly asks?: Readonly<Record<string, unknown>>;
  /** Where its events and its upstream's calls are read, if not in its data folder. */
  readonly books?: {
    events(): Promise<RecordedEvent[]>;
    calls(): BookCall[];
  };
  stop(): Promise<number | null>;
}

export interface RelaiProcess extends Running {
  readonly ready: z.infer<typeof READY>;
  readonly pid: number;
  /** Everything it wrote to stderr so far. */
  stderr(): string;
  signal(name: NodeJS.Signals): void;
  /** Settles with the exit code when the process has ended. */
  readonly exited: Promise<number | null>;
}

const running = new Set<() => Promise<unknown>>();
const folders = new Set<string>();

/** A data folder of its own, gone when the test file is through. */
export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "relai-e2e-"));
  folders.add(folder);
  return folder;
}

/** To be called at the top of a test file: a relai that was left running is stopped and fails the file. */
export function leavesNothingRunning(): void {
  afterAll(async () => {
    const left = [...running];
    await Promise.all(left.map((stop) => stop()));
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`${left.length} relai were left running`);
  });
}

/** The environment of a relai: this machine's, without settings that somebody else made. */
export function environment(settings: Settings): Record<string, string | undefined> {
  const own = Object.entries(process.env).filter(
    ([name]) => !/^(RELAI_|OPENAI_|OTEL_|NODE_|VITEST)/.test(name),
  );
  return { ...Object.fromEntries(own), ...settings };
}

/** A start as a process of its own, that `leavesNothingRunning` knows of until it has ended. */
function spawnStart(args: readonly string[], settings: Settings) {
  const child = spawn(process.execPath, [BIN, "start", ...args], {
    env: environment({ ...FREE_PORTS, ...settings }),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (piece: Buffer) => (stderr += piece.toString()));
  const stop = () => {
    child.kill("SIGTERM");
    return exited;
  };
  running.add(stop);
  const exited = new Promise<number | null>((resolve) =>
    child.on("exit", (code) => {
      running.delete(stop);
      resolve(code);
    }),
  );
  /** Settles when the process has ended before it was ready. */
  const failed = exited.then((code) => {
    throw new Error(`relai ended with ${code}: ${stderr}`);
  });
  failed.catch(() => {});
  return { child, stop, exited, failed, stderr: () => stderr };
}

/** Starts `relai start --json` and waits for its line. Rejects with its stderr when it ends instead. */
export async function startRelai(
  options: { dataDir?: string; settings?: Settings } = {},
): Promise<RelaiProcess> {
  const dataDir = options.dataDir ?? newFolder();
  const started = spawnStart(["--json"], { RELAI_DATA_DIR: dataDir, ...options.settings });
  const { child, failed, stop, exited, stderr } = started;
  const first = new Promise<string>((resolve) =>
    createInterface(child.stdout).once("line", resolve),
  );
  const ready = READY.parse(JSON.parse(await Promise.race([first, failed])));
  return {
    ready,
    dataDir,
    pid: child.pid ?? 0,
    ...ready.regions.us,
    simulator: ready.simulator ?? "",
    ...credentialsIn(dataDir, ready.demo?.organization),
    stderr,
    signal: (name) => void child.kill(name),
    exited,
    stop,
  };
}

/** Starts relai as a person does, and waits until it has shown how to try it. Rejects with its stderr when it ends instead. */
export async function startForAPerson(options: {
  dataDir: string;
  args?: readonly string[];
  settings?: Settings;
}): Promise<{
  readonly shown: string;
  interrupt(): Promise<number | null>;
  kill(): Promise<number | null>;
}> {
  const { dataDir, args = [], settings } = options;
  const { child, failed, exited } = spawnStart(args, { RELAI_DATA_DIR: dataDir, ...settings });
  let shown = "";
  const ready = new Promise<void>((resolve) =>
    child.stdout.on("data", (piece: Buffer) => {
      shown += piece.toString();
      if (/ -d '.+'\n$/.test(shown)) resolve();
    }),
  );
  await Promise.race([ready, failed]);
  return {
    shown,
    interrupt() {
      child.kill("SIGINT");
      return exited;
    },
    kill() {
      child.kill("SIGKILL");
      return exited;
    },
  };
}

/** Opens relai in this process, with as many gateways as asked for; `relai.gatewayUrls` has them all. */
export async function openHere(
  options: { gatewayCount?: number; dataDir?: string; settings?: Settings } = {},
): Promise<Running & { readonly relai: Relai }> {
  const dataDir = options.dataDir ?? newFolder();
  const env = { ...FREE_PORTS, RELAI_DATA_DIR: dataDir, RELAI_LOG_LEVEL: "error" };
  const config = readConfig({ env: { ...env, ...options.settings } });
  const relai = await openRelai(config, { gatewayCount: options.gatewayCount ?? 1 });
  const stop = async () => {
    running.delete(stop);
    await relai.stop();
    return 0;
  };
  running.add(stop);
  const { gateway, control, internal, simulator } = relai.addresses;
  return {
    relai,
    dataDir,
    gateway,
    control,
    internal,
    simulator: simulator ?? "",
    ...credentialsIn(dataDir, relai.demo?.organizationId),
    stop,
  };
}

function credentialsIn(dataDir: string, organization: string | undefined) {
  const adminToken = readFileSync(join(dataDir, "admin-token"), "utf8").trim();
  if (organization === undefined) return { adminToken, organization: "", key: "" };
  const demoEnv = readFileSync(join(dataDir, "demo.env"), "utf8");
  const key = /^export OPENAI_API_KEY=(\S+)$/m.exec(demoEnv)?.[1] ?? "";
  return { adminToken, organization, key };
}

/** Runs one command line beside a running relai. */
export async function cli(
  relai: Pick<Running, "dataDir">,
  ...args: readonly string[]
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [BIN, ...args], {
    env: environment({ RELAI_DATA_DIR: relai.dataDir }),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (piece: Buffer) => (stdout += piece.toString()));
  child.stderr.on("data", (piece: Buffer) => (stderr += piece.toString()));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { code, stdout, stderr };
}

/** Runs a command line that must succeed, and gives the object that it prints. */
export async function command(
  relai: Pick<Running, "dataDir">,
  ...args: readonly string[]
): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await cli(relai, ...args, "--json");
  if (code !== 0) throw new Error(`relai ${args.join(" ")} ended with ${code}: ${stderr}`);
  return z.record(z.string(), z.unknown()).parse(JSON.parse(stdout));
}

/** The openai client at a relai, which counts on no retry of its own unless it is asked to. */
export function openai(
  relai: Pick<Running, "gateway" | "key">,
  more: ConstructorParameters<typeof OpenAI>[0] = {},
): OpenAI {
  return new OpenAI({ apiKey: relai.key, baseURL: `${relai.gateway}/v1`, maxRetries: 0, ...more });
}

/** A JSON body that a test expects to be an object. */
export async function jsonOf(answer: Response): Promise<Record<string, unknown>> {
  return z.record(z.string(), z.unknown()).parse(await answer.json());
}

/** The body of a chat completion with one message. */
export const bodyOf = ({ asks }: Pick<Running, "asks">, content: string) => ({
  model: "sim-flat",
  messages: [{ role: "user" as const, content }],
  ...asks,
});

/** One raw chat completion; `content` is the only message. */
export function post(
  relai: Pick<Running, "gateway" | "key" | "asks">,
  content: string,
  more: Record<string, unknown> = {},
  init: { signal?: AbortSignal; headers?: Record<string, string> } = {},
): Promise<Response> {
  return fetch(`${relai.gateway}/v1/chat/completions`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${relai.key}`,
      "content-type": "application/json",
      ...init.headers,
    },
    body: JSON.stringify({ ...bodyOf(relai, content), ...more }),
    ...(init.signal === undefined ? {} : { signal: init.signal }),
  });
}

/** Calls the control API. */
export async function manage(
  relai: Pick<Running, "control" | "adminToken">,
  method: string,
  path: string,
  body?: object,
): Promise<Record<string, unknown>> {
  const answer = await fetch(`${relai.control}${path}`, {
    method,
    headers: { authorization: `Bearer ${relai.adminToken}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const read = await jsonOf(answer);
  if (answer.status >= 300) throw new Error(`${method} ${path}: ${JSON.stringify(read)}`);
  return read;
}

/**
 * A new organization with this credit and one key; without credit it has none. Less than the least top-up is what an
 * earlier request of another key has left of it: the simulator bills `sim-flat` to the micro-dollar.
 */
export async function newOrganization<R extends Running>(
  relai: R,
  facts: { creditMicro: number; key?: object },
): Promise<R & { readonly keyId: string }> {
  const { id: organization } = await manage(relai, "POST", "/v1/orgs", { name: "Test" });
  const path = `/v1/orgs/${String(organization)}`;
  const toSpend = facts.creditMicro > 0 ? Math.max(0, TOP_UP_MICRO_MIN - facts.creditMicro) : 0;
  if (facts.creditMicro > 0)
    await manage(relai, "POST", `${path}/credits`, { amount_micro: facts.creditMicro + toSpend });
  if (toSpend > 0) {
    const other = await manage(relai, "POST", `${path}/keys`, {});
    const spending = { ...relai, key: String(other["key"]) };
    const answer = await post(spending, `[sim input=${toSpend - 1} output=1]`, { max_tokens: 1 });
    expect(answer.headers.get("x-relai-cost-micro")).toBe(String(toSpend));
    await answer.text();
  }
  const { key, id } = await manage(relai, "POST", `${path}/keys`, facts.key ?? {});
  return { ...relai, organization: String(organization), key: String(key), keyId: String(id) };
}

const BALANCE = z.object({
  credits_micro: z.int(),
  credits_dollars: z.string(),
  held_micro: z.int(),
  available_micro: z.int(),
  as_of: z.iso.datetime(),
  key_budget: z.record(z.string(), z.int()).optional(),
});

/** `GET /v1/balance`. */
export async function balanceOf(relai: Pick<Running, "gateway" | "key">) {
  const answer = await fetch(`${relai.gateway}/v1/balance`, {
    headers: { "x-api-key": relai.key },
  });
  expect(answer.status).toBe(200);
  return BALANCE.parse(await answer.json());
}

/** A stream's events as they come: their text with the prefix `data: ` taken off. */
export async function* sse(answer: Response): AsyncGenerator<string> {
  const parts = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await parts?.read(); part?.done === false; part = await parts?.read()) {
    const events = (text + part.value).split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) yield event.replace(/^data: /, "");
  }
  if (text !== "") throw new Error(`the stream ends within an event: ${text}`);
}
