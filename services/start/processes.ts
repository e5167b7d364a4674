import { resolve, join } from "node:path";
import { systemClock } from "#infra/clock.ts";
import { ConfigError, type Config } from "#infra/config.ts";
import type { WorkerProjector } from "#infra/read-models/worker-projector.ts";
import { createGateway } from "#services/gateway/gateway.ts";
import { createGatewayServer, stopGateway } from "#services/gateway/http/server.ts";
import { openWriter, registerGateway } from "#services/gateway/money/writer.ts";
import { addProbes } from "#services/internal/operator-server.ts";
import type { GatewayParts } from "#services/gateway/parts.ts";
import { isSeen } from "#services/seen.ts";
import { within } from "#services/waiting.ts";
import { newestOwner, type Author } from "#services/writers.ts";
import {
  distantLedgerCheck,
  gatewayChecks,
  ledgerChecks,
  projectorChecks,
  readinessOf,
  storeChecks,
} from "./dependencies.ts";
import { gatewayParts, openBase, serveControl, serveInternal, type Base } from "./base.ts";
import { liveAsLedger } from "./living-ledger.ts";
import type { Region } from "./region.ts";
import { leftBy, stopAll, type Stops } from "./stopping.ts";

/** The processes of a region that can run by themselves, each as often as wanted. */
export const PROCESSES = ["gateway", "ledger", "control"] as const;
export type ProcessName = (typeof PROCESSES)[number];

/** One of them, ready to serve. */
export interface OneProcess {
  readonly process: ProcessName;
  readonly region: string;
  /** Of the gateway or the control API; a ledger has none. */
  readonly url: string | undefined;
  readonly internal: string;
  /** Ends it in the order in which nothing is lost, within the drain time and ten seconds; gives what is left undone. */
  stop(): Promise<readonly string[]>;
}

/**
 * Opens one process of a region on the servers that the settings name. Rejects with a {@link ConfigError} where one is
 * missing, and with the reason where a part cannot be opened.
 */
export async function openProcess(config: Config, process: ProcessName): Promise<OneProcess> {
  requireServers(config, process);
  const stops: Stops = {};
  try {
    // A gateway keeps nothing in files. The others fold read models of their own.
    const folder = process === "gateway" ? undefined : join(resolve(config.dataDir), process);
    const base = await openBase({ ...config, demo: false }, stops, { process, folder });
    const url = await OPEN[process](base);
    return {
      process,
      region: base.region,
      ...url,
      stop: () => stopAll(base.clock, stops, config.drainMs),
    };
  } catch (error) {
    await stopAll(systemClock(), stops, config.drainMs).catch(() => {});
    throw error;
  }
}

function requireServers(config: Config, process: ProcessName): void {
  const { eventstoreUrl, redisUrl, adminToken } = config;
  if (eventstoreUrl === undefined || redisUrl === undefined)
    throw new ConfigError(
      `relai ${process} works on servers that it shares with others: set RELAI_EVENTSTORE_URL and RELAI_REDIS_URL, or run all in one with relai start.`,
    );
  if (process === "control" && adminToken === undefined)
    throw new ConfigError(
      "relai control needs RELAI_ADMIN_TOKEN: every one of them takes the same.",
    );
}

type Addresses = Pick<OneProcess, "url" | "internal">;

const OPEN: Record<ProcessName, (base: Base) => Promise<Addresses>> = {
  gateway: openGateway,
  ledger: openLedger,
  control: openControl,
};

/** A gateway that gives signs of life, and its server. Nothing listens yet. */
async function createServingGateway(parts: GatewayParts, instance: string) {
  const { store, admission, clock, telemetry, region } = parts;
  const author: Author = { region, actor: "gateway" };
  const writerParts = { store, admission, clock, telemetry, author, instance, beats: true };
  const writer = await openWriter(writerParts, await registerGateway(writerParts));
  const gateway = createGateway(parts, writer, author);
  return { gateway, server: createGatewayServer(gateway) };
}

async function openGateway(base: Base): Promise<Addresses> {
  const { config, stops } = base;
  const { gateway, server } = await createServingGateway(await gatewayParts(base), base.instance);
  stops.gateways = async () => leftBy([await stopGateway(gateway, server, config.drainMs)]);
  await base.tellIfAhead();
  const checks = { ...storeChecks(base), ...gatewayChecks(base, [gateway]) };
  const readiness = readinessOf(base, checks, gateway.isStopping);
  addProbes(server, readiness);
  const internal = await serveInternal(base, readiness);
  const { bind, gatewayPort } = config;
  const url = await base.listenAt(server, bind, gatewayPort, "RELAI_GATEWAY_PORT");
  return { url, internal };
}

async function openLedger(base: Base): Promise<Addresses> {
  const projector = base.openProjector();
  const lives = liveAsLedger(base, projector, "stand by");
  base.stops.ledger = lives.stop;
  const reading = { ...ledgerChecks(base, lives), ...projectorChecks(base, projector) };
  const checks = { ...storeChecks(base), ...reading };
  const internal = await serveInternal(base, readinessOf(base, checks, lives.isStopping));
  return { url: undefined, internal };
}

/**
 * A region in one process on servers that others may share. Its ledger serves at once, whoever did before: there is one
 * process to wait for. Later it stands by like any other.
 */
export async function openSharedRegion(
  base: Base,
  parts: GatewayParts,
  projector: WorkerProjector,
  gatewayCount: number,
): Promise<Region> {
  const { progress, admission, directory, clock } = base;
  if (!progress) throw new Error("a region on servers tells there how far it has come");
  const lives = liveAsLedger(base, projector, "claim");
  const gateways: Awaited<ReturnType<typeof createServingGateway>>[] = [];
  for (let number = 1; number <= gatewayCount; number += 1)
    gateways.push(await createServingGateway(parts, `${base.instance}/gateway-${number}`));
  return {
    ledger: {
      isReady: lives.isReady,
      isServing: lives.isServing,
      waiting: lives.waiting,
      applied: (...asked) => isSeen({ admission, directory, progress, clock }, ...asked),
      filled: lives.filled,
    },
    gateways,
    drain: (drainMs) =>
      Promise.all(gateways.map(({ gateway, server }) => stopGateway(gateway, server, drainMs))),
    stop: lives.stop,
  };
}

const FOLLOW_EVERY_MS = 1_000;

/**
 * A control process takes nothing, and so is never fenced: before it looks at what the ledger has carried in it goes to the
 * newest owner's server, once a second at most. It would stay for ever at one that is gone, or at an old primary which still
 * tells what once was.
 */
function followingOwner(base: Base): Base {
  const { admission, progress, clock, events, region } = base;
  let following = Promise.resolve<unknown>(undefined);
  let followedMs = -FOLLOW_EVERY_MS;

  async function toOwner(): Promise<void> {
    const owner = await newestOwner(events, region);
    if (owner) await admission.seek(owner.servers);
  }

  async function follow(): Promise<void> {
    if (clock.elapsed() - followedMs >= FOLLOW_EVERY_MS) {
      followedMs = clock.elapsed();
      following = within(clock, FOLLOW_EVERY_MS, toOwner()).catch(() => {});
    }
    await following;
  }

  return {
    ...base,
    admission: {
      ...admission,
      figures: (ask) => follow().then(() => admission.figures(ask)),
    },
    progress: progress && { ...progress, told: () => follow().then(() => progress.told()) },
  };
}

async function openControl(opened: Base): Promise<Addresses> {
  const base = followingOwner(opened);
  const { progress, admission, directory, clock, stops } = base;
  if (!progress) throw new Error("a control process waits for a ledger that is another one");
  let stopping = false;
  const projector = base.openProjector();
  const reading = { ...distantLedgerCheck(base, progress), ...projectorChecks(base, projector) };
  const readiness = readinessOf(base, { ...storeChecks(base), ...reading }, () => stopping);
  const { url, ready } = await serveControl(base, readiness, {
    projector,
    applied: (...asked) => isSeen({ admission, directory, progress, clock }, ...asked),
  });
  const close = stops.control;
  stops.control = (limitMs) => {
    stopping = true;
    return close?.(limitMs);
  };
  const internal = await serveInternal(base, readiness);
  ready();
  return { url, internal };
}
