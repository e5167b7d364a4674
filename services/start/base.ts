import { mkdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import type { FastifyInstance } from "fastify";
import { buildCatalogue, type HostFacts } from "#domain/catalogue/build.ts";
import { streams } from "#domain/events/events.ts";
import { ID_RANDOM_BYTES, makeId } from "#domain/ids.ts";
import { CLOCK_JUMP_MS, systemClock } from "#infra/clock.ts";
import { ConfigError, describeConfig, tracesUrlOf, type Config } from "#infra/config.ts";
import { readSecretFile, writeSecretFile } from "#infra/files.ts";
import { lockFolder } from "#infra/folder-lock.ts";
import { createLog } from "#infra/telemetry/log.ts";
import { openaiHostOf } from "#infra/openai-host.ts";
import { systemRandom } from "#infra/random.ts";
import { openWorkerProjector, type WorkerProjector } from "#infra/read-models/worker-projector.ts";
import { createTelemetry } from "#infra/telemetry/telemetry.ts";
import { createUpstream } from "#infra/upstream/undici.ts";
import { createControl, type ControlParts } from "#services/control/commands.ts";
import { CONTROL_FILE_NAME, controlFileText } from "#services/control/control-file.ts";
import { closeControlServer, createControlServer } from "#services/control/server.ts";
import type { GatewayParts } from "#services/gateway/parts.ts";
import type { Readiness } from "#services/internal/readiness.ts";
import { createInternalServer } from "#services/internal/server.ts";
import type { Telemetry } from "#services/ports.ts";
import { within } from "#services/waiting.ts";
import { listen } from "./listening.ts";
import type { findServers } from "./servers.ts";
import { endOr, NOT_FOLDED, type Stops } from "./stopping.ts";
import { openStores } from "./stores.ts";

/** What the processes of a region are put together from, the one that is all of them and each by itself. */
export type Base = Awaited<ReturnType<typeof openBase>>;

const KNOWN_REGIONS = ["us", "eu"];
const PROJECTOR_ENTRY = new URL("../projector/main.ts", import.meta.url);
const SIMULATOR_CREDENTIAL = "sim-embedded";
/** Traces are no books: a stop waits this long for a collector that does not answer, and is clean all the same. */
const TRACES_MS_MAX = 1_000;
const MARGIN_MS = 50;

/**
 * Opens what every process has: the stores that the settings name, clock, log and metrics. `folder` is locked for this
 * process where there is one; then `find` may find servers that the settings do not name. What is open is noted in `stops`,
 * also when a later part fails. What the process runs with is logged once.
 */
export async function openBase(
  given: Config,
  stops: Stops,
  options: {
    readonly process: string;
    readonly folder: string | undefined;
    readonly find?: typeof findServers | undefined;
  },
) {
  const { process, folder, find } = options;
  const region = given.regions[0] ?? "us";
  // What is wrong with the settings is said before anything is written.
  refuseLoop(given);
  const openai = openaiHostOf(given, region);
  const clock = systemClock();
  const random = systemRandom();
  const log = createLog({ level: given.logLevel });
  const regionFolder = folder === undefined ? undefined : join(folder, region);
  if (folder !== undefined && regionFolder !== undefined) {
    const lock = lockFolder(folder);
    stops.folder = () => lock.release();
    mkdirSync(join(regionFolder, "read-models"), { recursive: true, mode: 0o700 });
  }
  const servers = folder === undefined ? undefined : await find?.(given, folder);
  if (servers) stops.servers = (limitMs) => servers.stop(limitMs / 2);
  const config = servers?.config ?? given;
  const settings = describeConfig(config);
  const inForce = Object.fromEntries(settings.map(({ name, value }) => [name, value]));
  log.info({ process, settings: inForce }, "started with these settings");
  const catalogue = buildCatalogue({
    openai: openai ?? false,
    simulator: config.demo,
    processingArea: region,
  });
  const telemetry = createTelemetry({ log, models: catalogue.bindings });
  const instance = Buffer.from(random.bytes(12)).toString("hex");
  const stores = await openStores(config, {
    clock,
    random,
    telemetry,
    folder: regionFolder,
    region,
    instance,
    onOpen(close) {
      const before = stops.store;
      stops.store = async (limitMs) => {
        const begunMs = clock.elapsed();
        await close(limitMs);
        await before?.(limitMs - (clock.elapsed() - begunMs));
      };
    },
  });
  const newest = { from: "end", direction: "backward", max: 1 } as const;
  /**
   * The store's time never goes back. Where an earlier start dated events in a future, what this start has recorded is
   * dated there too, until the clock has caught up.
   */
  async function tellIfAhead(): Promise<void> {
    const [event] = await stores.events.read(streams.writers(region), newest);
    const aheadMs = (event?.recordedAt ?? 0) - clock.now();
    if (aheadMs > CLOCK_JUMP_MS) telemetry.alarm("events_dated_ahead", { aheadMs });
  }
  /** The read models of this process, folded in a thread of their own into its folder. */
  function openProjector(): WorkerProjector {
    if (regionFolder === undefined) throw new Error("read models need a folder");
    const projector = openWorkerProjector({
      entry: PROJECTOR_ENTRY,
      events: stores.eventsPlace,
      folder: join(regionFolder, "read-models"),
      clock,
      onAlarm: telemetry.alarm,
    });
    stops.projector = (limitMs) => endOr(clock, limitMs, projector.close(), () => NOT_FOLDED);
    return projector;
  }
  const newId = () => makeId("req", clock.now(), random.bytes(ID_RANDOM_BYTES));
  return {
    config,
    settings,
    stops,
    region,
    clock,
    random,
    log,
    telemetry,
    catalogue,
    instance,
    /** The servers that were found, for people. */
    servers: servers?.told ?? [],
    ...stores,
    /** OpenAI's host when it processes in another area than this region's: none of its models is served. */
    outside: openai?.processingArea === region ? undefined : openai,
    tellIfAhead,
    openProjector,
    listenAt: (server: FastifyInstance, host: string, port: number, setting: string) =>
      listen(server, newId, { host, port, setting }),
  };
}

/** What a gateway of this process is made of, its client of upstreams opened. `simulator` is the address of one here. */
export async function gatewayParts(base: Base, simulator?: string): Promise<GatewayParts> {
  const { config, region, clock, telemetry, outside } = base;
  if (outside) {
    const { processingArea } = outside;
    telemetry.alarm("host_outside_area", { host: "openai", processingArea, region });
  }
  const upstream = createUpstream({
    clock,
    connectMs: config.upstreamConnectMs,
    firstByteMs: config.upstreamFirstByteMs,
    idleMs: config.upstreamIdleMs,
    connectionsMax: config.upstreamConnectionsMax,
    waitingMax: config.upstreamWaitingMax,
  });
  base.stops.upstream = () => upstream.close();
  const requestTraced = await openTracesIfAsked(base);
  return {
    region,
    knownRegions: new Set([...KNOWN_REGIONS, ...config.regions]),
    instance: base.instance,
    store: base.events,
    admission: base.admission,
    directory: base.directory,
    catalogue: base.catalogue,
    hosts: hostsOf(config, simulator, outside),
    upstream,
    clock,
    random: base.random,
    telemetry: { ...telemetry, requestTraced },
    limits: {
      bodyBytesMax: config.bodyBytesMax,
      bodyDepthMax: config.bodyDepthMax,
      answerBytesMax: config.answerBytesMax,
      inFlightBytesMax: config.inFlightBytesMax,
      readOnMs: config.readOnMs,
      readOnBytesMax: config.readOnBytes,
      clientIdleMs: config.upstreamIdleMs,
    },
  };
}

/** Where requests are told for a collector of traces; undefined where the settings name none, and then nothing is loaded. */
async function openTracesIfAsked(base: Base): Promise<Telemetry["requestTraced"]> {
  const { config, instance, region, clock, telemetry } = base;
  const url = tracesUrlOf(config);
  if (url === undefined) return undefined;
  const { openTraces } = await import("#infra/telemetry/traces.ts");
  const { alarm, spansCounted: counted } = telemetry;
  const traces = openTraces({ instance, region, url, alarm, counted });
  base.stops.traces = async (limitMs) => {
    // Whether they all went is no part of whether the stop was clean.
    await within(clock, Math.min(limitMs - MARGIN_MS, TRACES_MS_MAX), traces.close());
  };
  return traces.requestTraced;
}

/** The hosts that serve, each with its credential. */
function hostsOf(config: Config, simulator: string | undefined, outside: HostFacts | undefined) {
  const hosts = new Map<string, { baseUrl: string; credential: string; hostKey: string }>();
  if (simulator !== undefined) {
    hosts.set("simulator", {
      baseUrl: `${simulator}/openai/v1`,
      credential: SIMULATOR_CREDENTIAL,
      hostKey: "embedded",
    });
  }
  if (config.openaiApiKey !== undefined && !outside) {
    hosts.set("openai", {
      baseUrl: config.openaiBaseUrl,
      credential: config.openaiApiKey,
      hostKey: "OPENAI_API_KEY",
    });
  }
  return hosts;
}

/** A gateway that is its own upstream would hold money for every round until nothing is left. */
function refuseLoop(config: Config): void {
  const upstream = new URL(config.openaiBaseUrl);
  const isHere = ["127.0.0.1", "localhost", "[::1]", config.bind].includes(upstream.hostname);
  const port = upstream.port === "" ? 80 : Number(upstream.port);
  if (config.openaiApiKey !== undefined && isHere && port === config.gatewayPort) {
    throw new ConfigError(
      "OPENAI_BASE_URL names relai's own gateway, so it would call itself; unset OPENAI_BASE_URL and OPENAI_API_KEY in this shell",
    );
  }
}

/** Serves the control API. The command line finds it by a file in the data folder once `ready` was called. */
export async function serveControl(
  base: Base,
  readiness: Readiness,
  { projector, applied }: Pick<ControlParts, "projector" | "applied">,
) {
  const { config, region, clock, random, telemetry, stops } = base;
  const control = createControl({
    store: base.events,
    clock,
    random,
    region,
    admission: base.admission,
    projector,
    author: { region, actor: "control" },
    applied,
  });
  const dataDir = resolve(config.dataDir);
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const adminToken = adminTokenOf(config, dataDir, random.bytes(32));
  const { settings } = base;
  const parts = { control, adminToken, settings, clock, random, telemetry, readiness };
  const server = createControlServer(parts);
  const file = join(dataDir, CONTROL_FILE_NAME);
  stops.control = () => {
    rmSync(file, { force: true });
    return closeControlServer(server, clock);
  };
  const { controlBind, controlPort } = config;
  const url = await base.listenAt(server, controlBind, controlPort, "RELAI_CONTROL_PORT");
  return {
    control,
    url,
    ready: () => writeSecretFile(file, controlFileText({ url, token: adminToken })),
  };
}

function adminTokenOf(config: Config, dataDir: string, fresh: Uint8Array): string {
  if (config.adminToken !== undefined) return config.adminToken;
  const path = join(dataDir, "admin-token");
  const kept = readSecretFile(path)?.trim();
  if (kept) return kept;
  const made = Buffer.from(fresh).toString("base64url");
  writeSecretFile(path, `${made}\n`);
  return made;
}

/** Serves the probes, the metrics and the settings; gives the address. */
export function serveInternal(base: Base, readiness: Readiness): Promise<string> {
  const { config, settings, telemetry, stops } = base;
  const internal = createInternalServer({ telemetry, readiness, settings });
  stops.internal = () => internal.close();
  const { internalBind, internalPort } = config;
  return base.listenAt(internal, internalBind, internalPort, "RELAI_INTERNAL_PORT");
}
