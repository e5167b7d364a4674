import type { KeyDirectory, KeyEntry } from "#services/ports.ts";

/** The key directory of an embedded region: rebuilt at every start from its read model and the events after it. */
export function createMemoryKeyDirectory(): KeyDirectory {
  const entries = new Map<string, KeyEntry>();
  let marked = { ownerEpoch: 0, isFilled: false };

  return {
    parts: [""],
    partOf: () => "",
    lookup(tokenHash) {
      const entry = entries.get(tokenHash);
      if (entry || marked.isFilled) return Promise.resolve(entry);
      return Promise.reject(new Error("the key directory has not been filled yet"));
    },
    async put(keys) {
      for (const [tokenHash, entry] of keys)
        if (!entries.get(tokenHash)?.revoked) entries.set(tokenHash, entry);
    },
    async markFilling(_, ownerEpoch) {
      if (ownerEpoch >= marked.ownerEpoch) marked = { ownerEpoch, isFilled: false };
    },
    async markFilled(_, ownerEpoch) {
      if (ownerEpoch === marked.ownerEpoch) marked = { ownerEpoch, isFilled: true };
      return ownerEpoch === marked.ownerEpoch;
    },
    async stateOf(_, ownerEpoch) {
      if (marked.ownerEpoch === ownerEpoch) return marked.isFilled ? "kept" : "lost";
      return marked.ownerEpoch > ownerEpoch ? "kept" : "lost";
    },
  };
}
