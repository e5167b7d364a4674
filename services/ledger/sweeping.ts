import { journalEpoch, type RecordedEvent } from "#domain/events/events.ts";
import type { AdmissionStore, Clock } from "#services/ports.ts";
import { backOffMs, sleep } from "#services/waiting.ts";

/** So many sweeps are asked for at once, and then the admission store is left to others for as long as this. */
const SWEEPS_AT_ONCE = 50;
const PAUSE_MS = 10;

/**
 * Sweeps what is in place, behind the carrying of events, a slice at a time: whatever a writer whose seal is carried had
 * taken and never recorded is free again. In which organizations that is nobody but the admission store knows, and hardly
 * in any. So it may take its time: what it has not come to yet is found by whoever comes upon it (wanted.ts), as is what
 * such a writer takes behind it. An organization that comes in later has nothing of it. Several seals share a round.
 *
 * `hasAll` says whether an organization has all that is carried, and is asked before each sweep: what waits for its server
 * may be the taking, or the end, of a hold that a sweep would free.
 *
 * Give it each batch that is carried. What fails is done again, until `signal` aborts with the ownership.
 */
export function createSweeping(
  { admission, clock }: { readonly admission: AdmissionStore; readonly clock: Clock },
  ownerEpoch: number,
  orgs: ReadonlyMap<string, unknown>,
  hasAll: (orgId: string) => boolean,
  signal: AbortSignal,
): (carried: readonly RecordedEvent[]) => void {
  let sealed: number[] = [];
  let isSweeping = false;

  async function sweepAll(orgIds: readonly string[], writerEpochs: readonly number[]) {
    const sweeps = orgIds
      .filter(hasAll)
      .flatMap((orgId) =>
        writerEpochs.map((writerEpoch) => admission.sweep({ orgId, ownerEpoch, writerEpoch })),
      );
    return (await Promise.allSettled(sweeps)).every(({ status }) => status === "fulfilled");
  }

  async function sweepRounds(): Promise<void> {
    while (sealed.length > 0) {
      const writerEpochs = sealed;
      sealed = [];
      const orgIds = [...orgs.keys()];
      const orgsAtOnce = Math.ceil(SWEEPS_AT_ONCE / writerEpochs.length);
      for (let at = 0; at < orgIds.length; at += orgsAtOnce) {
        const slice = orgIds.slice(at, at + orgsAtOnce);
        for (let attempt = 0; !(await sweepAll(slice, writerEpochs)); attempt++) {
          await sleep(clock, backOffMs(attempt, 50, 5000));
          if (signal.aborted) return;
        }
        await sleep(clock, PAUSE_MS);
        if (signal.aborted) return;
      }
    }
  }

  return (carried) => {
    for (const event of carried)
      if (event.type === "JournalSealed.v1") sealed.push(journalEpoch(event.stream) ?? -1);
    if (sealed.length === 0 || isSweeping) return;
    isSweeping = true;
    void sweepRounds().finally(() => {
      isSweeping = false;
    });
  };
}
