import { buildCatalogue } from "#domain/catalogue/build.ts";
import type { Catalogue } from "#domain/catalogue/types.ts";
import { createMemoryReadModels } from "#infra/read-models/memory.ts";
import type { ReadModels } from "#services/ports.ts";
import { checkPessimistic } from "./checks.ts";
import type { Asking, Seen } from "./clients.ts";
import { createFaults, type FaultKind, type Faults } from "./faults.ts";
import { createLink } from "./link.ts";
import {
  simulatedAdmission,
  simulatedDirectory,
  simulatedReadModels,
  simulatedStore,
} from "./ports.ts";
import { createProcess, type SimProcess } from "./process.ts";
import {
  startGatewayProcess,
  startLedgerProcess,
  type Alarm,
  type GatewayProcess,
  type LedgerProcess,
} from "./processes.ts";
import { diceOf, randomFrom, type Dice } from "./random.ts";
import { createServers, type Servers } from "./servers.ts";
import { createTimeline, type Timeline } from "./timeline.ts";
import { simulatedUpstream, type BookEntry } from "./upstream.ts";
import { createWatch, type Watch } from "./watch.ts";

export interface WorldOptions {
  readonly seed: number;
  /** Kinds of fault that do not happen here. */
  readonly off?: readonly FaultKind[];
  readonly gateways?: number;
  /** While it gives a promise, an upstream holds that answer back. */
  readonly heldBack?: (requestId: string) => Promise<void> | undefined;
  readonly usualDelayMs?: number;
}

/** A region under a virtual clock and one seed: servers that outlive processes, and processes that come and go. */
export interface World {
  readonly seed: number;
  readonly timeline: Timeline;
  readonly faults: Faults;
  readonly servers: Servers;
  readonly watch: Watch;
  readonly catalogue: Catalogue;
  readonly book: readonly BookEntry[];
  readonly seen: readonly Seen[];
  readonly alarms: ReadonlyMap<string, number>;
  /** The gateways that are meant to run, by their place; each is restarted when it ends. */
  readonly gateways: readonly GatewayProcess[];
  readonly ledger: () => LedgerProcess;
  /** Every process that is alive, those too that were replaced while they were stopped. */
  readonly alive: () => SimProcess[];
  dice(purpose: string): Dice;
  ask(gateway: number, asking: Asking): Seen;
  /** Starts another ledger process in place of the one that is stopped; the stopped one may wake up beside it. */
  replaceLedger(): void;
  readonly steps: () => number;
  /** One callback and all that follows from it, then the invariants. Throws the first that is broken. */
  step(): Promise<void>;
  /** Steps until the condition holds; throws when it does not within so much virtual time. */
  until(what: string, holds: () => boolean, limitMs: number): Promise<void>;
  /** Steps until so much virtual time has passed. */
  pass(durationMs: number): Promise<void>;
  close(): Promise<void>;
}

const RESTART_MS = { low: 300, high: 3_000 };
const USUAL_MS = 6;

const LIMITS = {
  bodyBytesMax: 1 << 20,
  bodyDepthMax: 64,
  answerBytesMax: 8 << 20,
  inFlightBytesMax: 64 << 20,
  readOnMs: 20_000,
  readOnBytesMax: 1 << 20,
  clientIdleMs: 30_000,
};

/** Alarms that no fault of the world around may ever cause. */
const NEVER = new Set([
  "accounts_fault",
  "projection_stopped",
  "event_unreadable",
  "background_work_failed",
  "note_not_written",
  "request_failed",
  "read_model_ahead_of_store",
  "read_model_of_another_store",
]);

/** Puts a world together; its ledger and its gateways start at once. */
export function createWorld(options: WorldOptions): World {
  const { seed } = options;
  const timeline = createTimeline();
  const faults = createFaults(seed, new Set(options.off));
  const watch = createWatch();
  const dice = (purpose: string) => diceOf(seed, purpose);
  const { observe } = watch;
  const servers = createServers({
    timeline,
    observe,
    onFault: (orgId, sentence) => watch.broken("FAULT", `admission closes ${orgId}: ${sentence}`),
  });
  const closing = new AbortController();
  watch.follow(servers.store, closing.signal);

  const catalogue = buildCatalogue({ openai: false, simulator: true, processingArea: "us" });
  const host = { baseUrl: "http://simulator", credential: "simulated", hostKey: "simulated" };
  const book: BookEntry[] = [];
  const seen: Seen[] = [];
  const alarms = new Map<string, number>();
  const alarm: Alarm = (what, facts) => {
    alarms.set(what, (alarms.get(what) ?? 0) + 1);
    if (NEVER.has(what)) watch.broken("ALARM", `${what} ${JSON.stringify(facts)}`);
  };
  const processes = new Set<SimProcess>();
  const gateways: GatewayProcess[] = [];
  const restartDice = dice("restarts");
  let ledger: LedgerProcess;
  let ledgerDisk: ReadModels = createMemoryReadModels();
  let started = 0;
  let steps = 0;

  function newProcess(kind: SimProcess["kind"]): SimProcess {
    const name = `${kind}-${++started}`;
    const skewMs = faults.strikes("clock_skewed") ? dice(`skew ${name}`).between(-3_000, 3_000) : 0;
    const process = createProcess(timeline, name, kind, skewMs);
    processes.add(process);
    process.onEnd(() => processes.delete(process));
    return process;
  }

  function portsOf(process: SimProcess) {
    const usualMs = options.usualDelayMs ?? USUAL_MS;
    const link = (server: "store" | "admission" | "directory" | "disk", usual: number) =>
      createLink({
        timeline,
        faults,
        process,
        server,
        usualMs: usual,
        dice: dice(`delay ${process.name} ${server}`),
      });
    const ownDice = dice(`ports ${process.name}`);
    return {
      disk: link("disk", 1),
      store: simulatedStore({
        store: servers.store,
        link: link("store", usualMs),
        process,
        faults,
        dice: ownDice,
        isFull: servers.isFull,
      }),
      admission: simulatedAdmission({
        server: servers.admission,
        link: link("admission", usualMs),
        timeline,
        faults,
        dice: ownDice,
      }),
      directory: simulatedDirectory(servers.directory, link("directory", 1)),
    };
  }

  function startGateway(place: number): void {
    const process = newProcess("gateway");
    const { store, admission, directory } = portsOf(process);
    const upstream = simulatedUpstream(
      {
        timeline,
        faults,
        book,
        dice: dice(`upstream ${process.name}`),
        onSend({ requestId }) {
          const hold = watch.audit.holds.holds.get(requestId);
          // Of a gateway that was stopped in between the hold may have expired; it learns that from its journal later.
          const isHeld = hold && (hold.ended === undefined || hold.ended === "RequestExpired.v1");
          if (!isHeld)
            watch.broken("ONCE", `${requestId} is sent upstream and no hold of it is durable`);
        },
        ...(options.heldBack ? { heldBack: options.heldBack } : {}),
      },
      process,
    );
    gateways[place] = startGatewayProcess(
      process,
      {
        store,
        admission,
        directory,
        catalogue,
        upstream,
        limits: LIMITS,
        hosts: new Map([["simulator", host]]),
        random: randomFrom(dice(`random ${process.name}`)),
        telemetry: {
          alarm,
          requestDone: () => {},
        },
      },
      (error) => {
        alarm("gateway_start_failed", { error: String(error) });
        process.end();
      },
    );
    process.onEnd(() => {
      const { low, high } = RESTART_MS;
      timeline.after(restartDice.between(low, high), () => startGateway(place));
    });
  }

  function startLedger(): void {
    const process = newProcess("ledger");
    const { store, admission, directory, disk } = portsOf(process);
    const mine = startLedgerProcess(process, {
      store,
      admission,
      directory,
      alarm,
      readModels: simulatedReadModels(ledgerDisk, disk),
      onExit(why) {
        alarm(`ledger_exits`, { why });
        process.end();
      },
    });
    ledger = mine;
    process.onEnd(() => {
      if (ledger !== mine) return;
      if (faults.strikes("disk_lost")) ledgerDisk = createMemoryReadModels();
      const { low, high } = RESTART_MS;
      timeline.after(restartDice.between(low, high), () => {
        if (ledger === mine) startLedger();
      });
    });
  }

  async function step(): Promise<void> {
    steps += 1;
    if (!(await timeline.step())) throw new Error("nothing is due any more");
    checkPessimistic(servers.admission().state, watch.audit, watch);
    watch.hold();
  }

  async function until(what: string, holds: () => boolean, limitMs: number): Promise<void> {
    const endMs = timeline.nowMs() + limitMs;
    while (!holds()) {
      if (timeline.nowMs() > endMs) {
        watch.broken("LIVE", `${what}: not within ${limitMs} ms`);
        watch.hold();
      }
      await step();
    }
  }

  startLedger();
  for (let place = 0; place < (options.gateways ?? 2); place++) startGateway(place);

  return {
    seed,
    timeline,
    faults,
    servers,
    watch,
    catalogue,
    book,
    seen,
    alarms,
    gateways,
    dice,
    step,
    until,
    ledger: () => ledger,
    alive: () => [...processes],
    ask(place, asking) {
      const gateway = gateways[place];
      if (!gateway) throw new RangeError(`there is no gateway ${place}`);
      const asked = gateway.ask(timeline, asking);
      seen.push(asked.seen);
      return asked.seen;
    },
    replaceLedger() {
      ledgerDisk = createMemoryReadModels();
      startLedger();
    },
    steps: () => steps,
    async pass(durationMs) {
      const endMs = timeline.nowMs() + durationMs;
      for (let next = timeline.nextMs(); next !== undefined && next <= endMs;) {
        await step();
        next = timeline.nextMs();
      }
    },
    async close() {
      closing.abort();
      for (const process of processes) process.end();
      await servers.store.close();
    },
  };
}
