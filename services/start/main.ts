import { mkdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import type { FastifyInstance } from "fastify";
import { buildCatalogue, type HostFacts } from "#domain/catalogue/build.ts";
import { streams } from "#domain/events/events.ts";
import { ID_RANDOM_BYTES, makeId } from "#domain/ids.ts";
import { CLOCK_JUMP_MS, systemClock } from "#infra/clock.ts";
import { ConfigError, describeConfig, type Config } from "#infra/config.ts";
import { readSecretFile, writeSecretFile } from "#infra/files.ts";
import { lockFolder } from "#infra/folder-lock.ts";
import { createLog } from "#infra/log.ts";
import { openaiHostOf } from "#infra/openai-host.ts";
import { systemRandom } from "#infra/random.ts";
import { openWorkerProjector } from "#infra/read-models/worker-projector.ts";
import { createTelemetry } from "#infra/telemetry.ts";
import { createUpstream } from "#infra/upstream/undici.ts";
import { createControl } from "#services/control/commands.ts";
import { CONTROL_FILE_NAME, controlFileText } from "#services/control/control-file.ts";
import { closeControlServer, createControlServer } from "#services/control/server.ts";
import { createInternalServer } from "#services/internal/server.ts";
import type { EventStore } from "#services/ports.ts";
import { startSimulator } from "#services/simulator/server.ts";
import { banner, readyLine, type Addresses } from "./banner.ts";
import { completeDemo, type Demo } from "./demo.ts";
import type { RegionParts } from "./embedded.ts";
import { listen, orTaken } from "./listening.ts";
import { openRegion } from "./region.ts";
import { stopAll, type Stops } from "./stopping.ts";
import { openStores } from "./stores.ts";

/** Everything of one relai in this process, ready to serve. */
export interface Relai {
  readonly addresses: Addresses;
  /** One per gateway; the first is the one in `addresses`. */
  readonly gatewayUrls: readonly string[];
  readonly demo: Demo | undefined;
  readonly models: readonly string[];
  /** OpenAI's host when it processes in another area than this region's: none of its models is served. */
  readonly outside: HostFacts | undefined;
  readonly demoFile: string;
  /** Drains, then closes everything in the order in which nothing is lost, within the drain time and ten seconds. */
  stop(): Promise<void>;
}

const KNOWN_REGIONS = ["us", "eu"];
const PROJECTOR_ENTRY = new URL("../projector/main.ts", import.meta.url);
const SIMULATOR_CREDENTIAL = "sim-embedded";

/**
 * Opens all processes of the region in this one, on embedded parts, in a data folder that it locks first. Rejects with
 * the reason when a part cannot be opened, having closed what was open.
 */
export async function openRelai(
  config: Config,
  options: { gatewayCount?: number } = {},
): Promise<Relai> {
  const stops: Stops = {};
  try {
    return await open(config, options.gatewayCount ?? 1, stops);
  } catch (error) {
    await stopAll(systemClock(), stops, config.drainMs).catch(() => {});
    throw error;
  }
}

async function open(config: Config, gatewayCount: number, stops: Stops): Promise<Relai> {
  refuseLoop(config);
  const region = config.regions[0] ?? "us";
  const openai = openaiHostOf(config, region);
  const dataDir = resolve(config.dataDir);
  const lock = lockFolder(dataDir);
  stops.folder = () => lock.release();
  const folder = join(dataDir, region);
  mkdirSync(join(folder, "read-models"), { recursive: true, mode: 0o700 });

  const clock = systemClock();
  const random = systemRandom();
  const log = createLog({ level: config.logLevel });
  const instance = Buffer.from(random.bytes(12)).toString("hex");
  const catalogue = buildCatalogue({
    openai: openai ?? false,
    simulator: config.demo,
    processingArea: region,
  });
  const telemetry = createTelemetry({ log, models: catalogue.bindings });
  const outside = openai?.processingArea === region ? undefined : openai;
  if (outside) {
    const { processingArea } = outside;
    telemetry.alarm("host_outside_area", { host: "openai", processingArea, region });
  }
  const stores = await openStores(config, {
    clock,
    random,
    telemetry,
    folder,
    region,
    instance,
    onOpen(close) {
      const before = stops.store;
      stops.store = async () => {
        await close();
        await before?.();
      };
    },
  });
  const { events: store, admission, directory } = stores;
  const projector = openWorkerProjector({
    entry: PROJECTOR_ENTRY,
    events: stores.eventsPlace,
    folder: join(folder, "read-models"),
    clock,
    onAlarm: telemetry.alarm,
  });
  stops.projector = () => projector.close();
  const simulator = config.demo ? await openSimulator(config, dataDir, log.warn, stops) : undefined;
  const upstream = createUpstream({
    clock,
    connectMs: config.upstreamConnectMs,
    firstByteMs: config.upstreamFirstByteMs,
    idleMs: config.upstreamIdleMs,
    connectionsMax: config.upstreamConnectionsMax,
    waitingMax: config.upstreamWaitingMax,
  });
  stops.upstream = () => upstream.close();
  const opened = await openRegion({
    region,
    knownRegions: new Set([...KNOWN_REGIONS, ...config.regions]),
    instance,
    store,
    admission,
    directory,
    catalogue,
    hosts: hostsOf(config, { simulator, openai: !outside }),
    upstream,
    clock,
    random,
    telemetry,
    projector,
    gatewayCount,
    death: stores.areShared ? "silence" : "lock",
    limits: {
      bodyBytesMax: config.bodyBytesMax,
      bodyDepthMax: config.bodyDepthMax,
      answerBytesMax: config.answerBytesMax,
      inFlightBytesMax: config.inFlightBytesMax,
      readOnMs: config.readOnMs,
      readOnBytesMax: config.readOnBytes,
      clientIdleMs: config.upstreamIdleMs,
    },
  });
  stops.ledger = () => opened.stop();
  stops.gateways = () => opened.drain(config.drainMs);
  await tellIfAhead(store, { region, clock, telemetry });

  const operator = {
    telemetry,
    ready: () => ({
      event_store: opened.gateways.every(({ gateway }) => gateway.writer.life() !== undefined),
      ledger: opened.ledger.isReady(),
    }),
    isStopping: () => opened.gateways.some(({ gateway }) => gateway.isStopping()),
  };
  const control = createControl({
    store,
    clock,
    random,
    region,
    admission,
    projector,
    author: { region, actor: "control" },
    applied: (position, limitMs) => opened.ledger.applied(position, limitMs),
  });
  const adminToken = adminTokenOf(config, dataDir, random.bytes(32));
  const controlServer = createControlServer({
    control,
    adminToken,
    settings: describeConfig(config),
    clock,
    random,
    ...operator,
  });
  const controlFile = join(dataDir, CONTROL_FILE_NAME);
  stops.control = () => {
    rmSync(controlFile, { force: true });
    return closeControlServer(controlServer, clock);
  };
  const internal = createInternalServer(operator);
  stops.internal = () => internal.close();
  const newId = () => makeId("req", clock.now(), random.bytes(ID_RANDOM_BYTES));
  const listenAt = (server: FastifyInstance, host: string, port: number, setting: string) =>
    listen(server, newId, { host, port, setting });
  const { bind, controlBind, controlPort, internalBind, internalPort } = config;
  const controlUrl = await listenAt(controlServer, controlBind, controlPort, "RELAI_CONTROL_PORT");
  const internalUrl = await listenAt(internal, internalBind, internalPort, "RELAI_INTERNAL_PORT");
  const gatewayUrls: string[] = [];
  for (const { server } of opened.gateways) {
    const port = gatewayUrls.length === 0 ? config.gatewayPort : 0;
    gatewayUrls.push(await listenAt(server, bind, port, "RELAI_GATEWAY_PORT"));
  }
  const [gatewayUrl = ""] = gatewayUrls;
  const demoFile = join(dataDir, "demo.env");
  const demo = config.demo
    ? await completeDemo(control, {
        region,
        random,
        baseUrl: gatewayUrl,
        file: {
          read: () => readSecretFile(demoFile),
          write: (text) => writeSecretFile(demoFile, text),
        },
      })
    : undefined;
  writeSecretFile(controlFile, controlFileText({ url: controlUrl, token: adminToken }));
  return {
    addresses: {
      region,
      gateway: gatewayUrl,
      control: controlUrl,
      internal: internalUrl,
      simulator,
    },
    gatewayUrls,
    demo,
    demoFile,
    models: [...catalogue.bindings.keys()],
    outside,
    stop: () => stopAll(clock, stops, config.drainMs),
  };
}

/**
 * The store's time never goes back. Where an earlier start dated events in a future, what this start has recorded is
 * dated there too, until the clock has caught up.
 */
async function tellIfAhead(
  store: EventStore,
  { region, clock, telemetry }: Pick<RegionParts, "region" | "clock" | "telemetry">,
): Promise<void> {
  const newest = { from: "end", direction: "backward", max: 1 } as const;
  const [event] = await store.read(streams.writers(region), newest);
  const aheadMs = (event?.recordedAt ?? 0) - clock.now();
  if (aheadMs > CLOCK_JUMP_MS) telemetry.alarm("events_dated_ahead", { aheadMs });
}

async function openSimulator(
  config: Config,
  dataDir: string,
  warn: (facts: Record<string, never>, message: string) => void,
  stops: Stops,
): Promise<string> {
  const options = {
    clock: systemClock(),
    random: systemRandom(),
    port: config.simulatorPort,
    bookPath: join(dataDir, "simulator-book.jsonl"),
    warn: (message: string) => warn({}, message),
  };
  // Only this process has anything to ask of it, whatever else is opened to others.
  const where = { host: "127.0.0.1", port: options.port, setting: "RELAI_SIMULATOR_PORT" };
  const simulator = await orTaken(() => startSimulator(options), where);
  stops.simulator = () => simulator.close();
  return simulator.url;
}

/** The hosts that serve, each with its credential; `openai` is false where it processes outside of the region. */
function hostsOf(config: Config, serving: { simulator: string | undefined; openai: boolean }) {
  const hosts = new Map<string, { baseUrl: string; credential: string; hostKey: string }>();
  if (serving.simulator !== undefined) {
    hosts.set("simulator", {
      baseUrl: `${serving.simulator}/openai/v1`,
      credential: SIMULATOR_CREDENTIAL,
      hostKey: "embedded",
    });
  }
  if (config.openaiApiKey !== undefined && serving.openai) {
    hosts.set("openai", {
      baseUrl: config.openaiBaseUrl,
      credential: config.openaiApiKey,
      hostKey: "OPENAI_API_KEY",
    });
  }
  return hosts;
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

/**
 * Runs relai until it is told to stop: prints where everything is, drains on SIGTERM or SIGINT, and exits at once on a
 * second signal at least a second later (npm delivers one Ctrl-C twice).
 */
export async function runStart(options: { config: Config; json: boolean }): Promise<void> {
  const { config, json } = options;
  const started: { relai?: Relai } = {};
  let signalledAt: number | undefined;
  const clock = systemClock();
  const onSignal = () => {
    if (signalledAt !== undefined) {
      if (clock.elapsed() - signalledAt >= 1000) process.exit(130);
      return;
    }
    signalledAt = clock.elapsed();
    if (!json) process.stdout.write("relai is draining; a second Ctrl-C stops at once\n");
    void stop();
  };
  async function stop(): Promise<void> {
    try {
      await started.relai?.stop();
      process.exit(0);
    } catch (error) {
      process.stderr.write(
        `relai: the stop was not clean: ${error instanceof Error ? error.message : "unknown"}\n`,
      );
      process.exit(1);
    }
  }
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  const relai = await openRelai(config);
  started.relai = relai;
  const { addresses, demo } = relai;
  const text = json
    ? `${readyLine(addresses, demo)}\n`
    : banner(addresses, {
        demo,
        demoFile: relai.demoFile,
        models: relai.models.length,
        outside: relai.outside && { ...relai.outside, url: config.openaiBaseUrl },
        firstModel: relai.models.includes("sim-small") ? "sim-small" : relai.models[0],
        dataDir: resolve(config.dataDir),
      });
  process.stdout.write(text);
}
