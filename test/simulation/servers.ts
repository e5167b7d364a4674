import { emptyAdmission, type Admission } from "#domain/accounts/admission.ts";
import type { CellObserver } from "#domain/accounts/holds.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { createMemoryEventStore, type MemoryEventStore } from "#test/memory-event-store.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import type { AdmissionStore, Clock, KeyDirectory } from "#services/ports.ts";
import { BEGIN_MS } from "./process.ts";
import type { Timeline } from "./timeline.ts";

/** The servers of a region: an event store that never loses anything, and two that lose all. */
export interface Servers {
  readonly store: MemoryEventStore;
  readonly directory: () => KeyDirectory;
  /** The admission server of the moment and its state. */
  readonly admission: () => { readonly port: AdmissionStore; readonly state: Admission };
  /** A new life of the admission server: everything in it is lost, its identity is another. */
  restartAdmission(): void;
  /** Somebody empties both: nothing is in them any more, and nothing else tells of it. */
  flush(): void;
  /** Nothing is written until then. Virtual milliseconds. */
  fillDiskUntil(atMs: number): void;
  readonly isFull: () => boolean;
}

export function createServers(options: {
  timeline: Timeline;
  observe: CellObserver;
  onFault: (orgId: string, sentence: string) => void;
}): Servers {
  const { timeline, observe, onFault } = options;
  // A server's clock: whole milliseconds, and no timer of its own.
  const clock: Clock = {
    now: () => Math.floor(BEGIN_MS + timeline.nowMs()),
    elapsed: () => timeline.nowMs(),
    timer: (delayMs, callback) => timeline.after(delayMs, callback),
  };
  let lives = 0;
  let fullUntilMs = 0;

  function newLife() {
    const state = emptyAdmission({ server: `admission-${++lives}`, observe, onFault });
    return { state, port: createMemoryAdmission({ clock, server: state.server, state }) };
  }

  let admission = newLife();
  let directory = createMemoryKeyDirectory();
  return {
    store: createMemoryEventStore({ clock }),
    directory: () => directory,
    admission: () => admission,
    restartAdmission() {
      admission = newLife();
    },
    flush() {
      directory = createMemoryKeyDirectory();
      admission.state.orgs.clear();
      admission.state.wanted.clear();
    },
    fillDiskUntil(atMs) {
      fullUntilMs = atMs;
    },
    isFull: () => timeline.nowMs() < fullUntilMs,
  };
}
