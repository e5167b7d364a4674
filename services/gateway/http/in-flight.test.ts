import { describe, expect, it } from "vitest";
import { createRoom } from "./in-flight.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const SMALL = 64 * KIB;

function roomOf(bytesMax: number, bodyBytesMax = 1, answerBytesMax = 1) {
  return createRoom({ bytesMax, bodyBytesMax, answerBytesMax });
}

/** Takes one after another, of organizations in turn, until there is no room; gives the bytes taken. */
function fill(take: (org: string) => boolean, bytesEach: number, orgs = ["a", "b", "c", "d", "e"]) {
  let bytes = 0;
  for (let refused = 0, turn = 0; refused < orgs.length; turn++) {
    if (take(orgs[turn % orgs.length] ?? "")) [bytes, refused] = [bytes + bytesEach, 0];
    else refused += 1;
  }
  return bytes;
}

describe("createRoom", () => {
  it("gives room up to its limits, and again what was given back", () => {
    const room = roomOf(400);
    const [bodies, others] = [room.bodiesOf("a"), room.bodiesOf("b")];
    expect(bodies.take(60)).toBe(true);
    expect(bodies.take(16)).toBe(false);
    expect(bodies.take(15)).toBe(true);
    bodies.give(60);
    expect(room.bytes()).toBe(15);
    expect(bodies.take(60)).toBe(true);
    expect(others.take(75)).toBe(true);
    expect(room.bytes()).toBe(150);
  });

  it("gives one organization at most a quarter, of bodies and answers together, however often it is asked", () => {
    const room = roomOf(64 * MIB);
    expect(fill(() => room.bodiesOf("a").take(KIB), KIB, ["a"])).toBe(12 * MIB);
    expect(fill(() => room.answersOf("a").take(KIB), KIB, ["a"])).toBe(4 * MIB);
    expect(room.bodiesOf("b").take(10 * MIB)).toBe(true);
    room.answersOf("a").give(4 * MIB);
    room.bodiesOf("a").give(12 * MIB);
    expect([room.bytes(), room.organizations()]).toEqual([10 * MIB, 1]);
    room.bodiesOf("b").give(10 * MIB);
    room.bodiesOf("b").give(0);
    expect([room.bodiesOf("c").take(0), room.bodiesOf("c").take(65 * MIB)]).toEqual([true, false]);
    expect([room.bytes(), room.organizations()]).toEqual([0, 0]);
    expect(fill(() => room.answersOf("a").take(KIB), KIB, ["a"])).toBe(16 * MIB);
  });

  it("keeps a quarter for answers, of the whole and of an organization's share", () => {
    const room = roomOf(64 * MIB);
    const body = (org: string) => room.bodiesOf(org).take(SMALL);
    expect(fill(body, SMALL)).toBe(48 * MIB);
    expect(fill((org) => room.answersOf(org).take(SMALL), SMALL)).toBe(16 * MIB);
    const one = roomOf(64 * MIB);
    expect(fill((org) => one.bodiesOf(org).take(SMALL), SMALL, ["a"])).toBe(12 * MIB);
    expect(one.bodiesOf("a").take(1)).toBe(false);
    expect(one.answersOf("a").take(2 * MIB)).toBe(true);
  });

  it("keeps an eighth for small ones, of the whole and of an organization's share", () => {
    const room = roomOf(64 * MIB);
    expect(fill((org) => room.bodiesOf(org).take(MIB), MIB)).toBe(40 * MIB);
    expect(fill((org) => room.bodiesOf(org).take(SMALL), SMALL)).toBe(8 * MIB);
    expect(fill((org) => room.answersOf(org).take(MIB), MIB)).toBe(8 * MIB);
    expect(fill((org) => room.answersOf(org).take(SMALL), SMALL)).toBe(8 * MIB);
    const other = roomOf(64 * MIB);
    expect(fill((org) => other.answersOf(org).take(MIB), MIB)).toBe(56 * MIB);
    expect(other.bodiesOf("f").take(1, SMALL + 1)).toBe(false);
    expect(fill((org) => other.bodiesOf(org).take(SMALL), SMALL)).toBe(8 * MIB);
    const one = roomOf(64 * MIB);
    expect(fill((org) => one.bodiesOf(org).take(MIB), MIB, ["a"])).toBe(10 * MIB);
    expect(one.bodiesOf("a").take(1, SMALL + 1)).toBe(false);
    expect(one.bodiesOf("a").take(1, SMALL)).toBe(true);
  });

  it("always has room for one of the largest size where nothing else is", () => {
    for (const bytesMax of [MIB, MIB + 10, 3 * MIB, 20 * MIB]) {
      const room = roomOf(bytesMax, MIB, 2 * MIB);
      const body = room.bodiesOf("a");
      expect(body.take(MIB, MIB)).toBe(true);
      body.give(MIB);
      expect(room.answersOf("a").take(Math.min(bytesMax, 2 * MIB))).toBe(true);
    }
  });
});
