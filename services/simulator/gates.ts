import { EventEmitter } from "node:events";

export type Gates = ReturnType<typeof createGates>;

/**
 * Names that answers wait for. A name that was released stays so: an answer that comes later does not wait. At most
 * `releasedMax` released names are remembered; the ones released first are forgotten first.
 */
export function createGates(releasedMax: number) {
  const released = new Set<string>();
  const waiting = new EventEmitter().setMaxListeners(0);
  // An emitter has events of its own, and a gate may have any name.
  const eventOf = (name: string) => `gate ${name}`;
  return {
    /** Calls back once the name is released, at once if it is already. The returned function gives up. */
    wait(name: string, callback: () => void): () => void {
      if (released.has(name)) callback();
      else waiting.once(eventOf(name), callback);
      return () => waiting.off(eventOf(name), callback);
    },
    /** Lets all go that wait for the name; says how many they were. */
    release(name: string): number {
      released.delete(name);
      released.add(name);
      const [oldest] = released;
      if (released.size > releasedMax && oldest !== undefined) released.delete(oldest);
      const count = waiting.listenerCount(eventOf(name));
      waiting.emit(eventOf(name));
      return count;
    },
  };
}
