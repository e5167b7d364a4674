/** Names that answers wait for. A name that was released stays so: an answer that comes later does not wait. */
export interface Gates {
  /** Calls back once the name is released, at once if it is already. The returned function gives up. */
  wait(name: string, callback: () => void): () => void;
  /** Lets all go that wait for the name; says how many they were. */
  release(name: string): number;
}

/** At most `releasedMax` released names are remembered; the ones released first are forgotten first. */
export function createGates(releasedMax: number): Gates {
  const released = new Set<string>();
  const waiting = new Map<string, Set<() => void>>();
  return {
    wait(name, callback) {
      if (released.has(name)) {
        callback();
        return () => undefined;
      }
      const callbacks = waiting.get(name) ?? new Set();
      waiting.set(name, callbacks.add(callback));
      return () => {
        callbacks.delete(callback);
        if (callbacks.size === 0 && waiting.get(name) === callbacks) waiting.delete(name);
      };
    },
    release(name) {
      released.delete(name);
      released.add(name);
      const [oldest] = released;
      if (released.size > releasedMax && oldest !== undefined) released.delete(oldest);
      const callbacks = [...(waiting.get(name) ?? [])];
      waiting.delete(name);
      for (const callback of callbacks) callback();
      return callbacks.length;
    },
  };
}
