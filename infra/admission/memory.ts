import {
  adopt,
  admit,
  apply,
  close,
  drop,
  emptyAdmission,
  extend,
  figures,
  sweep,
  type Admission,
} from "#domain/accounts/admission.ts";
import type { CellObserver } from "#domain/accounts/holds.ts";
import { takeWanted, want } from "#domain/accounts/wanted.ts";
import type { AdmissionStore, Clock } from "#services/ports.ts";

/**
 * The admission store of an embedded region: the pure reducer behind the port. `server` is the identity of this
 * process's start, because memory does not outlive it.
 */
export function createMemoryAdmission(options: {
  clock: Clock;
  server: string;
  observe?: CellObserver;
  onFault?: (orgId: string, sentence: string) => void;
  /** For whoever must look into the store while it works; otherwise it makes its own. */
  state?: Admission;
}): AdmissionStore {
  const { clock } = options;
  const state = options.state ?? emptyAdmission(options);
  return {
    seek: () => Promise.resolve([state.server]),
    admit: (ask) => Promise.resolve(admit(state, ask, clock.now())),
    extend: (ask) => Promise.resolve(extend(state, ask)),
    drop: (ask) => Promise.resolve(drop(state, ask, clock.now())),
    close: (ask) => Promise.resolve(close(state, ask)),
    figures: (ask) => Promise.resolve(figures(state, ask, clock.now())),
    want(orgId) {
      want(state, orgId);
      return Promise.resolve();
    },
    wanted: () => Promise.resolve(takeWanted(state, clock.now())),
    apply: (ask) => Promise.resolve(apply(state, ask)),
    adopt: (ask) => Promise.resolve(adopt(state, ask)),
    sweep: (ask) => Promise.resolve(sweep(state, ask)),
  };
}
