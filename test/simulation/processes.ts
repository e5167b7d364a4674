import { handleChat } from "#test/worlds/chat-way.ts";
import { createGateway, type Gateway } from "#services/gateway/gateway.ts";
import type { GatewayParts } from "#services/gateway/parts.ts";
import { openWriter, registerGateway, type Writer } from "#services/gateway/money/writer.ts";
import { keepAlive } from "#services/journal.ts";
import { openJournal } from "#services/journal.ts";
import { startLedger, type Ledger } from "#services/ledger/ledger.ts";
import type {
  AdmissionStore,
  EventStore,
  KeyDirectory,
  Projector,
  ReadModels,
  Telemetry,
} from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import { openEmbedded, type EmbeddedRegion } from "#services/start/embedded.ts";
import { registerWriter } from "#services/writers.ts";
import { createClient, requestOf, type Asking, type Seen } from "./clients.ts";
import type { SimProcess } from "./process.ts";
import type { Timeline } from "./timeline.ts";

/** The region of every simulated world. */
export const REGION = "us";

/** Told of things that a person should look at. */
export type Alarm = (what: string, facts: Readonly<Record<string, unknown>>) => void;

interface Serving {
  readonly gateway: Gateway;
  readonly writer: Writer;
}

/** A gateway as the world meets it: in a process of its own, or in one with the ledger. */
export interface GatewayProcess {
  readonly process: SimProcess;
  /** Undefined until it serves. */
  readonly serving: () => Serving | undefined;
  /** Requests that it has begun and not ended. */
  readonly running: () => number;
  ask(timeline: Timeline, asking: Asking): { seen: Seen; leave: () => void };
  /** Stops its process as an operator does: it drains, seals its own journals, and ends. */
  stop(drainMs: number): void;
}

/** What a gateway is given by the world; its process brings the rest. */
export type GatewayWorldParts = Omit<
  GatewayParts,
  "clock" | "instance" | "region" | "knownRegions"
>;

function gatewayPartsOf({ clock, name }: SimProcess, parts: GatewayWorldParts): GatewayParts {
  return { ...parts, clock, instance: name, region: REGION, knownRegions: new Set([REGION]) };
}

function gatewayProcess(
  process: SimProcess,
  telemetry: Telemetry,
  serving: () => Serving | undefined,
  stop: (drainMs: number) => Promise<void> | undefined,
): GatewayProcess {
  let running = 0;
  return {
    process,
    serving,
    running: () => running,
    stop: (drainMs) => process.deliver(() => void stop(drainMs)?.then(process.end)),
    ask(timeline, asking) {
      const { seen, sink, leave } = createClient(timeline, process, asking);
      process.deliver(() => {
        const gateway = serving()?.gateway;
        if (!gateway || gateway.isStopping()) return leave();
        running += 1;
        gateway
          .track(handleChat(gateway, requestOf(asking), sink))
          .catch((error: unknown) => {
            telemetry.alarm("request_failed", { error: String(error) });
            sink.destroy();
          })
          .finally(() => {
            running -= 1;
          });
      });
      return { seen, leave };
    },
  };
}

/** A gateway process: the real services of one, as its main would put them together. */
export function startGatewayProcess(
  process: SimProcess,
  parts: GatewayWorldParts,
  onFailed: (error: unknown) => void,
): GatewayProcess {
  let serving: Serving | undefined;
  const { clock, name } = process;
  const author = { region: REGION, actor: "gateway" };

  async function start(): Promise<void> {
    const { store, admission, telemetry } = parts;
    const writerParts = { store, admission, clock, telemetry, author, instance: name, beats: true };
    const writer = await openWriter(writerParts, await registerGateway(writerParts));
    serving = { gateway: createGateway(gatewayPartsOf(process, parts), writer, author), writer };
  }
  start().catch(onFailed);
  return gatewayProcess(
    process,
    parts.telemetry,
    () => serving,
    async (drainMs) => void (await serving?.gateway.stop(drainMs)),
  );
}

/** The whole region in one process on a folder that it has locked: the product's own assembly of it. */
export function startRegionProcess(
  process: SimProcess,
  parts: GatewayWorldParts & { readonly gatewayCount: number; readonly readModels: ReadModels },
  onFailed: (error: unknown) => void,
): { gateways: GatewayProcess[]; ledger: LedgerProcess } {
  const { store, telemetry, gatewayCount } = parts;
  let opened: EmbeddedRegion | undefined;

  async function start(): Promise<void> {
    const projector = await projectorOf(process, store, parts.readModels, telemetry.alarm);
    opened = await openEmbedded({
      ...gatewayPartsOf(process, parts),
      gatewayCount,
      projector,
    });
  }
  async function stop(drainMs: number): Promise<void> {
    await Promise.all(opened?.gateways.map((gateway) => gateway.stop(drainMs)) ?? []);
    await opened?.ledger.stop();
  }
  start().catch(onFailed);
  const gateways = Array.from({ length: gatewayCount }, (_, place) => {
    const serving = () => {
      const gateway = opened?.gateways[place];
      return gateway && { gateway, writer: gateway.writer };
    };
    return gatewayProcess(process, telemetry, serving, stop);
  });
  return { gateways, ledger: { process, ledger: () => opened?.ledger } };
}

function projectorOf(
  process: SimProcess,
  store: EventStore,
  readModels: ReadModels,
  onAlarm: Telemetry["alarm"],
): Promise<Projector> {
  const ended = new AbortController();
  process.onEnd(() => ended.abort());
  return startProjector({
    store,
    readModels,
    clock: process.clock,
    signal: ended.signal,
    onAlarm,
  });
}

export interface LedgerProcess {
  readonly process: SimProcess;
  readonly ledger: () => Ledger | undefined;
}

export interface LedgerProcessParts {
  readonly store: EventStore;
  readonly admission: AdmissionStore;
  readonly directory: KeyDirectory;
  readonly readModels: ReadModels;
  readonly alarm: Alarm;
  /** Told when the process has nothing more to do here; it is then ended. */
  readonly onExit: (why: string) => void;
}

/** A ledger process with signs of life, its projector beside it. It exits when it is superseded, sealed, or fails. */
export function startLedgerProcess(process: SimProcess, parts: LedgerProcessParts): LedgerProcess {
  const { clock, name } = process;
  const { store, admission, directory, readModels, alarm, onExit } = parts;
  const author = { region: REGION, actor: "ledger" };
  let ledger: Ledger | undefined;

  async function start(): Promise<void> {
    const projector = await projectorOf(process, store, readModels, alarm);
    const writerEpoch = await registerWriter(store, clock, author, {
      process: "ledger",
      instance: name,
    });
    const journal = await openJournal({ store, clock, telemetry: { alarm }, author, writerEpoch });
    keepAlive(journal, clock, author);
    void journal.sealedByOther.then(() => onExit("sealed"));
    ledger = await startLedger({
      store,
      clock,
      author,
      admission,
      directory,
      projector,
      writerEpoch,
      telemetry: { alarm, requestDone: () => {} },
      death: { by: "silence" },
    });
    await ledger.superseded;
    onExit("superseded");
  }
  start().catch((error: unknown) => onExit(String(error)));
  return { process, ledger: () => ledger };
}
