import { accessSync, constants } from "node:fs";
import { basename, delimiter, join } from "node:path";
import { hasContainers, IMAGES, startContainer } from "./container.ts";
import { startEventStore } from "./event-store.ts";
import { startRedis } from "./redis.ts";

/** The servers that a start which asks for servers, and tests, can find. */
export type Kind = "redis" | "valkey" | "eventstore";

/** Where a server comes from. */
export type Source =
  | { readonly from: "url"; readonly url: string }
  | { readonly from: "container"; readonly image: string }
  | { readonly from: "program"; readonly program: string }
  | { readonly from: "nowhere"; readonly reason: string };

export type Environment = Readonly<Record<string, string | undefined>>;

/** A server to work with. */
export interface Server {
  readonly url: string;
  /**
   * Ends one that was started; one that was there before stays as it is. One that keeps its events has `limitMs` to end by
   * itself, and loses none when it is killed then.
   */
  stop(limitMs?: number): Promise<void>;
}

/** Names that programs have, those that are taken first in front. An event store's are in the folder RELAI_EVENTSTORE_HOME. */
const PROGRAMS: Record<Kind, readonly string[]> = {
  redis: ["redis-server", "valkey-server"],
  valkey: ["valkey-server"],
  eventstore: ["KurrentDB", "EventStore.ClusterNode"],
};

/**
 * Finds a server: the one that `url` names, else one in a container where a Docker engine answers, else a program to start
 * one by, else none. What keeps events must not be a container, which forgets them: `containers` says no to that.
 */
export async function findServer(
  kind: Kind,
  env: Environment,
  { url, containers = true }: { readonly url?: string | undefined; readonly containers?: boolean },
): Promise<Source> {
  if (url) return { from: "url", url };
  if (containers && (await hasContainers(env))) return { from: "container", image: IMAGES[kind] };
  const program = findProgram(kind, env);
  if (program !== undefined) return { from: "program", program };
  const names = PROGRAMS[kind].join(" or ");
  const where = kind === "eventstore" ? "in RELAI_EVENTSTORE_HOME" : "on the PATH";
  const engine = containers ? ", no Docker engine" : "";
  return { from: "nowhere", reason: `no URL${engine}, and no ${names} ${where}` };
}

/** The program that starts a server of this kind; undefined where this machine has none. */
export function findProgram(kind: Kind, env: Environment): string | undefined {
  const folders =
    kind === "eventstore"
      ? [env["RELAI_EVENTSTORE_HOME"] ?? ""]
      : (env["PATH"] ?? "").split(delimiter);
  for (const name of PROGRAMS[kind])
    for (const folder of folders) {
      const program = join(folder, name);
      if (folder !== "" && isProgram(program)) return program;
    }
  return undefined;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Starts what was found. An event store keeps its events in `folder`, or without one in its memory; Redis keeps nothing.
 * Rejects with the reason where it does not start.
 */
export async function startServer(
  kind: Kind,
  source: Exclude<Source, { readonly from: "nowhere" }>,
  { folder }: { readonly folder?: string } = {},
): Promise<Server> {
  if (source.from === "url") return { url: source.url, stop: async () => undefined };
  if (source.from === "container") return startContainer(kind);
  const { program } = source;
  if (kind !== "eventstore") {
    const { url, kill } = await startRedis({ program });
    return { url, stop: kill };
  }
  const { url, end } = await startEventStore({ program, folder });
  return { url, stop: (limitMs = 0) => end(limitMs) };
}

/** Where a server comes from, for people. No URL: it may have a password in it. */
export function describeSource(source: Source): string {
  if (source.from === "url") return "as the settings name it";
  if (source.from === "container") return `a container of ${source.image}`;
  if (source.from === "program") return `${basename(source.program)}, started for this run`;
  return source.reason;
}
