import { expect, test } from "vitest";
import { systemRandom } from "./random.ts";

test("draws of every size have their length and never repeat", () => {
  const random = systemRandom();
  const seen = new Set<string>();
  for (let round = 0; round < 400; round += 1) {
    for (const count of [8, 10, 33, 1_024, 1_025]) {
      const bytes = random.bytes(count);
      expect(bytes.length).toBe(count);
      seen.add(Buffer.from(bytes).toString("hex"));
    }
  }
  expect(seen.size).toBe(2_000);
  expect(random.bytes(0).length).toBe(0);
});

test("a draw is a copy: writing to it or drawing more changes nothing else", () => {
  const random = systemRandom();
  const first = random.bytes(16);
  const kept = Buffer.from(first).toString("hex");
  for (let round = 0; round < 1_000; round += 1) random.bytes(16).fill(0);
  expect(Buffer.from(first).toString("hex")).toBe(kept);
  expect(first.buffer.byteLength).toBe(16);
});

test("no drawn bytes are all zero, as they would be if a wiped part of the pool were given out", () => {
  const random = systemRandom();
  for (let round = 0; round < 5_000; round += 1) {
    expect(random.bytes(10).some((byte) => byte !== 0)).toBe(true);
  }
});
