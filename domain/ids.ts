/**
 * Ids are a prefix, an underscore and a ULID: 48 bits of time and 80 random bits in Crockford's base 32, so that ids
 * sort by the time they were made. Time and randomness come in as arguments.
 */
export type IdPrefix = "org" | "key" | "req" | "lot";

const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TIME_BYTES = 6;

/** How many random bytes {@link makeId} takes. */
export const ID_RANDOM_BYTES = 10;

/** Makes an id from the time in milliseconds and ten random bytes. */
export function makeId(prefix: IdPrefix, atMs: number, random: Uint8Array): string {
  if (random.length !== ID_RANDOM_BYTES)
    throw new RangeError(`an id takes ${ID_RANDOM_BYTES} random bytes`);
  const bytes = Buffer.alloc(TIME_BYTES + ID_RANDOM_BYTES);
  bytes.writeUIntBE(Math.floor(atMs), 0, TIME_BYTES);
  bytes.set(random, TIME_BYTES);
  return `${prefix}_${ulid(bytes)}`;
}

/**
 * The id of a thing that an idempotent command creates: the same cause gives the same id, so a repeat meets itself in
 * the store. `causeSha256` is the hex digest of what names the command.
 */
export function idFromCause(prefix: IdPrefix, causeSha256: string): string {
  return `${prefix}_${ulid(Buffer.from(causeSha256.slice(0, 32), "hex"))}`;
}

/** Sixteen bytes as 26 characters of five bits: the first two of those 130 bits are always zero. */
function ulid(bytes: Uint8Array): string {
  let [text, bits, bitCount] = ["", 0, 2];
  for (const byte of bytes) {
    bits = (bits << 8) | byte;
    for (bitCount += 8; bitCount >= 5; bitCount -= 5)
      text += CROCKFORD.charAt((bits >> (bitCount - 5)) & 31);
  }
  return text;
}
