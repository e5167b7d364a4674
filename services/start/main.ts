import { join, resolve } from "node:path";
import type { HostFacts } from "#domain/catalogue/build.ts";
import { systemClock } from "#infra/clock.ts";
import type { Config } from "#infra/config.ts";
import { readSecretFile, writeSecretFile } from "#infra/files.ts";
import { addProbes } from "#services/internal/operator-server.ts";
import { startSimulator } from "#services/simulator/server.ts";
import { banner, readyLine, type Addresses } from "./banner.ts";
import { gatewayParts, openBase, serveControl, serveInternal, type Base } from "./base.ts";
import {
  gatewayChecks,
  ledgerChecks,
  projectorChecks,
  readinessOf,
  storeChecks,
} from "./dependencies.ts";
import { completeDemo, type Demo } from "./demo.ts";
import { orTaken } from "./listening.ts";
import { openProcess, openSharedRegion, type ProcessName } from "./processes.ts";
import { openRegion } from "./region.ts";
import { findServers } from "./servers.ts";
import { leftBy, stopAll, type Stops } from "./stopping.ts";

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
  /** The servers that were found, for people. */
  readonly servers: Base["servers"];
  /** Waits until every organization is in place, which nothing else here waits for; false when `limitMs` passed first. */
  filled(limitMs: number): Promise<boolean>;
  /**
   * Drains, then closes everything in the order in which nothing is lost, within the drain time and ten seconds. Gives what
   * is left undone; rejects where something is lost, or hangs.
   */
  stop(): Promise<readonly string[]>;
}

/** So long a start waits until every key is in; whoever comes with one that is not is asked to come again. */
const KEYS_MS_MAX = 1000;

/**
 * Opens all processes of the region in this one, in a data folder that it locks first: on parts of its own, or on the
 * servers that the settings name, or that `find` finds. Rejects with the reason when a part cannot be opened, having closed
 * what was open.
 */
export async function openRelai(
  config: Config,
  options: { gatewayCount?: number; find?: typeof findServers } = {},
): Promise<Relai> {
  const stops: Stops = {};
  try {
    return await open(config, options, stops);
  } catch (error) {
    await stopAll(systemClock(), stops, config.drainMs).catch(() => {});
    throw error;
  }
}

async function open(
  given: Config,
  { gatewayCount = 1, find }: Exclude<Parameters<typeof openRelai>[1], undefined>,
  stops: Stops,
): Promise<Relai> {
  const dataDir = resolve(given.dataDir);
  const base = await openBase(given, stops, { process: "start", folder: dataDir, find });
  const { config, region, clock, random } = base;
  const projector = base.openProjector();
  const simulator = config.demo ? await openSimulator(base, dataDir) : undefined;
  const parts = await gatewayParts(base, simulator);
  const opened = base.areShared
    ? await openSharedRegion(base, parts, projector, gatewayCount)
    : await openRegion({ ...parts, projector, gatewayCount });
  stops.ledger = opened.stop;
  stops.gateways = async () => leftBy(await opened.drain(config.drainMs));
  await base.tellIfAhead();

  const gateways = opened.gateways.map(({ gateway }) => gateway);
  const checks = {
    ...storeChecks(base),
    ...gatewayChecks(base, gateways),
    ...ledgerChecks(base, opened.ledger),
    ...projectorChecks(base, projector),
  };
  const readiness = readinessOf(base, checks, () => gateways.some((one) => one.isStopping()));
  const { control, url, ready } = await serveControl(base, readiness, {
    projector,
    applied: (...asked) => opened.ledger.applied(...asked),
  });
  const internal = await serveInternal(base, readiness);
  await opened.ledger.filled("keys", KEYS_MS_MAX);
  const gatewayUrls: string[] = [];
  for (const { server } of opened.gateways) {
    const port = gatewayUrls.length === 0 ? config.gatewayPort : 0;
    addProbes(server, readiness);
    gatewayUrls.push(await base.listenAt(server, config.bind, port, "RELAI_GATEWAY_PORT"));
  }
  const [gateway = ""] = gatewayUrls;
  const demoFile = join(dataDir, "demo.env");
  const demo = config.demo
    ? await completeDemo(control, {
        region,
        random,
        baseUrl: gateway,
        file: {
          read: () => readSecretFile(demoFile),
          write: (text) => writeSecretFile(demoFile, text),
        },
      })
    : undefined;
  ready();
  return {
    addresses: { region, gateway, control: url, internal, simulator },
    gatewayUrls,
    demo,
    demoFile,
    servers: base.servers,
    models: [...base.catalogue.bindings.keys()],
    outside: base.outside,
    filled: (limitMs) => opened.ledger.filled("all", limitMs),
    stop: () => stopAll(clock, stops, config.drainMs),
  };
}

async function openSimulator(base: Base, dataDir: string): Promise<string> {
  const { clock, random, log, config } = base;
  const port = config.simulatorPort;
  const bookPath = join(dataDir, "simulator-book.jsonl");
  const warn = (message: string) => log.warn({}, message);
  // Only this process has anything to ask of it, whatever else is opened to others.
  const where = { host: "127.0.0.1", port, setting: "RELAI_SIMULATOR_PORT" };
  const simulator = await orTaken(
    () => startSimulator({ clock, random, port, bookPath, warn }),
    where,
  );
  base.stops.simulator = () => simulator.close();
  return simulator.url;
}

interface StartOptions {
  readonly config: Config;
  readonly json: boolean;
  readonly servers?: boolean;
}

/**
 * Runs all of relai until it is told to stop; prints where everything is. With `servers` on servers that are found, with the
 * demo that shows them unless the settings say otherwise.
 */
export function runStart(options: StartOptions): Promise<void> {
  const { json, servers = false } = options;
  return runUntilTold(json, async () => {
    const demo = servers && !options.config.sources.has("demo") ? true : options.config.demo;
    const config = { ...options.config, demo };
    const relai = await openRelai(config, servers ? { find: findServers } : {});
    const { addresses, models } = relai;
    const text = json
      ? `${readyLine(addresses, relai.demo)}\n`
      : banner(addresses, {
          demo: relai.demo,
          servers: relai.servers,
          demoFile: relai.demoFile,
          models: models.length,
          outside: relai.outside && { ...relai.outside, url: config.openaiBaseUrl },
          firstModel: models.includes("sim-small") ? "sim-small" : models[0],
          dataDir: resolve(config.dataDir),
        });
    return { text, stop: relai.stop };
  });
}

/** Runs one process of a region until it is told to stop; prints where it is. */
export function runProcess({ config, json }: StartOptions, name: ProcessName): Promise<void> {
  return runUntilTold(json, async () => {
    const { stop, process, region, url, internal } = await openProcess(config, name);
    const told = { ready: true, process, region, url: url ?? null, internal };
    const where = url === undefined ? "" : `  ${process.padEnd(9)} ${url}\n`;
    const shown = `relai ${process} (${region}) is ready\n${where}  internal  ${internal}/metrics\n`;
    return { text: json ? `${JSON.stringify(told)}\n` : shown, stop };
  });
}

/**
 * Opens something, prints its text, and ends it on SIGTERM or SIGINT; exits at once on a second signal at least a second
 * later (npm delivers one Ctrl-C twice).
 */
async function runUntilTold(
  json: boolean,
  open: () => Promise<{ text: string; stop: () => Promise<readonly string[]> }>,
): Promise<void> {
  const opened: { stop?: () => Promise<readonly string[]> } = {};
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
      const undone = (await opened.stop?.()) ?? [];
      for (const sentence of undone) process.stderr.write(`relai: left undone: ${sentence}\n`);
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
  const ready = await open();
  opened.stop = ready.stop;
  process.stdout.write(ready.text);
}
