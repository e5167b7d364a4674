/** The bytes of bodies that this process holds at a moment, bounded: beyond it new bodies are refused, not queued. */
export interface InFlight {
  /** Takes room for so many bytes; false when there is none, and nothing was taken. */
  take(bytes: number): boolean;
  give(bytes: number): void;
  readonly bytes: () => number;
}

export function createInFlight(bytesMax: number): InFlight {
  let held = 0;
  return {
    take(bytes) {
      if (held + bytes > bytesMax) return false;
      held += bytes;
      return true;
    },
    give(bytes) {
      held -= bytes;
    },
    bytes: () => held,
  };
}
