import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Announcement, Ready } from "./child.ts";

/** Starting, binding and ending the processes of the bench. Whatever is still running at the harness's end is killed. */

const READY_MS_MAX = 20_000;
const STOP_MS_MAX = 15_000;

/** The gateway has a core for itself; upstream and load generator share the other. */
export interface Cores {
  readonly gateway: number;
  readonly load: number;
}

export interface Child {
  readonly pid: number;
  readonly process: ChildProcess;
  /** Rejects with the end of the child's error output when it exits. Never resolves. */
  readonly died: Promise<never>;
  /** Ends the process: SIGTERM, and SIGKILL when that was not enough. Resolves to false when it took the latter. */
  stop(): Promise<boolean>;
}

export interface Where {
  readonly upstreamUrl: string;
  readonly cores: Cores | undefined;
  /** An empty folder of this start's own. */
  readonly folder: string;
}

/** Why a target is not measured on this machine. */
export class LeftOut extends Error {
  override readonly name = "LeftOut";
}

export interface Running {
  /** Where it takes requests: as many are sent to each. */
  readonly urls: readonly string[];
  readonly headers: Readonly<Record<string, string>>;
  /** The processes that are measured, alone on the gateway's core. */
  readonly gateways: readonly { readonly pid: number }[];
  /** What else works for each request, on the other core: its CPU is told apart. */
  readonly beside: readonly Beside[];
  /** How many appends the event store was sent so far, and of how many events; where it can be asked. */
  readonly appended?: () => Promise<Appended>;
  /** Rejects when a process of it dies. Never resolves. */
  readonly died: Promise<never>;
  /** Ends all of it. Resolves to false when one did not end by itself. */
  stop(): Promise<boolean>;
}

export interface Beside {
  readonly name: string;
  readonly pid: number;
}

export interface Appended {
  readonly appends: number;
  readonly events: number;
}

/** A target of one process. */
export function alone(
  url: string,
  headers: Readonly<Record<string, string>>,
  child: Child,
): Running {
  const { died, stop } = child;
  return { urls: [url], headers, gateways: [child], beside: [], died, stop };
}

const running = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

/** The two cores to use, or undefined where the machine has no two, or no `taskset` to bind a process with. */
export function findCores(): Cores | undefined {
  try {
    execFileSync("taskset", ["--version"], { stdio: "ignore" });
    const list =
      /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "";
    const cores = list.split(",").flatMap((range) => {
      const [first = 0, last = first] = range.split("-").map(Number);
      return Array.from({ length: last - first + 1 }, (_, index) => first + index);
    });
    const [gateway, load] = cores;
    return gateway === undefined || load === undefined ? undefined : { gateway, load };
  } catch {
    return undefined;
  }
}

/** Starts Node with these arguments, bound to a core if one is given; its error output goes to `<name>.log` in `folder`. */
export function startNode(options: {
  readonly name: string;
  readonly args: readonly string[];
  readonly core: number | undefined;
  readonly folder: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdout?: "pipe" | "ignore";
  readonly ipc?: boolean;
}): Child {
  const { name, core, folder } = options;
  const logFile = join(folder, `${name}.log`);
  const log = openSync(logFile, "a");
  const command = [process.execPath, ...options.args];
  const [program = "", ...args] =
    core === undefined ? command : ["taskset", "-c", String(core), ...command];
  const child = spawn(program, args, {
    // Settings of the person who runs the bench must not change what is measured.
    env: { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "", ...options.env },
    cwd: folder,
    stdio: [
      "ignore",
      options.stdout ?? "ignore",
      log,
      ...(options.ipc === true ? ["ipc" as const] : []),
    ],
  });
  closeSync(log);
  running.add(child);
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(`ended with ${signal ?? code}`));
  }).finally(() => running.delete(child));
  const died = exited.then((how) => {
    throw new Error(`${name} ${how}\n${readFileSync(logFile, "utf8").trim().slice(-1_500)}`);
  });
  // Nobody may be waiting for it at the moment at which it is stopped.
  died.catch(() => {});
  return {
    pid: child.pid ?? 0,
    process: child,
    died,
    stop: async () => {
      child.kill("SIGTERM");
      const inTime = await within(STOP_MS_MAX, exited);
      if (inTime === undefined) child.kill("SIGKILL");
      await exited;
      return inTime !== undefined;
    },
  };
}

/** Resolves as the promise does, or to undefined after `waitMs`. */
export async function within<T>(waitMs: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, waitMs, undefined);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The next message of a child that was started with `ipc`. Throws when it dies or says nothing in `waitMs`. */
export async function nextMessage<T>(child: Child, waitMs: number): Promise<T> {
  const message = new Promise<T>((resolve) => {
    child.process.once("message", (value) => resolve(value as T));
  });
  const received = await within(waitMs, Promise.race([message, child.died]));
  if (received === undefined) throw new Error(`no message within ${waitMs} ms`);
  return received;
}

/** Starts a program of this folder that talks to the harness. */
export function startScript(
  script: string,
  args: readonly string[],
  where: { readonly core: number | undefined; readonly folder: string },
): Child {
  const name = script.replace(/\.ts$/, "");
  return startNode({
    name,
    args: [join(import.meta.dirname, script), ...args],
    ipc: true,
    ...where,
  });
}

/** Starts a server of this folder and waits until it listens. Throws with what it says when it cannot. */
export async function startServer(
  script: string,
  args: readonly string[],
  where: { readonly core: number | undefined; readonly folder: string },
): Promise<{ child: Child; ready: Ready }> {
  const child = startScript(script, args, where);
  const message = await nextMessage<Announcement>(child, READY_MS_MAX);
  if ("ready" in message) return { child, ready: message.ready };
  await child.stop();
  throw new Error(message.failed);
}

/** Runs a program of this folder that tells one result, which is resolved; then it is ended. */
export async function runForResult<T>(
  script: string,
  args: readonly string[],
  where: { readonly core: number | undefined; readonly folder: string },
  waitMs: number,
): Promise<T> {
  const child = startScript(script, args, where);
  try {
    return await nextMessage<T>(child, waitMs);
  } finally {
    await child.stop();
  }
}
