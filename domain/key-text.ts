import { crc32 } from "./hash.ts";

/**
 * The text of an API key: `relai_sk_<region>_live_<secret>`, or `relai_sk_gbl_<region>_live_<secret>` for a key of
 * global scope. The secret is 32 random base-62 characters and 6 more that are the CRC-32 of all before them, so that
 * a mistyped key is refused without a look-up. Only the text's SHA-256 is ever stored.
 */

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_CHARACTERS = 32;
const CHECKSUM_CHARACTERS = 6;

const KEY_TEXT = /^relai_sk_(gbl_)?([a-z][a-z0-9-]{0,15})_live_[0-9A-Za-z]{38}$/;
const OLDER_KEY_TEXT = /^rk-([a-z]{2,16})-[0-9A-Za-z_-]{16,128}$/;

export type ParsedKey =
  | { readonly ok: false }
  | {
      readonly ok: true;
      readonly scope: "regional" | "global";
      readonly region: string;
      readonly older: boolean;
    };

/** What the text alone says of a key. Not ok: malformed, or its checksum is wrong. The older `rk-` form has no checksum. */
export function parseKeyText(text: string): ParsedKey {
  const older = OLDER_KEY_TEXT.exec(text);
  if (older) return { ok: true, scope: "regional", region: older[1] ?? "", older: true };
  const match = KEY_TEXT.exec(text);
  const body = text.slice(0, -CHECKSUM_CHARACTERS);
  if (!match || checksum(body) !== text.slice(-CHECKSUM_CHARACTERS)) return { ok: false };
  const scope = match[1] ? "global" : "regional";
  return { ok: true, scope, region: match[2] ?? "", older: false };
}

/**
 * Makes the text of a new regional key. `random` gives bytes on demand; bytes of 248 and above are passed over, so
 * that every character is equally likely.
 */
export function makeKeyText(region: string, random: (count: number) => Uint8Array): string {
  let secret = "";
  while (secret.length < RANDOM_CHARACTERS) {
    for (const byte of random(RANDOM_CHARACTERS)) {
      if (byte < 248 && secret.length < RANDOM_CHARACTERS) secret += BASE62.charAt(byte % 62);
    }
  }
  const body = `relai_sk_${region}_live_${secret}`;
  return body + checksum(body);
}

/** The form that may be shown and stored: `relai_sk_us_live_ab12…wxyz`. */
export function displayKey(text: string): string {
  const secretAt = text.lastIndexOf("_") + 1;
  return `${text.slice(0, secretAt + 4)}…${text.slice(-4)}`;
}

function checksum(body: string): string {
  let rest = crc32(body);
  let text = "";
  for (let place = 0; place < CHECKSUM_CHARACTERS; place++) {
    text = BASE62.charAt(rest % 62) + text;
    rest = Math.floor(rest / 62);
  }
  return text;
}
