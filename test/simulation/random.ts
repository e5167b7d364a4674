import { sha256Hex } from "#domain/hash.ts";
import type { Random } from "#services/ports.ts";

/** Draws of one purpose. Each purpose has a stream of its own, so that one more draw here shifts nothing there. */
export interface Dice {
  /** At least 0 and below 1. */
  next(): number;
  chance(probability: number): boolean;
  /** A whole number from `low` to `high`, both included. */
  between(low: number, high: number): number;
  pick<T>(from: readonly T[]): T;
}

/** The dice of a purpose under a seed: mulberry32, started from the hash of both. */
export function diceOf(seed: number, purpose: string): Dice {
  let state = Number.parseInt(sha256Hex(`${seed}:${purpose}`).slice(0, 8), 16);
  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  }
  return {
    next,
    chance: (probability) => next() < probability,
    between: (low, high) => low + Math.floor(next() * (high - low + 1)),
    pick(from) {
      const chosen = from[Math.floor(next() * from.length)];
      if (chosen === undefined) throw new RangeError("there is nothing to pick from");
      return chosen;
    },
  };
}

/** The services' port for randomness, from dice. */
export function randomFrom(dice: Dice): Random {
  return { bytes: (count) => Uint8Array.from({ length: count }, () => dice.between(0, 255)) };
}
