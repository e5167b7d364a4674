/**
 * Ids are a prefix, an underscore and a ULID: 48 bits of time and 80 random bits in Crockford's base 32, so that ids
 * sort by the time they were made. Time and randomness come in as arguments.
 */
export type IdPrefix = "org" | "key" | "req" | "lot";

const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TIME_CHARACTERS = 10;

/** How many random bytes {@link makeId} takes. */
export const ID_RANDOM_BYTES = 10;

/** Makes an id from the time in milliseconds and ten random bytes. */
export function makeId(prefix: IdPrefix, atMs: number, random: Uint8Array): string {
  if (random.length !== ID_RANDOM_BYTES)
    throw new RangeError(`an id takes ${ID_RANDOM_BYTES} random bytes`);
  return `${prefix}_${timePart(atMs)}${base32(random)}`;
}

/**
 * The id of a thing that an idempotent command creates: the same cause gives the same id, so a repeat meets itself in
 * the store. `causeSha256` is the hex digest of what names the command.
 */
export function idFromCause(prefix: IdPrefix, causeSha256: string): string {
  const bytes = Buffer.from(causeSha256.slice(0, 32), "hex");
  // The first ten characters stand for 48 bits, as the time does in any other id.
  return `${prefix}_${timePart(bytes.readUIntBE(0, 6))}${base32(bytes.subarray(6, 6 + ID_RANDOM_BYTES))}`;
}

let lastMs = -1;
let lastTimePart = "";

function timePart(atMs: number): string {
  // Many ids are made within one millisecond; the value depends on the argument alone.
  if (atMs === lastMs) return lastTimePart;
  let rest = Math.floor(atMs);
  let text = "";
  for (let place = 0; place < TIME_CHARACTERS; place++) {
    text = CROCKFORD.charAt(rest % 32) + text;
    rest = Math.floor(rest / 32);
  }
  lastMs = atMs;
  lastTimePart = text;
  return text;
}

/** Ten bytes as sixteen characters: five bytes are exactly eight of them. */
function base32(bytes: Uint8Array): string {
  let text = "";
  for (let start = 0; start < ID_RANDOM_BYTES; start += 5) {
    const high =
      ((bytes[start] ?? 0) << 12) | ((bytes[start + 1] ?? 0) << 4) | ((bytes[start + 2] ?? 0) >> 4);
    const low =
      (((bytes[start + 2] ?? 0) & 15) << 16) |
      ((bytes[start + 3] ?? 0) << 8) |
      (bytes[start + 4] ?? 0);
    text += quarter(high) + quarter(low);
  }
  return text;
}

function quarter(value: number): string {
  return (
    CROCKFORD.charAt((value >> 15) & 31) +
    CROCKFORD.charAt((value >> 10) & 31) +
    CROCKFORD.charAt((value >> 5) & 31) +
    CROCKFORD.charAt(value & 31)
  );
}
