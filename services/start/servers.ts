import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, type Config } from "#infra/config.ts";
import { describeSource, findServer, startServer, type Server } from "#infra/backing/find.ts";

/** The servers of a start that asks for servers. */
export interface Servers {
  /** The settings, with these servers in them. */
  readonly config: Config;
  /** What they are, where and whence, for people: no password. */
  readonly told: readonly (readonly [what: string, where: string])[];
  /** Ends those that were started here; an event store that has not ended by itself within `limitMs` is killed. */
  stop(limitMs: number): Promise<void>;
}

/**
 * Finds a Redis, and an event store where there is one: those that the settings name, else servers that are started for this
 * process. What Redis knows may go with it. An event store's events stay in `folder`, so it is never a container, and where
 * there is none events stay in a file. Rejects where there is no Redis or one does not start; then nothing is left running.
 */
export async function findServers(given: Config, folder: string): Promise<Servers> {
  const env = { ...process.env, RELAI_EVENTSTORE_HOME: given.eventstoreHome };
  const started: Server[] = [];
  const sources = new Map(given.sources);
  const told: [string, string][] = [];
  const stop = async (limitMs: number) => {
    await Promise.all(started.map((server) => server.stop(limitMs)));
  };

  /** Gives the address of a server that was started; undefined where there is none to start. */
  async function start(kind: "redis" | "eventstore", what: string): Promise<string | undefined> {
    const isStore = kind === "eventstore";
    const source = await findServer(kind, env, { containers: !isStore });
    if (source.from === "nowhere") {
      if (!isStore)
        throw new ConfigError(
          `--servers found no Redis (${source.reason}): set RELAI_REDIS_URL, install redis-server, or start without --servers.`,
        );
      told.push([what, "none found: events stay in the data folder"]);
      return undefined;
    }
    const own = join(folder, "eventstore");
    if (isStore) mkdirSync(own, { recursive: true, mode: 0o700 });
    const server = await startServer(kind, source, isStore ? { folder: own } : {});
    started.push(server);
    const { protocol, host } = new URL(server.url);
    told.push([what, `${protocol}//${host}  ${describeSource(source)}`]);
    return server.url;
  }

  try {
    let config = given;
    if (config.redisUrl !== undefined) told.push(["Redis", "the one of RELAI_REDIS_URL"]);
    else {
      const url = await start("redis", "Redis");
      if (url !== undefined) config = { ...config, redisUrl: [url] };
      sources.set("redisUrl", "found");
    }
    if (config.eventstoreUrl !== undefined)
      told.push(["event store", "the one of RELAI_EVENTSTORE_URL"]);
    else {
      const url = await start("eventstore", "event store");
      if (url !== undefined) {
        config = { ...config, eventstoreUrl: url, eventstoreInsecure: true };
        for (const name of ["eventstoreUrl", "eventstoreInsecure"] as const)
          sources.set(name, "found");
      }
    }
    return { config: { ...config, sources }, told, stop };
  } catch (error) {
    await stop(0);
    throw error;
  }
}
