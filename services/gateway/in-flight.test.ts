import { describe, expect, it } from "vitest";
import { createInFlight } from "./in-flight.ts";

const MIB = 2 ** 20;

describe("createInFlight", () => {
  it("gives room up to its limit, and again what was given back", () => {
    const room = createInFlight(100);
    expect(room.take(60)).toBe(true);
    expect(room.take(41)).toBe(false);
    expect(room.take(40)).toBe(true);
    room.give(60);
    expect(room.bytes()).toBe(40);
    expect(room.take(60)).toBe(true);
  });

  it("keeps the last eighth for small bodies", () => {
    const room = createInFlight(8 * MIB, MIB);
    expect(room.take(7 * MIB, 7 * MIB)).toBe(true);
    expect(room.take(1, 64 * 1024 + 1)).toBe(false);
    expect(room.take(1, 64 * 1024)).toBe(true);
    expect(room.take(MIB, MIB)).toBe(false);
    expect(room.take(1000)).toBe(true);
  });

  it("always has room for one body of the largest size", () => {
    expect(createInFlight(MIB, MIB).take(MIB, MIB)).toBe(true);
    expect(createInFlight(MIB + 10, MIB).take(MIB, MIB)).toBe(true);
  });
});
