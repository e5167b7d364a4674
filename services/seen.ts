import type { AdmissionStore, Clock, KeyDirectory, Progress } from "./ports.ts";
import { sleep } from "./waiting.ts";

const LOOK_EVERY_MS = 20;

export interface SeenParts {
  readonly admission: Pick<AdmissionStore, "figures" | "want">;
  readonly directory: Pick<KeyDirectory, "lookup">;
  readonly progress: Progress;
  readonly clock: Clock;
}

/**
 * Waits until an event of an organization can be seen in admission: the ledger has told that it carried its position in,
 * and under the owner that told so (what is there under one before it may be older) the organization has it, or is closed;
 * and where the event is a key's, that the key is found. What is on a server that is away gets it later. False when
 * `limitMs` passed first.
 */
export async function isSeen(
  parts: SeenParts,
  orgId: string,
  position: bigint,
  limitMs: number,
  tokenHash?: string,
): Promise<boolean> {
  const { admission, progress, directory, clock } = parts;
  const dueMs = clock.elapsed() + limitMs;

  async function isThere(): Promise<boolean> {
    const told = await progress.told();
    if (!told || told.position < position) return false;
    const found = await admission.figures({ orgId, ownerEpoch: told.ownerEpoch });
    if (found.outcome === "fenced" && found.fenced !== "fault") {
      await admission.want(orgId);
      return false;
    }
    if (found.outcome === "figures" && (found.position === "start" || found.position < position))
      return false;
    return tokenHash === undefined || (await directory.lookup(tokenHash)) !== undefined;
  }
  while (!(await isThere().catch(() => false))) {
    if (clock.elapsed() >= dueMs) return false;
    await sleep(clock, LOOK_EVERY_MS);
  }
  return true;
}
