import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { crc32 } from "./hash.ts";
import { displayKey, makeKeyText, parseKeyText } from "./key-text.ts";

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** A stream of bytes that is the same on every run. */
function bytes(seed: string): (count: number) => Uint8Array {
  let round = 0;
  return (count) => {
    const drawn: Buffer[] = [];
    for (let length = 0; length < count; length += 32)
      drawn.push(createHash("sha256").update(`${seed} ${round++}`).digest());
    return Buffer.concat(drawn).subarray(0, count);
  };
}

/** The text with the checksum that belongs to it, written a second time. */
function withChecksum(body: string): string {
  let text = "";
  for (let rest = crc32(body); text.length < 6; rest = Math.floor(rest / 62))
    text = BASE62.charAt(rest % 62) + text;
  return body + text;
}

const SECRET = "0123456789abcdefABCDEFxyzXYZ0189";

test("a made key parses, names its region and is of regional scope", () => {
  for (const region of ["us", "eu", "ap-south-1"]) {
    const text = makeKeyText(region, bytes(region));
    expect(text).toMatch(new RegExp(`^relai_sk_${region}_live_[0-9A-Za-z]{38}$`));
    expect(parseKeyText(text)).toEqual({ ok: true, scope: "regional", region, older: false });
  }
});

test("bytes that would make some characters likelier are passed over", () => {
  const given = [
    Uint8Array.from({ length: 32 }, () => 248),
    Uint8Array.from({ length: 32 }, (_, at) => at + 62),
  ];
  let asked = 0;
  const text = makeKeyText("us", () => given[asked++] ?? new Uint8Array(32));
  expect(asked).toBe(2);
  expect(text.slice(-38, -6)).toBe(BASE62.slice(0, 32));
});

test("the checksum catches every change of a single character, anywhere", () => {
  const text = makeKeyText("us", bytes("checksum"));
  let tried = 0;
  for (let at = 0; at < text.length; at++) {
    for (const other of `${BASE62}_- `) {
      if (other === text[at]) continue;
      tried += 1;
      const changed = text.slice(0, at) + other + text.slice(at + 1);
      expect(parseKeyText(changed)).toEqual({ ok: false });
    }
  }
  expect(tried).toBeGreaterThan(3_000);
});

test("a key cut short, made longer, doubled, or with two characters changed places is refused", () => {
  const text = makeKeyText("us", bytes("length"));
  for (let length = 0; length < text.length; length++)
    expect(parseKeyText(text.slice(0, length)).ok).toBe(false);
  for (const changed of [`${text}0`, ` ${text}`, `${text}\n`, text + text, text.toUpperCase()])
    expect(parseKeyText(changed).ok).toBe(false);
  for (let at = 0; at + 1 < text.length; at++) {
    if (text[at] === text[at + 1]) continue;
    const changed = text.slice(0, at) + text.charAt(at + 1) + text.charAt(at) + text.slice(at + 2);
    expect(parseKeyText(changed).ok).toBe(false);
  }
});

describe("other forms", () => {
  test("a key of global scope names its home region", () => {
    const text = withChecksum(`relai_sk_gbl_eu_live_${SECRET}`);
    expect(parseKeyText(text)).toEqual({ ok: true, scope: "global", region: "eu", older: false });
    expect(parseKeyText(`${text.slice(0, -1)}${text.endsWith("0") ? "1" : "0"}`).ok).toBe(false);
  });

  test("the older form names its region and has no checksum", () => {
    expect(parseKeyText("rk-eu-0123456789abcdef")).toEqual({
      ok: true,
      scope: "regional",
      region: "eu",
      older: true,
    });
    for (const text of [
      "rk-eu-short",
      "rk-e-0123456789abcdef",
      "rk-EU-0123456789abcdef",
      "rk-eu-0123456789abcde!",
      `rk-eu-${"a".repeat(129)}`,
    ])
      expect(parseKeyText(text).ok).toBe(false);
  });

  test.each([
    "",
    "sk-0123456789abcdef",
    "relai_sk_us_test_",
    "relai_sk__live_",
    "Bearer relai_sk_us_live_",
  ])("%j is no key", (text) => {
    expect(parseKeyText(text)).toEqual({ ok: false });
    expect(parseKeyText(withChecksum(`${text}${SECRET}`)).ok).toBe(false);
  });
});

test("what may be shown is too little to be used", () => {
  const text = makeKeyText("us", bytes("display"));
  const shown = displayKey(text);
  expect(shown).toBe(`${text.slice(0, 17)}${text.slice(17, 21)}…${text.slice(-4)}`);
  expect(shown.length).toBeLessThan(text.length - 25);
  expect(parseKeyText(shown).ok).toBe(false);
});
