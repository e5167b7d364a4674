import { hash } from "node:crypto";

/** The one place where the domain uses Node: three pure functions of its input, nothing else. */

/** SHA-256 of a text, as lower-case hex. */
export function sha256Hex(text: string | Uint8Array): string {
  return hash("sha256", text, "hex");
}

/** CRC-32 (IEEE) of a text, as an unsigned 32-bit integer. */
export { crc32 } from "node:zlib";

// The namespace of relai's event ids: a random UUID, fixed for ever, because ids must come out the same on every machine.
const NAMESPACE = Buffer.from("6f1d1c0e8a3b4b7e9d5c2f4a7b1e3d90", "hex");

/**
 * UUIDv5 of a stream and a logical key within it: the id of an event is computed from its cause, so that a repeated
 * append of the same fact carries the same id.
 */
export function eventId(stream: string, key: string): string {
  const hex = hash("sha1", Buffer.concat([NAMESPACE, Buffer.from(`${stream}\n${key}`)]), "hex");
  const variant = "89ab"[Number.parseInt(hex.charAt(16), 16) & 3];
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
