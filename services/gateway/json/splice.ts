import type { MemberSpan } from "./object.ts";
import { skipSpace } from "./scan.ts";

const COMMA = 0x2c;

/** One change of a body: the bytes [start, end) give way to the JSON text `by`. Made by the functions below. */
export interface Edit {
  readonly start: number;
  readonly end: number;
  readonly by: string;
  /** The span is a whole member, key to value, and one comma goes with it. */
  readonly removesMember: boolean;
}

/** Puts JSON text in the place of a key or a value. */
export function replacing(start: number, end: number, by: string): Edit {
  return { start, end, by, removesMember: false };
}

/** Puts JSON text in the place of a member's value. */
export function setting({ valueStart, valueEnd }: MemberSpan, by: string): Edit {
  return replacing(valueStart, valueEnd, by);
}

/** Takes a member out, with one of its commas. */
export function removing({ keyStart, valueEnd }: Pick<MemberSpan, "keyStart" | "valueEnd">): Edit {
  return { start: keyStart, end: valueEnd, by: "", removesMember: true };
}

/**
 * Puts a member, written as `"key":value`, first in the object that starts at `objectStart`. `followed` says whether
 * other members remain after it.
 */
export function inserting(objectStart: number, member: string, followed: boolean): Edit {
  const by = followed ? `${member},` : member;
  return { start: objectStart + 1, end: objectStart + 1, by, removesMember: false };
}

/**
 * Applies edits, whose spans may not overlap, to bytes that were scanned as a JSON object. Every byte outside of the
 * edits, and of the commas that go with removed members, stays as it is. Without edits the same buffer comes back.
 */
export function splice(bytes: Buffer, edits: readonly Edit[]): Buffer {
  if (edits.length === 0) return bytes;
  const ordered = [...edits].sort((a, b) => a.start - b.start || a.end - b.end);
  const starts = ordered.map(({ start }) => start);
  const ends = ordered.map(({ end }) => end);
  takeCommas(bytes, ordered, starts, ends);
  let size = bytes.length;
  for (const [i, { by }] of ordered.entries())
    size += Buffer.byteLength(by) - ((ends[i] ?? 0) - (starts[i] ?? 0));
  const out = Buffer.allocUnsafe(size);
  let from = 0;
  let to = 0;
  for (const [i, { by }] of ordered.entries()) {
    to += bytes.copy(out, to, from, starts[i]);
    if (by !== "") to += out.write(by, to);
    from = ends[i] ?? 0;
  }
  bytes.copy(out, to, from);
  return out;
}

/**
 * Widens removals by one comma each: the one that follows, or for the last member of an object the one before it,
 * which stands before the first of the removed members that it directly follows.
 */
function takeCommas(bytes: Buffer, edits: readonly Edit[], starts: number[], ends: number[]): void {
  let runFirst = -1;
  let runEnd = -1;
  for (const [i, edit] of edits.entries()) {
    if (!edit.removesMember) continue;
    if (runFirst < 0 || skipSpace(bytes, runEnd, bytes.length) !== edit.start) runFirst = i;
    const next = skipSpace(bytes, edit.end, bytes.length);
    if (bytes[next] === COMMA) {
      ends[i] = runEnd = next + 1;
      continue;
    }
    let before = (starts[runFirst] ?? 0) - 1;
    while (before >= 0 && isSpace(bytes[before])) before -= 1;
    if (bytes[before] === COMMA) starts[runFirst] = before;
    runFirst = -1;
  }
}

/** The span that takes one member out together with one comma, for whoever copies the bytes himself. */
export function removalSpan(
  bytes: Buffer,
  keyStart: number,
  valueEnd: number,
): { start: number; end: number } {
  const starts = [keyStart];
  const ends = [valueEnd];
  takeCommas(bytes, [removing({ keyStart, valueEnd })], starts, ends);
  return { start: starts[0] ?? keyStart, end: ends[0] ?? valueEnd };
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}
