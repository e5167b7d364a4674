import { unpackRows } from "#projections/rows.ts";
import type { Clock, KeyDirectory, Projector, Telemetry } from "#services/ports.ts";
import { backOffMs, sleep } from "#services/waiting.ts";
import type { Adoption } from "./adoption.ts";
import type { Ownership } from "./owner.ts";

/** So many keys are read and put in at once. */
const KEYS_AT_ONCE = 1_000;

export interface FillParts {
  readonly projector: Projector;
  readonly directory: KeyDirectory;
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
 * organization that is wanted waits for nobody here, but a key that is missing is waited for. What fails is tried again,
 * as long as the ownership goes on. `onFull` is told of each of the two that is full.
 */
export async function fill(
  parts: FillParts,
  { ownerEpoch, position }: Ownership,
  adoption: Pick<Adoption, "adoptNext">,
  signal: AbortSignal,
  onFull: (what: keyof Filled) => void,
): Promise<void> {
  let after = "";

  /** False when there are no more. */
  async function putNext(): Promise<boolean> {
    const slice = { in: "keys", after, max: KEYS_AT_ONCE };
    const packed = await parts.projector.rows("key-directory", position, ["keys"], slice);
    const keys = [...unpackRows(packed.rows)].map(({ key, value }) => [key, value] as const);
    await parts.directory.put(keys);
    after = keys.at(-1)?.[0] ?? after;
    return keys.length > 0;
  }

  async function untilFull(next: () => Promise<boolean>): Promise<void> {
    for (let attempt = 0; !signal.aborted;) {
      try {
        if (!(await next())) return;
        attempt = 0;
      } catch (error) {
        if (signal.aborted) return;
        parts.telemetry.alarm("ledger_fill_failed", { error: String(error) });
        await sleep(parts.clock, backOffMs(attempt++, 50, 5000));
      }
    }
  }

  await untilFull(putNext);
  await untilFull(async () => {
    await parts.directory.markFilled(ownerEpoch);
    return false;
  });
  if (!signal.aborted) onFull("keys");
  await untilFull(adoption.adoptNext);
  if (!signal.aborted) onFull("all");
}
