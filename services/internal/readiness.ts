import type { Clock } from "#services/ports.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";

/** `partly`: it does its work, but late or not all of it; nobody is sent away for that. */
export type DependencyState = "up" | "partly" | "down";

/** Looks at one dependency. One that rejects, or does not answer in time, is down. */
export type Check = () => DependencyState | Promise<DependencyState>;

/** What was found of each dependency, by name. */
export type Dependencies = Readonly<
  Record<string, { readonly state: DependencyState; readonly since: string }>
>;

/** Whether this process can do its work, for probes and metrics. */
export type Readiness = ReturnType<typeof createReadiness>;

/** What was found is told again for so long: however many ask, nobody is asked more often for them. */
const FRESH_MS = 1_000;
const CHECK_MS_MAX = 1_000;

/**
 * Whether a process can do its work. Its dependencies are looked at when somebody asks, all at once and each within a
 * second, and at most once a second. A look at one that has not come back is not begun again.
 */
export function createReadiness(parts: {
  readonly clock: Clock;
  readonly checks: Readonly<Record<string, Check>>;
  /** From the moment that the process was told to end: nothing should be sent to it any more. */
  readonly isStopping: () => boolean;
}) {
  const { clock, checks, isStopping } = parts;
  const pending = new Map<string, Promise<DependencyState>>();
  let found: Dependencies = {};
  let freshUntilMs = Number.NEGATIVE_INFINITY;
  let looking: Promise<void> | undefined;

  async function lookAt(name: string, check: Check): Promise<DependencyState> {
    let look = pending.get(name);
    if (!look) {
      look = (async () => check())().catch(() => "down" as const);
      pending.set(name, look);
      void look.then(() => pending.delete(name));
    }
    const state = await within(clock, CHECK_MS_MAX, look);
    return state === TIMED_OUT ? "down" : state;
  }

  async function lookAtAll(): Promise<void> {
    const looks = Object.entries(checks).map(async ([name, check]) => {
      const state = await lookAt(name, check);
      const before = found[name];
      if (before?.state === state) return [name, before] as const;
      return [name, { state, since: new Date(clock.now()).toISOString() }] as const;
    });
    found = Object.fromEntries(await Promise.all(looks));
    freshUntilMs = clock.elapsed() + FRESH_MS;
  }

  return {
    isStopping,
    /** What every dependency is like now, and since when this process has found it so. */
    async dependencies(): Promise<Dependencies> {
      if (clock.elapsed() >= freshUntilMs)
        await (looking ??= lookAtAll().finally(() => (looking = undefined)));
      return found;
    },
  };
}

/** Whether all that is needed is there, and what each part is like: the answer of `/readyz`. */
export async function readinessView(readiness: Readiness) {
  const dependencies = await readiness.dependencies();
  const stopping = readiness.isStopping();
  const isDown = Object.values(dependencies).some(({ state }) => state === "down");
  return { ready: !isDown && !stopping, stopping, dependencies };
}
