import { STOP_MS_MAX } from "#services/gateway/gateway.ts";
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
  simulator: 250,
  upstream: 250,
  ledger: 750,
  projector: 750,
  store: 750,
  folder: 50,
} as const;

/** What ends each part that is open, told how long that may take. */
export type Stops = Partial<Record<keyof typeof STOP_MS, (limitMs: number) => unknown>>;

/**
 * Ends every part in order, also after one that fails or does not end in its time; then throws the first failure. A part
 * has the time that those before it left over, too. What hangs is left to the end of the process, and then so is the
 * folder's lock: nobody else may have the folder while something here could still write into it.
 */
export async function stopAll(clock: Clock, stops: Stops, drainMs: number): Promise<void> {
  let failure: unknown;
  let leftMs = 0;
  for (const [part, partMs] of Object.entries(STOP_MS)) {
    if (part === "folder" && failure !== undefined) break;
    leftMs += partMs;
    const limitMs = part === "gateways" ? drainMs + leftMs : leftMs;
    const begunMs = clock.elapsed();
    try {
      const stopping = Promise.resolve(stops[part as keyof Stops]?.(limitMs));
      if ((await within(clock, limitMs, stopping)) === TIMED_OUT)
        throw new Error(`${part} did not end within ${limitMs} ms`);
    } catch (error) {
      failure ??= error;
    }
    leftMs = Math.max(0, Math.min(leftMs, limitMs - (clock.elapsed() - begunMs)));
  }
  if (failure !== undefined)
    throw failure instanceof Error ? failure : new Error("a part did not stop");
}
