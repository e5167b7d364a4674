/** Smaller pieces are copied together: a buffer costs about a hundred bytes beside the one byte that it may hold. */
const SMALL_BYTES = 1024;
const ROOM_BYTES = 4096;
/** From here on a body whose length is known gets its one buffer at once, and the pieces can go as soon as they are in it. */
const LARGE_BYTES = 64 * 1024;
const NO_BYTES = Buffer.alloc(0);

/**
 * The bytes of one body, collected as they come and given out whole, once. Collects pieces so that the memory they take is near to the bytes they have, however small they were cut.
 * `bytesExpected` is what the sender says that there will be; memory is only taken for what comes.
 */
export function createPieces(bytesExpected = 0) {
  let whole: Uint8Array[] = [];
  let size = 0;
  /** Where small pieces go: used up to `at`, given to `whole` up to `kept`. */
  let room = NO_BYTES;
  let at = 0;
  let kept = 0;
  let large: Buffer | undefined;

  function flush(): void {
    if (at > kept) whole.push(room.subarray(kept, at));
    kept = at;
  }

  /** Lets everything go. */
  function clear(): void {
    whole = [];
    room = NO_BYTES;
    large = undefined;
    size = at = kept = 0;
  }

  /** Moves what there is into one buffer of the expected size. */
  function enlarge(): Buffer {
    flush();
    const all = Buffer.allocUnsafeSlow(bytesExpected);
    let to = 0;
    for (const piece of whole) {
      all.set(piece, to);
      to += piece.length;
    }
    whole = [];
    return all;
  }

  return {
    /** Keeps a piece; it may not change afterwards. */
    add(piece: Uint8Array): void {
      const isFirst = size === 0;
      const before = size;
      size += piece.length;
      if (size > LARGE_BYTES && size <= bytesExpected) {
        large ??= enlarge();
        large.set(piece, before);
        return;
      }
      if (isFirst || piece.length >= SMALL_BYTES) {
        flush();
        whole.push(piece);
        return;
      }
      if (at + piece.length > room.length) {
        flush();
        room = Buffer.allocUnsafeSlow(ROOM_BYTES);
        at = kept = 0;
      }
      room.set(piece, at);
      at += piece.length;
    },
    /** All bytes in one buffer, which is the only piece itself where there was one. Nothing is kept any longer. */
    take(): Buffer {
      if (large !== undefined) {
        const all = large.subarray(0, size);
        clear();
        return all;
      }
      flush();
      const [first] = whole;
      const bytes =
        first !== undefined && whole.length === 1
          ? Buffer.from(first.buffer, first.byteOffset, first.byteLength)
          : Buffer.concat(whole, size);
      clear();
      return bytes;
    },
    clear,
  };
}
