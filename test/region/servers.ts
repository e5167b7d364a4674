import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { admissionScripts } from "#infra/admission/redis-scripts.ts";
import { startRedis } from "#infra/backing/redis.ts";
import { NO_PROGRAM, REDIS_PROGRAM } from "#test/servers/redis-world.ts";
import type { Dice } from "#test/simulation/random.ts";
import { freePort, startStandInProcess } from "#test/faults/processes.ts";

/** A server that processes of a region share, at one port and on one folder, start after start. */
export interface ServerPlace {
  readonly url: string;
  readonly port: number;
  readonly folder: string;
  /** Kills it as a crash would; resolves when it is gone, and nobody listens at its port. */
  kill(): Promise<void>;
  /** Starts it with what it finds in its folder. */
  start(): Promise<void>;
  signal(signal: "SIGSTOP" | "SIGCONT"): void;
}

/** Why there can be no Redis of our own here; undefined where there can. */
export const NO_REDIS_OF_OURS = REDIS_PROGRAM === undefined ? NO_PROGRAM : undefined;

/** Starts a Redis. It loads `dump.rdb` of its folder at each start, and writes one only when it is told to. */
export async function startRedisPlace(folder: string, dice: Dice): Promise<ServerPlace> {
  if (REDIS_PROGRAM === undefined) throw new Error(NO_PROGRAM);
  const program = REDIS_PROGRAM;
  mkdirSync(folder, { recursive: true });
  const port = await freePort(dice);
  const begin = () =>
    startRedis({ program, port, folder, args: ["--repl-diskless-sync-delay", "0"] });
  let server = await begin();
  return {
    url: server.url,
    port,
    folder,
    kill: () => server.kill(),
    async start() {
      server = await begin();
    },
    signal: (signal) => void process.kill(server.pid, signal),
  };
}

/** Starts the event store's stand-in. Every event that it answered for is there after a kill. */
export async function startEventStorePlace(folder: string, dice: Dice): Promise<ServerPlace> {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, "events.jsonl");
  const port = await freePort(dice);
  let server = startStandInProcess(path, port);
  const url = await server.ready;
  return {
    url,
    port,
    folder,
    async kill() {
      server.kill("SIGKILL");
      const how = await server.ended;
      // Whatever fails then, this is why.
      if (how !== "SIGKILL") throw new Error(`the stand-in ended with ${how}: ${server.stderr()}`);
    },
    async start() {
      server = startStandInProcess(path, port);
      await server.ready;
    },
    signal: (signal) => server.kill(signal),
  };
}

/** Something that only an owner does in the admission store. */
interface OwnersWork {
  readonly what: "adopt" | "apply" | "sweep";
  readonly ownerEpoch: number;
  readonly atMs: number;
}

/**
 * What owners do from now on in the admission store, as its server sees it; until closed, or until the server is gone. By
 * MONITOR on a socket of our own: the client ends its process where the first word comes together with the answer.
 */
export async function watchOwners({ port }: ServerPlace) {
  const scripts = admissionScripts();
  const names = (["adopt", "apply", "sweep"] as const).map(
    (what) => [scripts[what].sha1, what] as const,
  );
  const ownersOnly = new Map<string | undefined, OwnersWork["what"]>(names);
  const done: OwnersWork[] = [];
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  await once(socket, "connect");
  const lines = createInterface({ input: socket });
  lines.on("line", (line) => {
    const words = [...line.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, word = ""]) => word);
    const [, sha1, keys, ...rest] = words;
    const what = ownersOnly.get(sha1);
    // Behind the keys stand the organization and the owner.
    const ownerEpoch = Number(rest[Number(keys) + 1]);
    if (what) done.push({ what, ownerEpoch, atMs: Date.now() });
  });
  socket.write("MONITOR\r\n");
  await once(lines, "line");
  return { done: done as readonly OwnersWork[], close: () => void socket.destroy() };
}
