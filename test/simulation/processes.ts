import { handleChat } from "#services/gateway/chat.ts";
import { createGateway, type Gateway } from "#services/gateway/gateway.ts";
import type { GatewayParts } from "#services/gateway/parts.ts";
import { openWriter, registerGateway, type Writer } from "#services/gateway/writer.ts";
import { keepAlive } from "#services/heartbeat.ts";
import { openJournal } from "#services/journal.ts";
import { startLedger, type Ledger } from "#services/ledger/ledger.ts";
import type { AdmissionStore, EventStore, KeyDirectory, ReadModels } from "#services/ports.ts";
import { startProjector } from "#services/projector/run.ts";
import { registerWriter } from "#services/writers.ts";
import { accountsProjection } from "#projections/accounts.ts";
import { keyDirectoryProjection } from "#projections/key-directory.ts";
import { createClient, requestOf, type Asking, type Seen } from "./clients.ts";
import type { SimProcess } from "./process.ts";
import type { Timeline } from "./timeline.ts";

/** The region of every simulated world. */
export const REGION = "us";

/** Told of things that a person should look at. */
export type Alarm = (what: string, facts: Readonly<Record<string, unknown>>) => void;

/** A gateway process: the real services of one, as its main would put them together. */
export interface GatewayProcess {
  readonly process: SimProcess;
  /** Undefined until it serves. */
  readonly serving: () => { readonly gateway: Gateway; readonly writer: Writer } | undefined;
  /** Requests that it has begun and not ended. */
  readonly running: () => number;
  ask(timeline: Timeline, asking: Asking): { seen: Seen; leave: () => void };
}

export function startGatewayProcess(
  process: SimProcess,
  parts: Omit<GatewayParts, "clock" | "instance" | "region" | "knownRegions">,
  onFailed: (error: unknown) => void,
): GatewayProcess {
  let serving: { gateway: Gateway; writer: Writer } | undefined;
  let running = 0;
  const { clock, name } = process;
  const author = { region: REGION, actor: "gateway" };

  async function start(): Promise<void> {
    const { store, telemetry } = parts;
    const writerParts = { store, clock, telemetry, author, instance: name, beats: true };
    const writer = await openWriter(writerParts, await registerGateway(writerParts));
    const gateway = createGateway(
      { ...parts, clock, instance: name, region: REGION, knownRegions: new Set([REGION]) },
      writer,
      author,
    );
    serving = { gateway, writer };
  }
  start().catch(onFailed);

  return {
    process,
    serving: () => serving,
    running: () => running,
    ask(timeline, asking) {
      const { seen, sink, leave } = createClient(timeline, process, asking);
      process.deliver(() => {
        if (!serving || serving.gateway.isStopping()) return leave();
        running += 1;
        serving.gateway
          .track(handleChat(serving.gateway, requestOf(asking), sink))
          .catch((error: unknown) => {
            parts.telemetry.alarm("request_failed", { error: String(error) });
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
    const ended = new AbortController();
    process.onEnd(() => ended.abort());
    const projector = await startProjector({
      store,
      readModels,
      clock,
      projections: [accountsProjection, keyDirectoryProjection],
      signal: ended.signal,
      onAlarm: alarm,
    });
    const writerEpoch = await registerWriter(store, clock, author, {
      process: "ledger",
      instance: name,
    });
    const journal = await openJournal({ store, clock, author, writerEpoch });
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
