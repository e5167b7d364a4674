import { readFileSync } from "node:fs";
import type { BookCall, CallBeginning, CallEnding } from "#services/simulator/book.ts";

/**
 * All calls in a simulator's book, in the order in which they arrived, each with its ending if it has one. May be read
 * while the simulator writes: a last line that is not complete yet is left out. Throws on any other damage.
 */
export function readBook(path: string): BookCall[] {
  const calls = new Map<number, BookCall>();
  for (const text of readFileSync(path, "utf8").split("\n").slice(0, -1)) {
    const line = JSON.parse(text) as CallBeginning | CallEnding;
    const call = calls.get(line.call);
    if ("endedAtMs" in line) {
      if (!call) throw new Error(`the book ends call ${line.call}, which it never began`);
      calls.set(line.call, { ...call, ...line });
    } else {
      calls.set(line.call, { ...line, finished: false, clientGone: false, usageSent: false });
    }
  }
  return [...calls.values()];
}
