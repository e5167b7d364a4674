import { join } from "node:path";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { systemClock } from "#infra/clock.ts";
import type { Config } from "#infra/config.ts";
import { openSqliteEventStore } from "#infra/event-store/sqlite.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { createRedisKeyDirectory } from "#infra/key-directory/redis.ts";
import type { EventsPlace } from "#infra/read-models/worker-projector.ts";
import { createRedisProgress } from "#infra/redis/progress.ts";
import { openRedis } from "#infra/redis/connection.ts";
import type {
  AdmissionStore,
  Clock,
  EventStore,
  KeyDirectory,
  Progress,
  Random,
  Telemetry,
} from "#services/ports.ts";

/** An admission store that does not answer within this is unavailable for that call. */
const REDIS_COMMAND_MS_MAX = 1_000;

/** Where a region keeps what it knows. */
export interface Stores {
  readonly events: EventStore;
  /** Where a thread of its own finds the same events. */
  readonly eventsPlace: EventsPlace;
  readonly admission: AdmissionStore;
  readonly directory: KeyDirectory;
  /** Where a ledger tells processes apart from it how far it has come; undefined where there are none. */
  readonly progress: Progress | undefined;
  /** Other processes may work on the same events: the data folder's lock does not say who is dead. */
  readonly areShared: boolean;
}

export interface StoreParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly telemetry: Pick<Telemetry, "alarm">;
  /** Of the region, in the data folder; undefined for a process that keeps nothing there. */
  readonly folder: string | undefined;
  readonly region: string;
  readonly instance: string;
  /** Told of each store that is open, so that it is closed also where the next one cannot be opened. */
  readonly onOpen: (close: () => Promise<void>) => void;
}

/**
 * Opens the stores that the settings name: events in EventStoreDB or KurrentDB, admission and keys in Redis; or, where
 * they name none, in files and in memory. Rejects when a server does not answer.
 */
export async function openStores(config: Config, parts: StoreParts): Promise<Stores> {
  const { eventstoreUrl, redisUrl } = config;
  const inEvents =
    eventstoreUrl === undefined
      ? await eventsInFile(parts)
      : await eventsOn(eventstoreUrl, config, parts);
  const onFault = (orgId: string, sentence: string) =>
    parts.telemetry.alarm("organization_closed", { orgId, sentence });
  const inAdmission =
    redisUrl === undefined
      ? {
          admission: createMemoryAdmission({ clock: parts.clock, server: parts.instance, onFault }),
          directory: createMemoryKeyDirectory(),
          progress: undefined,
        }
      : await admissionOn(redisUrl, config, parts, onFault);
  return { ...inEvents, ...inAdmission, areShared: eventstoreUrl !== undefined };
}

async function eventsInFile({ folder, telemetry, onOpen }: StoreParts) {
  if (folder === undefined) throw new Error("events in a file need a folder");
  const path = join(folder, "events.sqlite");
  const events = await openSqliteEventStore({
    path,
    // It reads its clock as it dates what is appended, so a jump is told before anything carries it.
    clock: systemClock((jumpMs) => telemetry.alarm("clock_jumped", { jumpMs: Math.round(jumpMs) })),
  });
  onOpen(() => events.close());
  return { events, eventsPlace: { path } };
}

async function eventsOn(url: string, config: Config, { clock, random, onOpen }: StoreParts) {
  // Loaded only here: its client is larger than all the rest.
  const { openKurrentEventStore } = await import("#infra/event-store/kurrent/store.ts");
  const place = { url, insecure: config.eventstoreInsecure };
  const events = await openKurrentEventStore({ ...place, clock, random });
  onOpen(() => events.close());
  return { events, eventsPlace: place };
}

async function admissionOn(
  urls: readonly string[],
  config: Config,
  { clock, telemetry, region, onOpen }: StoreParts,
  onFault: (orgId: string, sentence: string) => void,
) {
  const redis = await openRedis({
    urls,
    isCluster: config.redisCluster,
    commandMsMax: REDIS_COMMAND_MS_MAX,
    onTrouble: (reason) => telemetry.alarm("redis_trouble", { reason }),
  });
  onOpen(() => redis.close());
  const prefix = `relai:${region}:`;
  return {
    admission: createRedisAdmission({ redis, prefix, onFault }),
    directory: createRedisKeyDirectory({ redis, prefix, clock }),
    progress: createRedisProgress({ redis, prefix }),
  };
}
