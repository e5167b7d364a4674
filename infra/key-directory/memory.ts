import type { KeyDirectory, KeyEntry } from "#services/ports.ts";

/** The key directory of an embedded region: rebuilt at every start from its read model and the events after it. */
export function createMemoryKeyDirectory(): KeyDirectory {
  const entries = new Map<string, KeyEntry>();
  let marked = { ownerEpoch: 0, isFilled: false };

  return {
    lookup(tokenHash) {
      const entry = entries.get(tokenHash);
      if (entry || marked.isFilled) return Promise.resolve(entry);
      return Promise.reject(new Error("the key directory has not been filled yet"));
    },
    async put(keys) {
      for (const [tokenHash, entry] of keys)
        if (!entries.get(tokenHash)?.revoked) entries.set(tokenHash, entry);
    },
    async markFilling(ownerEpoch) {
      if (ownerEpoch >= marked.ownerEpoch) marked = { ownerEpoch, isFilled: false };
    },
    async markFilled(ownerEpoch) {
      if (ownerEpoch === marked.ownerEpoch) marked = { ownerEpoch, isFilled: true };
    },
    isKept: (ownerEpoch) =>
      Promise.resolve(
        marked.ownerEpoch > ownerEpoch || (marked.ownerEpoch === ownerEpoch && marked.isFilled),
      ),
  };
}
