import { join } from "node:path";
import { z } from "zod";
import { streams, type RecordedEvent } from "#domain/events/events.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { createRedisProgress } from "#infra/redis/progress.ts";
import { ALIVE_EVERY_MS } from "#services/journal.ts";
import { MISSED_MAX } from "#services/ledger/silence.ts";
import { PROCESSES, type ProcessName } from "#services/start/processes.ts";
import { nameOnRedis } from "#services/start/stores.ts";
import { eventsForward, newestOwner } from "#services/writers.ts";
import { openStore } from "#test/worlds/event-store-world.ts";
import { connect } from "#test/servers/redis-world.ts";
import type { Dice } from "#test/simulation/random.ts";
import {
  ADMIN_TOKEN,
  freePort,
  startProcess,
  startSimulator,
  stopCleanly,
  type Process,
} from "#test/faults/processes.ts";
import { startEventStorePlace, startRedisPlace, watchOwners, type ServerPlace } from "./servers.ts";

/**
 * A region as in production, of real processes: gateways, ledgers and a control API over a Redis server and an event
 * store, or its stand-in, which speaks the server's protocol. The servers and the upstream outlive every kill.
 */

/** After so long without a sign of life a writer is dead to the ledger that serves. */
export const SILENCE_MS = MISSED_MAX * ALIVE_EVERY_MS;
/** An owner's last sign of life is waited for a sign longer, by a ledger that looks every second, on a busy machine. */
export const TAKE_OVER_MS_MAX = SILENCE_MS + ALIVE_EVERY_MS + 25_000;

const REGION = "us";

export const pause = (delayMs: number) => new Promise((resolve) => setTimeout(resolve, delayMs));

/**
 * Tries again until a value comes, also where it cannot be looked for just then; throws with `what` was waited for when it
 * does not come in time.
 */
export async function until<T>(
  what: string,
  limitMs: number,
  look: () => Promise<T | undefined>,
): Promise<T> {
  let cause: unknown;
  for (const dueMs = Date.now() + limitMs; Date.now() < dueMs; await pause(100)) {
    try {
      const found = await look();
      if (found !== undefined) return found;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
  }
  throw new Error(`not within ${limitMs} ms: ${what}`, { cause });
}

const told = z.object({
  process: z.enum(PROCESSES),
  url: z.url().nullable(),
  internal: z.url(),
});

/** One place of the region: a process, and after its end the next, with the same ports and the same folder. */
export interface Part {
  readonly url: string;
  /** Starts it and waits until it is ready. */
  start(): Promise<void>;
  /** Starts it and kills it after so long, wherever in its start it is then. */
  startAndKill(afterMs: number): Promise<void>;
  /** Ends it with a signal; a clean end is waited for and demanded of SIGTERM. */
  end(signal: "SIGKILL" | "SIGTERM"): Promise<void>;
  signal(signal: "SIGSTOP" | "SIGCONT"): void;
  /** One of its numbers, by its own metrics. */
  metric(name: string): Promise<number>;
  /** Where it tells its metrics and whether it is ready. */
  internal(): string;
  /** All that its processes have said so far. */
  said(): string;
}

/** What one process finds elsewhere than others, or is started with besides. */
type Settings = Readonly<Record<string, string>>;

/** Who owned the admission store: the epoch, and which start of which kind of process that was. */
export interface Owner {
  readonly ownerEpoch: number;
  readonly writerEpoch: number;
  readonly instance: string;
  /** The replication ids of the Redis servers that it works on. */
  readonly servers: readonly string[];
  readonly position: bigint;
}

export type Region = Awaited<ReturnType<typeof startRegion>>;

/**
 * Starts the servers and the upstream; the processes of the region are made by `part` and started by the test. Of several
 * Redis servers a region has the first, and the test makes the others what they are.
 */
export async function startRegion(folder: string, dice: Dice, redisCount = 1) {
  const bookPath = join(folder, "book.jsonl");
  const redises: ServerPlace[] = [];
  while (redises.length < redisCount)
    redises.push(await startRedisPlace(join(folder, `redis-${redises.length + 1}`), dice));
  const [redis] = redises;
  if (!redis) throw new Error("a region has a Redis");
  const eventStore = await startEventStorePlace(join(folder, "event-store"), dice);
  const upstream = await startSimulator(bookPath);
  const store = await openStore(eventStore.url);
  const connection = await connect(redis.url, { urls: redises.map(({ url }) => url) });
  const servers = {
    RELAI_EVENTSTORE_URL: eventStore.url,
    RELAI_EVENTSTORE_INSECURE: "1",
    RELAI_REDIS_URL: redises.map(({ url }) => url).join(","),
  };

  /** What stands on Redis under the names of the history that the event store has now. */
  async function onRedis() {
    const place = { redis: connection, prefix: nameOnRedis(REGION, await store.identity()) };
    return { progress: createRedisProgress(place), admission: createRedisAdmission(place) };
  }

  /** Goes to the newest owner's server, as a gateway does. */
  async function followOwner(): Promise<void> {
    const owner = await newestOwner(store, REGION);
    if (owner) await connection.seek(owner.servers);
  }

  /** `bin` starts it, of this tree or of another. */
  async function part(
    kind: ProcessName,
    name: string,
    settings: Settings = {},
    bin?: string,
  ): Promise<Part> {
    const port = await freePort(dice);
    const env = {
      ...servers,
      RELAI_DATA_DIR: join(folder, name),
      RELAI_ADMIN_TOKEN: ADMIN_TOKEN,
      RELAI_LOG_LEVEL: "warn",
      RELAI_GATEWAY_PORT: "0",
      RELAI_CONTROL_PORT: "0",
      RELAI_INTERNAL_PORT: "0",
      [kind === "gateway" ? "RELAI_GATEWAY_PORT" : "RELAI_CONTROL_PORT"]: String(port),
      OPENAI_API_KEY: "sk-faults-upstream-key",
      OPENAI_BASE_URL: `${upstream.url}/openai/v1`,
      ...settings,
    };
    let internal = "";
    const starts: Process[] = [];
    function present(): Process {
      const running = starts.at(-1);
      if (!running) throw new Error(`${name} was never started`);
      return running;
    }
    function startOne(): Process {
      const running = startProcess([kind, "--json"], env, bin);
      starts.push(running);
      return running;
    }
    return {
      url: `http://127.0.0.1:${port}`,
      async start() {
        const said = told.parse(JSON.parse(await startOne().ready));
        if (said.process !== kind) throw new Error(`${name} says that it is a ${said.process}`);
        ({ internal } = said);
      },
      async startAndKill(afterMs) {
        const running = startOne();
        await pause(afterMs);
        running.kill("SIGKILL");
        await running.ended;
      },
      async end(signal) {
        if (signal === "SIGTERM") return stopCleanly(present());
        present().kill(signal);
        const how = await present().ended;
        if (how !== signal) throw new Error(`${name} ended with ${how}: ${present().stderr()}`);
      },
      signal: (signal) => present().kill(signal),
      async metric(metric) {
        const text = await (await fetch(`${internal}/metrics`)).text();
        const found = new RegExp(`^${metric} (\\S+)$`, "m").exec(text)?.[1];
        if (found === undefined) throw new Error(`${name} has no metric ${metric}`);
        return Number(found);
      },
      internal: () => internal,
      said: () => starts.map((one) => one.stdout() + one.stderr()).join(""),
    };
  }

  /** The owners of the admission store, oldest first. */
  async function owners(): Promise<Owner[]> {
    const found: Owner[] = [];
    const instances = new Map<number, string>();
    for await (const event of eventsForward(store, streams.writers(REGION), "start")) {
      if (event.type === "WriterStarted.v1")
        instances.set(Number(event.revision), event.data.instance);
      if (event.type !== "OwnerChanged.v1") continue;
      const { ownerEpoch, writerEpoch, servers } = event.data;
      const instance = instances.get(writerEpoch) ?? "";
      found.push({ ownerEpoch, writerEpoch, instance, servers, position: event.position });
    }
    return found;
  }

  return {
    bookPath,
    redis,
    redises,
    eventStore,
    /** The settings by which a process finds them. */
    servers,
    prefix: nameOnRedis(REGION, await store.identity()),
    upstream,
    store,
    /** What the owner's server tells of an organization. */
    async figures(orgId: string) {
      await followOwner();
      return (await onRedis()).admission.figures({ orgId });
    },
    part,
    owners,
    /** Waits for an owner of at least this epoch that carries in what is recorded from now on. */
    async served(ownerEpoch: number, limitMs = TAKE_OVER_MS_MAX): Promise<Owner> {
      const owner = await until(`owner ${ownerEpoch}`, limitMs, async () =>
        (await owners()).find((one) => one.ownerEpoch >= ownerEpoch),
      );
      const head = await store.head();
      await until(`what stands at ${head} is carried in`, 30_000, async () => {
        await followOwner();
        const told = await (await onRedis()).progress.told();
        return head !== "start" && told && told.position >= head ? true : undefined;
      });
      return owner;
    },
    async journal(writerEpoch: number): Promise<RecordedEvent[]> {
      return Array.fromAsync(eventsForward(store, streams.journal(REGION, writerEpoch), "start"));
    },
    /** The epochs of the lives of gateways, or of ledgers, oldest first. */
    async lives(kind: "gateway" | "ledger"): Promise<number[]> {
      const events = await Array.fromAsync(eventsForward(store, streams.writers(REGION), "start"));
      return events.flatMap((event) =>
        event.type === "WriterStarted.v1" && event.data.process === kind
          ? [Number(event.revision)]
          : [],
      );
    },
    async close(): Promise<void> {
      await connection.close();
      await store.close();
      upstream.process.kill("SIGKILL");
      await upstream.process.ended;
      await Promise.all([eventStore, ...redises].map((server) => server.kill()));
    },
  };
}

/**
 * Ends the ledger that serves, and starts it again once the other has taken over; under load, so that first the one and
 * then the other is seen to apply what is recorded.
 */
export async function takeTurns(region: Region, serving: Part): Promise<void> {
  const watched = await watchOwners(region.redis);
  try {
    const applies = (epoch: number) =>
      until(`owner ${epoch} applies, or a later one`, 120_000, async () => {
        const isIts = ({ what, ownerEpoch }: (typeof watched.done)[number]) =>
          what === "apply" && ownerEpoch >= epoch;
        return watched.done.some(isIts) || undefined;
      });
    const epoch = (await region.owners()).length;
    await applies(epoch);
    await serving.end("SIGTERM");
    const next = await region.served(epoch + 1);
    await applies(next.ownerEpoch);
    await serving.start();
  } finally {
    watched.close();
  }
}
