import type { KeyDirectory, KeyEntry } from "#services/ports.ts";

/** The key directory of an embedded region: rebuilt at every start from its read model and the events after it. */
export function createMemoryKeyDirectory(): KeyDirectory {
  const entries = new Map<string, KeyEntry>();
  return {
    lookup: (tokenHash) => Promise.resolve(entries.get(tokenHash)),
    put(tokenHash, entry) {
      // A revocation is kept: nothing that comes later brings the key back.
      if (!entries.get(tokenHash)?.revoked) entries.set(tokenHash, entry);
      return Promise.resolve();
    },
    // Who reads it is in the process that fills it before it serves.
    markFilled: () => Promise.resolve(),
  };
}
