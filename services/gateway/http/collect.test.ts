import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createPieces } from "./collect.ts";

const whole = (pieces: readonly Uint8Array[], bytesExpected = 0) => {
  const collected = createPieces(bytesExpected);
  for (const piece of pieces) collected.add(piece);
  return collected.take();
};

describe("createPieces", () => {
  it("gives back what was added, however it was cut, and whatever was expected", () => {
    const lengths = fc.array(fc.oneof(fc.nat(3), fc.nat(2000), fc.nat(40_000)), { maxLength: 40 });
    fc.assert(
      fc.property(lengths, fc.constantFrom("unknown", "exact", "more"), (sizes, expected) => {
        const pieces = sizes.map((size, at) => Buffer.alloc(size, at + 1));
        const all = Buffer.concat(pieces);
        const bytesExpected = { unknown: 0, exact: all.length, more: all.length + 9 }[expected];
        expect(whole(pieces, bytesExpected).equals(all)).toBe(true);
      }),
    );
  });

  it("does not copy a single piece", () => {
    const piece = Buffer.from("one");
    expect(whole([piece]).buffer).toBe(piece.buffer);
  });

  it("keeps nothing of what it gave out", () => {
    const pieces = createPieces();
    pieces.add(Buffer.from("one"));
    pieces.take();
    pieces.add(Buffer.from("two"));
    expect(pieces.take().toString()).toBe("two");
  });
});
