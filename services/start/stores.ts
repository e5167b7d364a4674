import { join } from "node:path";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { systemClock } from "#infra/clock.ts";
import type { Config } from "#infra/config.ts";
import { openSqliteEventStore } from "#infra/event-store/sqlite.ts";
import { observeAdmission, observeEventStore, observeRedis } from "#infra/telemetry/observed.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { createRedisKeyDirectory } from "#infra/key-directory/redis.ts";
import type { EventsPlace } from "#infra/read-models/worker-projector.ts";
import { createRedisProgress } from "#infra/redis/progress.ts";
import { openRedis, type RedisConnection } from "#infra/redis/connection.ts";
import type { ProcessTelemetry } from "#infra/telemetry/telemetry.ts";
import type {
  AdmissionStore,
  Clock,
  EventStore,
  KeyDirectory,
  Lag,
  Progress,
  Random,
} from "#services/ports.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";
import { endOr } from "./stopping.ts";

/** An admission store that does not answer within this is unavailable for that call. */
const REDIS_COMMAND_MS_MAX = 1_000;

/** So many keys are written to look at a cluster, that each of its few servers has some of them, each for so long. */
const PROBES = 16;
const PROBE_MS = 10_000;
const PROBE_ANSWER_MS_MAX = 600;

/** Where a region keeps what it knows. */
export interface Stores {
  readonly events: EventStore;
  /** How far the ledger of this process is behind with the events that it was handed. */
  readonly ledgerLag: () => Lag;
  /** Where a thread of its own finds the same events. */
  readonly eventsPlace: EventsPlace;
  readonly admission: AdmissionStore;
  readonly directory: KeyDirectory;
  /** Where a ledger tells processes apart from it how far it has come; undefined where there are none. */
  readonly progress: Progress | undefined;
  /**
   * Resolves when Redis has taken a write, to `partly` where not all servers of a cluster have, and rejects where none
   * has. Undefined where admission and keys are in memory.
   */
  readonly redisAnswers: (() => Promise<"up" | "partly">) | undefined;
  /** Other processes may work on the same events: the data folder's lock does not say who is dead. */
  readonly areShared: boolean;
}

export interface StoreParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly telemetry: ProcessTelemetry;
  /** Of the region, in the data folder; undefined for a process that keeps nothing there. */
  readonly folder: string | undefined;
  readonly region: string;
  readonly instance: string;
  /** Told of each store that is open, so that it is closed also where the next one cannot be opened. */
  readonly onOpen: (close: (limitMs: number) => Promise<unknown>) => void;
}

/**
 * Opens the stores that the settings name: events in EventStoreDB or KurrentDB, admission and keys in Redis; or, where
 * they name none, in a file and in memory. Rejects when a server does not answer.
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
          redisAnswers: undefined,
        }
      : await admissionOn(redisUrl, config, parts, {
          ...inEvents,
          onFault,
        });
  const events = observeEventStore(inEvents.events, parts);
  return {
    ...inAdmission,
    admission: observeAdmission(inAdmission.admission, parts),
    events,
    eventsPlace: inEvents.eventsPlace,
    ledgerLag: events.lag,
    areShared: eventstoreUrl !== undefined,
  };
}

/** The event store as it was opened, and where others share it the means to give it another identity. */
interface EventsOpen {
  readonly events: EventStore;
  readonly renewIdentity: ((before: string) => Promise<string>) | undefined;
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
  return { events, eventsPlace: { path }, renewIdentity: undefined };
}

async function eventsOn(url: string, config: Config, { clock, random, onOpen }: StoreParts) {
  // Loaded only here: its client is larger than all the rest.
  const { openKurrentEventStore } = await import("#infra/event-store/kurrent/store.ts");
  const place = { url, insecure: config.eventstoreInsecure };
  const events = await openKurrentEventStore({ ...place, clock, random });
  // It waits for the outcomes of its appends. One that has none by now is told by who gave it.
  onOpen((limitMs) => endOr(clock, limitMs, events.close(), () => undefined));
  return { events, eventsPlace: place, renewIdentity: events.renewIdentity };
}

/** What every key of a region on servers begins with. `history` is the event store's identity. */
export const nameOnRedis = (region: string, history: string) => `relai:${region}:${history}:`;

/**
 * What Redis holds is of one history of events, and every key there says of which: owner epochs are counted anew in each,
 * and organizations of two may have the same id. Where the events are in a file that this process has locked, no other
 * process wants to find it, so a start gives it a name of its own and begins with nothing, as it does in memory: the
 * file may be an older copy of one whose later days Redis knows.
 */
async function admissionOn(
  urls: readonly string[],
  config: Config,
  parts: StoreParts,
  of: EventsOpen & { readonly onFault: (orgId: string, sentence: string) => void },
) {
  const { clock, telemetry, onOpen } = parts;
  const opened = await openRedis({
    urls,
    isCluster: config.redisCluster,
    commandMsMax: REDIS_COMMAND_MS_MAX,
    onTrouble: (reason) => telemetry.alarm("redis_trouble", { reason }),
    onUnfit: (reason) => telemetry.alarm("redis_unfit", { reason }),
  });
  onOpen(() => opened.close());
  const redis = observeRedis(opened, parts);
  const isOurs = !of.renewIdentity;
  const shared = await nameOfHistory(of, redis, parts);
  const prefix = isOurs ? `${shared}${parts.instance}:` : shared;
  // Nobody reads what earlier starts left, so nobody waits for this, and the next start tries again.
  if (isOurs) void redis.removeAllBut(prefix, shared).catch(() => {});
  return {
    admission: createRedisAdmission({ redis, prefix, onFault: of.onFault }),
    directory: createRedisKeyDirectory({ redis, prefix, clock }),
    progress: isOurs ? undefined : createRedisProgress({ redis, prefix }),
    async redisAnswers() {
      // A write, as a replica that nobody has promoted, or a server that is full, answers everything else.
      const write = (_: unknown, at: number) =>
        redis.command("SET", `${prefix}probe-${at}`, 1, "PX", PROBE_MS);
      const writes = Array.from({ length: config.redisCluster ? PROBES : 1 }, write);
      // One that stands still is away, too: it must not take the time that whoever asks has.
      const answers = await Promise.all(
        writes.map((writing) => within(clock, PROBE_ANSWER_MS_MAX, writing).catch(() => TIMED_OUT)),
      );
      if (answers.every((answer) => answer === TIMED_OUT)) throw new Error("Redis takes no write");
      return answers.includes(TIMED_OUT) ? "partly" : "up";
    },
  };
}

/**
 * The name of the history that the event store has. A backup that a server's own means put back has the identity of what
 * went on from it. That is told by how far Redis was filled: to an event that the store does not have. Such a store gets
 * another identity before anything is written to it.
 */
async function nameOfHistory(
  { events, renewIdentity }: EventsOpen,
  redis: RedisConnection,
  { region, telemetry }: StoreParts,
): Promise<string> {
  for (;;) {
    const identity = await events.identity();
    const prefix = nameOnRedis(region, identity);
    if (!renewIdentity) return prefix;
    const told = await createRedisProgress({ redis, prefix }).told();
    if (told && !(await events.eventAt(told.position))) {
      telemetry.alarm("event_store_put_back", { position: String(told.position) });
      await renewIdentity(identity);
    } else if ((await events.identity()) === identity) {
      // Nobody has put another event there meanwhile: whoever does has given the store another identity first.
      return prefix;
    }
  }
}
