import * as fc from "fast-check";
import { expect, test } from "vitest";
import { sha256Hex } from "./hash.ts";
import { ID_RANDOM_BYTES, idFromCause, makeId } from "./ids.ts";

const FORM = /^req_[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
const randomBytes = fc.uint8Array({ minLength: ID_RANDOM_BYTES, maxLength: ID_RANDOM_BYTES });
const atMs = fc.integer({ min: 0, max: 2 ** 48 - 1 });

/** A ULID read back by its definition: 26 digits of base 32 are 48 bits of time and 80 of randomness. */
function numberOf(id: string): bigint {
  let value = 0n;
  for (const digit of id.slice(4))
    value = value * 32n + BigInt("0123456789ABCDEFGHJKMNPQRSTVWXYZ".indexOf(digit));
  return value;
}

test("an id is its time and its random bytes, and nothing of either is lost", () => {
  fc.assert(
    fc.property(atMs, randomBytes, (time, bytes) => {
      const id = makeId("req", time, bytes);
      expect(id).toMatch(FORM);
      expect(numberOf(id)).toBe(
        (BigInt(time) << 80n) + BigInt(`0x${Buffer.from(bytes).toString("hex")}`),
      );
    }),
  );
});

test("ids sort by the time they were made", () => {
  fc.assert(
    fc.property(atMs, atMs, randomBytes, randomBytes, (one, other, bytes, others) => {
      fc.pre(one !== other);
      const [first, second] = [makeId("req", one, bytes), makeId("req", other, others)];
      expect(first < second).toBe(one < other);
    }),
  );
});

test("an id takes exactly its random bytes", () => {
  expect(() => makeId("req", 1, new Uint8Array(9))).toThrow(RangeError);
  expect(() => makeId("req", 1, new Uint8Array(11))).toThrow(RangeError);
});

test("the id of a cause is the same on every machine and for ever, and another for every other cause", () => {
  const golden = "lot_3QQ9FFF74JD5TKNC98GPJJCAZ9";
  expect(idFromCause("lot", sha256Hex("top-up 1"))).toMatch(/^lot_[0-7][0-9A-HJKMNP-TV-Z]{25}$/);
  expect(idFromCause("lot", sha256Hex("top-up 1"))).toBe(golden);
  // Making other ids in between changes nothing.
  makeId("req", 5, new Uint8Array(ID_RANDOM_BYTES));
  expect(idFromCause("lot", sha256Hex("top-up 1"))).toBe(golden);
  const many = Array.from({ length: 1_000 }, (_, at) => idFromCause("key", sha256Hex(String(at))));
  expect(new Set(many).size).toBe(1_000);
});
