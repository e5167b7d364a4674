import { decodedBytes } from "./json-bytes.ts";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * The chunks of a stream differ only in what they say. A template is a chunk that was read in full, with holes where
 * its content (and the padding that OpenAI calls obfuscation) stood. Bytes that fit around the holes need no second
 * reading: the same bytes around a string mean the same.
 */
export interface ChunkTemplate {
  /** The bytes before, between and after the holes, from the start of the event to its end. */
  readonly fixed: readonly Buffer[];
  /** Which hole is the content. */
  readonly contentHole: number;
  /** What to leave out of the event: offsets in the last of the fixed parts, or both 0. */
  readonly cutStart: number;
  readonly cutEnd: number;
}

/** Where the last match was. Only valid right after {@link matchTemplate} gave an end. */
export const MATCH = { visibleBytes: 0, cutStart: 0, cutEnd: 0 };

/**
 * Makes a template of the event at [eventStart, eventEnd). The holes are the spans of its strings, quotes included, in
 * any order. Undefined when what is to be cut does not stand behind the last hole.
 */
export function learnTemplate(
  bytes: Buffer,
  eventStart: number,
  eventEnd: number,
  content: { readonly start: number; readonly end: number },
  padding: { readonly start: number; readonly end: number } | undefined,
  cut: { readonly start: number; readonly end: number } | undefined,
): ChunkTemplate | undefined {
  const holes =
    padding === undefined ? [content] : [content, padding].sort((a, b) => a.start - b.start);
  const fixed: Buffer[] = [];
  let from = eventStart;
  for (const hole of holes) {
    fixed.push(Buffer.from(bytes.subarray(from, hole.start + 1)));
    from = hole.end - 1;
  }
  fixed.push(Buffer.from(bytes.subarray(from, eventEnd)));
  if (cut !== undefined && cut.start < from) return undefined;
  const contentHole = holes.indexOf(content);
  return {
    fixed,
    contentHole,
    cutStart: cut ? cut.start - from : 0,
    cutEnd: cut ? cut.end - from : 0,
  };
}

/** Where the event that starts at `start` ends if it fits the template, with {@link MATCH} filled in; else -1. */
export function matchTemplate(template: ChunkTemplate, bytes: Buffer, start: number): number {
  const { fixed } = template;
  let pos = start;
  for (let part = 0; part < fixed.length; part += 1) {
    const same = fixed[part];
    if (same === undefined || pos + same.length > bytes.length) return -1;
    if (bytes.compare(same, 0, same.length, pos, pos + same.length) !== 0) return -1;
    if (part === fixed.length - 1) {
      MATCH.cutStart = pos + template.cutStart;
      MATCH.cutEnd = pos + template.cutEnd;
      return pos + same.length;
    }
    pos += same.length;
    const quote = plainQuote(bytes, pos);
    if (quote < 0) return -1;
    if (part === template.contentHole) MATCH.visibleBytes = decodedBytes(bytes, pos - 1, quote + 1);
    pos = quote;
  }
  return -1;
}

/** The closing quote of a string; -1 when it has not come, or when a line ends before it. */
function plainQuote(bytes: Buffer, from: number): number {
  for (let pos = from; pos < bytes.length; pos += 1) {
    const byte = bytes[pos] ?? 0;
    if (byte === QUOTE) return pos;
    if (byte < 0x20) return -1;
    if (byte === BACKSLASH) {
      pos += 1;
      if ((bytes[pos] ?? 0) < 0x20) return -1;
    }
  }
  return -1;
}
