/** The bytes of bodies that this process holds at a moment, bounded: beyond it new bodies are refused, not queued. */
export interface InFlight {
  /**
   * Takes room for so many bytes of a body or answer that has `wholeBytes` with them; false when there is none, and
   * nothing was taken. The last of the room is for small ones: whoever sends large bodies does not shut out the rest.
   */
  take(bytes: number, wholeBytes?: number): boolean;
  give(bytes: number): void;
  readonly bytes: () => number;
}

const SMALL_BYTES_MAX = 64 * 1024;
/** The part of the room that large bodies may not take, as far as one of the largest size still fits beside it. */
const RESERVED_SHARE = 8;

export function createInFlight(bytesMax: number, bodyBytesMax = 0): InFlight {
  const reserved = Math.max(
    0,
    Math.min(Math.floor(bytesMax / RESERVED_SHARE), bytesMax - bodyBytesMax),
  );
  let held = 0;
  return {
    take(bytes, wholeBytes = bytes) {
      const room = wholeBytes > SMALL_BYTES_MAX ? bytesMax - reserved : bytesMax;
      if (held + bytes > room) return false;
      held += bytes;
      return true;
    },
    give(bytes) {
      held -= bytes;
    },
    bytes: () => held,
  };
}
