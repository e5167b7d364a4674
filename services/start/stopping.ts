import { STOP_MS_MAX, type StoppedGateway } from "#services/gateway/gateway.ts";
import type { Clock } from "#services/ports.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";

/**
 * The order of a stop, and how long each part has for it at least. Gateways drain first, and what they and their operators
 * need meanwhile stays: the upstream, the ledger, the control API, the metrics. The gateways' time comes after the drain.
 * All together are less than the ten seconds that a stop takes beyond its drain at most.
 */
export const STOP_MS = {
  gateways: STOP_MS_MAX,
  traces: 150,
  control: 750,
  internal: 250,
  simulator: 150,
  upstream: 150,
  ledger: 750,
  projector: 750,
  store: 750,
  servers: 200,
  folder: 50,
} as const;

/**
 * What ends each part that is open, told how long that may take. One that gives a sentence has left that undone: nothing is
 * lost by it, and somebody else will do it.
 */
export type Stops = Partial<Record<keyof typeof STOP_MS, (limitMs: number) => unknown>>;

/** Who waits for a server to say goodbye leaves some time to the parts behind it. */
const GOODBYE_MS_MAX = 3_000;
const MARGIN_MS = 50;

/** Waits for an end that hangs on others, for as long as a part should; gives `undone` where it does not come. */
export async function endOr<Undone>(
  clock: Clock,
  limitMs: number,
  ending: Promise<unknown>,
  undone: () => Undone,
): Promise<Undone | undefined> {
  const waitMs = Math.min(limitMs - MARGIN_MS, GOODBYE_MS_MAX);
  return (await within(clock, waitMs, ending)) === TIMED_OUT ? undone() : undefined;
}

export const NOT_SEALED =
  "a journal was not sealed, because a server did not answer; a ledger, or the next start, seals it and frees what is held";

export const NOT_FOLDED =
  "the projector did not come to an end; read models are as of its last commit, and the next start folds the rest";

/** What gateways that have ended left undone. Throws where something is lost. */
export function leftBy(gateways: readonly StoppedGateway[]): string | undefined {
  const unrecorded = gateways.reduce((sum, one) => sum + one.unrecorded, 0);
  if (unrecorded > 0)
    throw new Error(
      `answered requests that no journal has taken: ${unrecorded}; nobody is charged for them, and a provider may bill them`,
    );
  return gateways.every(({ isSealed }) => isSealed) ? undefined : NOT_SEALED;
}

/**
 * Ends every part in order, also after one that fails or does not end in its time; then throws the first failure. A part
 * has the time that those before it left over, too. What hangs is left to the end of the process, and then so is the
 * folder's lock: nobody else may have the folder while something here could still write into it. Gives what was left undone.
 */
export async function stopAll(
  clock: Clock,
  stops: Stops,
  drainMs: number,
): Promise<readonly string[]> {
  let failure: unknown;
  let leftMs = 0;
  const undone = new Set<string>();
  for (const [part, partMs] of Object.entries(STOP_MS)) {
    if (part === "folder" && (failure !== undefined || undone.size > 0)) break;
    leftMs += partMs;
    const limitMs = part === "gateways" ? drainMs + leftMs : leftMs;
    const begunMs = clock.elapsed();
    try {
      const stopping = Promise.resolve(stops[part as keyof Stops]?.(limitMs));
      const left = await within(clock, limitMs, stopping);
      if (left === TIMED_OUT)
        throw new Error(`${part} did not end within ${Math.round(limitMs)} ms`);
      if (typeof left === "string") undone.add(left);
    } catch (error) {
      failure ??= error;
    }
    leftMs = Math.max(0, Math.min(leftMs, limitMs - (clock.elapsed() - begunMs)));
  }
  if (failure !== undefined)
    throw failure instanceof Error ? failure : new Error("a part did not stop");
  return [...undone];
}
