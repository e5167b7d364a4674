/** HTTP/2: what a client begins with, the head of each frame, and the frame that ends a call before its end. */
const PREFACE_BYTES = 24;
const HEAD_BYTES = 9;
const RST_STREAM = 3;

/** Is given what a client sends on one connection, piece by piece; tells of each RST_STREAM. Over TLS it sees nothing. */
export function watchResets(onReset: () => void): (piece: Buffer) => void {
  let skip = PREFACE_BYTES;
  let rest = Buffer.alloc(0);
  return (piece) => {
    rest = Buffer.concat([rest, piece]);
    while (rest.length >= skip + HEAD_BYTES) {
      rest = rest.subarray(skip);
      if (rest[3] === RST_STREAM) onReset();
      skip = HEAD_BYTES + rest.readUIntBE(0, 3);
    }
  };
}
