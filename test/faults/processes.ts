import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { Dice } from "#test/simulation/random.ts";

/**
 * Real processes for the tests of faults: relai on fixed ports and one data folder, start after start, and the
 * simulated upstream as a process of its own, which outlives every kill of relai.
 */

const BIN = fileURLToPath(new URL("../../bin/relai.mjs", import.meta.url));
const STAND_IN = fileURLToPath(new URL("../kurrent-stand-in/main.ts", import.meta.url));
/** So much of what a process says on stderr is kept. */
const SAID_MAX = 10_000_000;
const READY_MS_MAX = 120_000;
export const ADMIN_TOKEN = "faults-admin-token-0123456789";

const running = new Set<ChildProcess>();

/** Ends whatever a test that failed left running. */
export function killAll(): void {
  for (const child of running) child.kill("SIGKILL");
}

/** A process of relai and what it has said. */
export interface Process {
  readonly pid: number;
  readonly spawnedAtMs: number;
  /** The one line that it prints when it is ready, of relai JSON; rejects when it ends before. */
  readonly ready: Promise<string>;
  /** Its exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>;
  stderr(): string;
  stdout(): string;
  kill(signal: "SIGKILL" | "SIGTERM" | "SIGSTOP" | "SIGCONT"): void;
}

/** Starts `relai …`, of this tree or of another. */
export function startProcess(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  bin = BIN,
): Process {
  return startScript([bin, ...args], env);
}

/** Starts the event store's stand-in, on a file and a port where they are given; its line is its URL. */
export function startStandInProcess(path?: string, port = 0): Process {
  return startScript(path === undefined ? [STAND_IN] : [STAND_IN, path, String(port)], {});
}

/** Starts a script under this Node, so that no launcher stands between the test and the process that it kills. */
function startScript(args: readonly string[], env: Readonly<Record<string, string>>): Process {
  const spawnedAtMs = Date.now();
  const child = spawn(process.execPath, args, {
    env: { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  let stdout = "";
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-SAID_MAX);
  });
  const ended = once(child, "close").then(([code, signal]: unknown[]) => {
    running.delete(child);
    return typeof code === "number" ? code : String(signal);
  });
  const ready = new Promise<string>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`not ready in ${READY_MS_MAX} ms: ${stderr}`)),
      READY_MS_MAX,
    );
    createInterface({ input: child.stdout }).on("line", (line) => {
      stdout += `${line}\n`;
      clearTimeout(timer);
      resolve(line);
    });
    void ended.then((how) => {
      clearTimeout(timer);
      reject(new Error(`ended with ${how} before it was ready: ${stderr}`));
    });
  });
  // A start that is to be killed has nobody who waits for it.
  ready.catch(() => {});
  return {
    pid: child.pid ?? 0,
    spawnedAtMs,
    ready,
    ended,
    stderr: () => stderr,
    stdout: () => stdout,
    kill: (signal) => void child.kill(signal),
  };
}

/** Lets a process end by itself and waits for it; throws with what it said unless that was a clean end. */
export async function stopCleanly(running: Process): Promise<void> {
  running.kill("SIGTERM");
  const how = await running.ended;
  if (how !== 0) throw new Error(`it ended with ${how}: ${running.stderr()}`);
}

const simulatorReady = z.object({ url: z.string() });

/** Starts the simulated upstream with its book in a file; gives its address without a path. */
export async function startSimulator(
  book: string,
): Promise<{ process: Process; url: string; release(name: string): Promise<void> }> {
  const simulator = startProcess(["simulator", "--port", "0", "--book", book, "--json"], {});
  const { url } = simulatorReady.parse(JSON.parse(await simulator.ready));
  return {
    process: simulator,
    url,
    release: async (name) => {
      await (await fetch(`${url}/release/${name}`, { method: "POST" })).text();
    },
  };
}

/** Where the starts of one data folder serve, all of them at the same ports. */
export interface Place {
  readonly folder: string;
  readonly eventsPath: string;
  readonly gateway: string;
  readonly control: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Takes ports for a data folder: free ones below the range from which the system serves connections. */
export async function takePlace(folder: string, simulator: string, dice: Dice): Promise<Place> {
  const ports = [await freePort(dice), await freePort(dice), await freePort(dice)];
  const [gateway, control, internal] = ports.map(String);
  return {
    folder,
    eventsPath: join(folder, "us", "events.sqlite"),
    gateway: `http://127.0.0.1:${gateway}`,
    control: `http://127.0.0.1:${control}`,
    env: {
      RELAI_DATA_DIR: folder,
      RELAI_DEMO: "0",
      RELAI_GATEWAY_PORT: gateway ?? "",
      RELAI_CONTROL_PORT: control ?? "",
      RELAI_INTERNAL_PORT: internal ?? "",
      RELAI_ADMIN_TOKEN: ADMIN_TOKEN,
      RELAI_LOG_LEVEL: "warn",
      OPENAI_API_KEY: "sk-faults-upstream-key",
      OPENAI_BASE_URL: `${simulator}/openai/v1`,
    },
  };
}

// Below those that Linux takes for outgoing connections: a client that asks again and again at a port where nobody
// listens would else one day be connected to itself.
const PORT_MIN = 10_000;
const PORT_MAX = Math.max(PORT_MIN + 2_000, Math.min(32_000, firstOutgoingPort()));
/** Test files that run side by side never take the same one, not even while the first of them is not served at yet. */
const WORKERS_MAX = 32;
const PER_WORKER = Math.floor((PORT_MAX - PORT_MIN) / WORKERS_MAX);
const worker = Number(process.env["VITEST_POOL_ID"] ?? 0) % WORKERS_MAX;
const taken = new Set<number>();

function firstOutgoingPort(): number {
  const range = "/proc/sys/net/ipv4/ip_local_port_range";
  return existsSync(range) ? Number.parseInt(readFileSync(range, "utf8"), 10) : 32_768;
}

/** A port that nobody has, to be served at again and again. */
export async function freePort(dice: Dice): Promise<number> {
  for (;;) {
    const port = PORT_MIN + dice.between(0, PER_WORKER - 1) * WORKERS_MAX + worker;
    if (taken.has(port)) continue;
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!isFree) continue;
    await new Promise((resolve) => server.close(resolve));
    taken.add(port);
    return port;
  }
}

export function startRelai(place: Place): Process {
  return startProcess(["start", "--json"], place.env);
}

/** Waits until a start writes its first event, or has ended: the log of its store then has another time. */
export async function firstWrite(place: Place, start: Process): Promise<void> {
  const path = `${place.eventsPath}-wal`;
  const before = modifiedNs(path);
  let over = false;
  void start.ended.then(() => {
    over = true;
  });
  while (!over && modifiedNs(path) === before) await new Promise((next) => setTimeout(next, 1));
}

function modifiedNs(path: string): bigint {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.mtimeNs ?? 0n;
}

const created = z.object({ id: z.string(), key: z.string().optional() });
const balance = z.object({
  credits_micro: z.int(),
  held_micro: z.int(),
  available_micro: z.int(),
});

/** Asks the control API; throws on anything but a success, or a change that is recorded and does not show yet. */
async function control(place: Pick<Place, "control">, path: string, body?: object) {
  const response = await fetch(`${place.control}${path}`, {
    method: body ? "POST" : "GET",
    headers: { authorization: `Bearer ${ADMIN_TOKEN}`, "content-type": "application/json" },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await response.text();
  if (!response.ok && !text.includes('"recorded":true'))
    throw new Error(`${path} answered ${response.status}: ${text}`);
  return JSON.parse(text) as unknown;
}

/** Makes an organization with so much credit and one key. */
export async function makeCustomer(
  place: Pick<Place, "control">,
  fundedMicro: number,
): Promise<{ orgId: string; key: string }> {
  const org = created.parse(await control(place, "/v1/orgs", { name: "Faults" }));
  await control(place, `/v1/orgs/${org.id}/credits`, { amount_micro: fundedMicro });
  const { key } = created.parse(await control(place, `/v1/orgs/${org.id}/keys`, {}));
  if (key === undefined) throw new Error("a new key shows its text");
  return { orgId: org.id, key };
}

/** Gives an organization more credit. There may be no ledger that could show it. */
export async function topUp(place: Pick<Place, "control">, orgId: string, amountMicro: number) {
  await control(place, `/v1/orgs/${orgId}/credits`, { amount_micro: amountMicro });
}

/** The balance as the control API tells it. Micro. */
export async function readBalance(place: Pick<Place, "control">, orgId: string) {
  return balance.parse(await control(place, `/v1/orgs/${orgId}/balance`));
}
