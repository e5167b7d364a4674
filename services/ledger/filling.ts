import type { Clock, Telemetry } from "#services/ports.ts";
import { backOffMs, sleep } from "#services/waiting.ts";
import type { Adoption } from "./adoption.ts";
import type { Keys } from "./keys.ts";

/** What was away is tried again so much later, at most. */
const AGAIN_MS_MAX = 1_000;

export interface FillParts {
  readonly clock: Clock;
  readonly telemetry: Pick<Telemetry, "alarm">;
}

/** What is in under the present owner. */
export interface Filled {
  /** Every key is in the directory, and what is missing there is nobody's. */
  keys: boolean;
  /** And every organization in the admission store. */
  all: boolean;
}

/**
 * Fills the key directory and then the admission store behind a claim, a slice at a time, beside what is served: an
 * organization that is wanted waits for nobody here, but a key that is missing is waited for. What cannot be read is tried
 * again, as long as the ownership goes on. What is away is passed over: the function that is given back, called now and
 * then, fills what is back, and whatever has to be filled anew.
 * `onFull` is told once of each of the two that is full.
 */
export function fill(
  { clock, telemetry }: FillParts,
  keys: Pick<Keys, "fill" | "isWhole">,
  adoption: Pick<Adoption, "adoptNext" | "adoptOut" | "isAnyOut">,
  signal: AbortSignal,
  onFull: (what: keyof Filled) => void,
): () => void {
  const filled: Filled = { keys: false, all: false };
  let [isRunning, isTold, attempt, dueMs] = [false, false, 0, 0];

  function full(what: keyof Filled): void {
    if (!signal.aborted && !filled[what]) onFull(what);
    filled[what] = true;
  }

  function alarm(error: unknown): void {
    if (!signal.aborted) telemetry.alarm("ledger_fill_failed", { error: String(error) });
  }

  async function fillKeys(): Promise<false> {
    if (!keys.isWhole()) await keys.fill(signal);
    if (keys.isWhole()) full("keys");
    else if (!isTold) alarm("a part of the key directory takes no keys");
    isTold = !keys.isWhole();
    return false;
  }

  async function untilDone(next: () => Promise<boolean>): Promise<void> {
    for (let failures = 0; !signal.aborted;) {
      try {
        if (!(await next())) return;
        failures = 0;
      } catch (error) {
        alarm(error);
        await sleep(clock, backOffMs(failures++, 50, 5000));
      }
    }
  }

  async function work(rest: () => Promise<boolean>): Promise<void> {
    isRunning = true;
    await untilDone(fillKeys);
    await untilDone(rest);
    const isWhole = keys.isWhole() && !adoption.isAnyOut();
    if (isWhole) full("all");
    attempt = isWhole ? 0 : attempt + 1;
    dueMs = clock.elapsed() + backOffMs(attempt, 25, AGAIN_MS_MAX);
    isRunning = false;
  }

  async function others(): Promise<false> {
    await adoption.adoptOut();
    return false;
  }

  void work(adoption.adoptNext);
  return () => {
    const isWhole = keys.isWhole() && !adoption.isAnyOut();
    if (!isWhole && !isRunning && clock.elapsed() >= dueMs) void work(others);
  };
}
