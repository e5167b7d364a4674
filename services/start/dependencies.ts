import { streams } from "#domain/events/events.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import { createReadiness, type Check, type DependencyState } from "#services/internal/readiness.ts";
import type { Lag, Progress, Projector } from "#services/ports.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";
import type { Base } from "./base.ts";

/** What each process needs to do its work, as its probes and its metrics tell it. */

type Checks = Readonly<Record<string, Check>>;

/** A reader that is behind by more than this does its work late. */
const BEHIND_MS = 5_000;
/** More than a ledger's sign of life after the last one: whoever serves has carried something in such a time. */
const SILENT_MS = 15_000;
const STATE_MS_MAX = 1_000;
/** With the writes to Redis that follow one which takes longer it is within the time that a look has. */
const LOOKUP_MS_MAX = 300;
const NEWEST = { from: "end", direction: "backward", max: 1 } as const;
const VALUES: Readonly<Record<DependencyState, number>> = { up: 2, partly: 1, down: 0 };

/** The readiness of a process, which its metrics tell too. */
export function readinessOf(base: Base, checks: Checks, isStopping: () => boolean) {
  const { clock, telemetry } = base;
  const readiness = createReadiness({ clock, checks, isStopping });
  telemetry.onScrape(async ({ dependencyState }) => {
    for (const [dependency, { state }] of Object.entries(await readiness.dependencies()))
      dependencyState.set({ dependency }, VALUES[state]);
  });
  return readiness;
}

/** The servers, or the file, that every process works on. */
export function storeChecks({ events, region, redisAnswers }: Base): Checks {
  const event_store = async (): Promise<DependencyState> => {
    await events.read(streams.writers(region), NEWEST);
    return "up";
  };
  if (!redisAnswers) return { event_store };
  return { event_store, redis: redisAnswers };
}

/** What gateways need besides: keys, journals that take events, and something to serve. */
export function gatewayChecks(base: Base, gateways: readonly Pick<Gateway, "writer">[]): Checks {
  const { catalogue, clock, directory, redisAnswers, telemetry } = base;
  telemetry.onScrape(({ journalRequests, ownerEpoch }) => {
    const writers = gateways.map(({ writer }) => writer);
    const places = writers.map((writer) => writer.life()?.journal.placesTaken() ?? 0);
    journalRequests.set(places.reduce((sum, taken) => sum + taken, 0));
    ownerEpoch.set(Math.max(...writers.map((writer) => writer.ownerEpoch())));
  });
  let looks = 0;
  return {
    async key_directory() {
      // Of another shard each time, and of no key: its hash is looked for in vain, which takes a directory that is filled.
      looks += 1;
      const shard = (looks % 256).toString(16).padStart(2, "0");
      const looking = directory.lookup(shard.padEnd(64, "0"));
      const found = await within(clock, LOOKUP_MS_MAX, looking).catch(() => TIMED_OUT);
      if (found !== TIMED_OUT) return "up";
      // Keys that are in it are served while the others are put in, or their server is away.
      await redisAnswers?.();
      return "partly";
    },
    journal() {
      const isUsable = ({ writer }: Pick<Gateway, "writer">) =>
        writer.life()?.journal.isStuck() === false;
      return gateways.every(isUsable) ? "up" : "down";
    },
    catalogue: () => (catalogue.bindings.size > 0 ? "up" : "down"),
  };
}

/** The ledger of this process: it serves, or stands by for one that does. */
export function ledgerChecks(
  base: Base,
  ledger: { isReady(): boolean; isServing(): boolean; waiting(): number },
): Checks {
  base.telemetry.onScrape((gauges) => {
    gauges.ledgerServing.set(Number(ledger.isServing()));
    gauges.carryWaiting.set(ledger.waiting());
    setLag(gauges, "ledger", base.ledgerLag());
  });
  return {
    ledger() {
      if (!ledger.isReady()) return "down";
      return base.ledgerLag().ms > BEHIND_MS || ledger.waiting() > 0 ? "partly" : "up";
    },
  };
}

/** The read models of this process. */
export function projectorChecks({ telemetry, clock }: Base, projector: Projector): Checks {
  telemetry.onScrape(async (gauges) => {
    const state = await within(clock, STATE_MS_MAX, projector.state()).catch(() => TIMED_OUT);
    if (typeof state === "object") setLag(gauges, "projector", state.lag);
  });
  return {
    async projector() {
      const { lag, stopped } = await projector.state();
      return stopped.length > 0 || lag.ms > BEHIND_MS ? "partly" : "up";
    },
  };
}

type Gauges = Parameters<Parameters<Base["telemetry"]["onScrape"]>[0]>[0];

function setLag({ lagEvents, lagSeconds }: Gauges, reader: string, { events, ms }: Lag): void {
  lagEvents.set({ reader }, events);
  lagSeconds.set({ reader }, ms / 1_000);
}

/** The ledger of another process, by how far it has told to be: there is none where what is recorded is not carried in. */
export function distantLedgerCheck({ events, clock }: Base, progress: Progress): Checks {
  let awaited: { readonly position: bigint; readonly sinceMs: number } | undefined;
  return {
    async ledger() {
      const told = await progress.told();
      const isThere = (position: bigint) => told !== undefined && told.position >= position;
      if (awaited && isThere(awaited.position)) awaited = undefined;
      if (!awaited) {
        const head = await events.head();
        if (head === "start" || isThere(head)) return "up";
        awaited = { position: head, sinceMs: clock.elapsed() };
      }
      return clock.elapsed() - awaited.sinceMs <= SILENT_MS ? "up" : "down";
    },
  };
}
