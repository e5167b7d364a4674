import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import type { ReadModels } from "#services/ports.ts";
import { checkPessimistic } from "./checks.ts";
import { CATALOGUE, type Asking, type Seen } from "./clients.ts";
import { createFaults, type Death, type FaultKind, type Faults } from "./faults.ts";
import { createProcess, type SimProcess } from "./process.ts";
import {
  startGatewayProcess,
  startLedgerProcess,
  startRegionProcess,
  type Alarm,
  type GatewayProcess,
  type LedgerProcess,
} from "./processes.ts";
import { diceOf, type Dice } from "./random.ts";
import { createServers, type Servers } from "./servers.ts";
import { createTimeline, type Timeline } from "./timeline.ts";
import type { BookEntry } from "./upstream.ts";
import { createWatch, type Watch } from "./watch.ts";
import { createWiring } from "./wiring.ts";

export interface WorldOptions {
  readonly seed: number;
  /** Kinds of fault that do not happen here. */
  readonly off?: readonly FaultKind[];
  /** `silence` unless it is said. */
  readonly death?: Death;
  readonly gateways?: number;
  /** While it gives a promise, an upstream holds that answer back. */
  readonly heldBack?: (requestId: string) => Promise<void> | undefined;
  readonly usualDelayMs?: number;
}

/** A region under a virtual clock and one seed: servers that outlive processes, and processes that come and go. */
export interface World {
  readonly seed: number;
  readonly death: Death;
  readonly timeline: Timeline;
  readonly faults: Faults;
  readonly servers: Servers;
  readonly watch: Watch;
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

/** Nor any, where one process at a time has the folder's lock: nobody else seals its journals or claims its store. */
const NEVER_LOCKED = new Set(["journal_sealed_under_us", "ledger_superseded"]);

/** Puts a world together; its ledger and its gateways start at once. */
export function createWorld(options: WorldOptions): World {
  const { seed, death = "silence", gateways: gatewayCount = 2 } = options;
  const timeline = createTimeline();
  const faults = createFaults(seed, new Set(options.off), death);
  const watch = createWatch(CATALOGUE);
  const dice = (purpose: string) => diceOf(seed, purpose);
  const { observe } = watch;
  const servers = createServers({
    timeline,
    observe,
    onFault: (orgId, sentence) => watch.broken("FAULT", `admission closes ${orgId}: ${sentence}`),
  });
  const closing = new AbortController();
  watch.follow(servers.store, closing.signal);

  const book: BookEntry[] = [];
  const seen: Seen[] = [];
  const alarms = new Map<string, number>();
  const alarm: Alarm = (what, facts) => {
    alarms.set(what, (alarms.get(what) ?? 0) + 1);
    if (NEVER.has(what) || (death !== "silence" && NEVER_LOCKED.has(what)))
      watch.broken("ALARM", `${what} ${JSON.stringify(facts)}`);
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

  const wiring = createWiring({
    death,
    timeline,
    faults,
    servers,
    watch,
    alarm,
    book,
    dice,
    heldBack: options.heldBack,
    usualDelayMs: options.usualDelayMs,
  });

  function soon(start: () => void): void {
    timeline.after(restartDice.between(RESTART_MS.low, RESTART_MS.high), start);
  }

  /** A process that cannot start ends, and whoever watches over it starts another. */
  const onFailed = (process: SimProcess, what: string) => (error: unknown) => {
    alarm(what, { error: String(error) });
    process.end();
  };

  function startGateway(place: number): void {
    const process = newProcess("gateway");
    const parts = wiring.gatewayParts(process, wiring.portsOf(process));
    gateways[place] = startGatewayProcess(
      process,
      parts,
      onFailed(process, "gateway_start_failed"),
    );
    process.onEnd(() => soon(() => startGateway(place)));
  }

  function startLedger(): void {
    const process = newProcess("ledger");
    const { store, admission, directory, readModels } = wiring.portsOf(process);
    const mine = startLedgerProcess(process, {
      store,
      admission,
      directory,
      alarm,
      readModels: readModels(ledgerDisk),
      onExit(why) {
        alarm(`ledger_exits`, { why });
        process.end();
      },
    });
    ledger = mine;
    process.onEnd(() => {
      if (ledger !== mine) return;
      if (faults.strikes("disk_lost")) ledgerDisk = createMemoryReadModels();
      soon(() => {
        if (ledger === mine) startLedger();
      });
    });
  }

  /** The whole region in one process. It has the folder's lock, so the next one starts when it has ended. */
  function startRegion(): void {
    servers.restartAdmission();
    const process = newProcess("region");
    const ports = wiring.portsOf(process);
    const started = startRegionProcess(
      process,
      {
        ...wiring.gatewayParts(process, ports),
        gatewayCount,
        readModels: ports.readModels(ledgerDisk),
      },
      onFailed(process, "region_start_failed"),
    );
    gateways.splice(0, gateways.length, ...started.gateways);
    ledger = started.ledger;
    process.onEnd(() => {
      if (faults.strikes("disk_lost")) ledgerDisk = createMemoryReadModels();
      soon(startRegion);
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

  const start = {
    lock: startRegion,
    "lock, apart": startRegion,
    silence() {
      startLedger();
      for (let place = 0; place < gatewayCount; place++) startGateway(place);
    },
  };
  start[death]();

  return {
    seed,
    death,
    timeline,
    faults,
    servers,
    watch,
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
      // Time passes also where nothing else is due.
      timeline.after(durationMs, () => {});
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
