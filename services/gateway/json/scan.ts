/**
 * Finds members of a JSON object in its UTF-8 bytes, and edits them there. Callers' bodies and upstream chunks are
 * relayed as bytes: to parse and re-stringify them would break 64-bit numbers, the order of keys and odd escapes.
 *
 * Only the object's own level is checked strictly. What is nested is skipped by counting brackets outside of strings:
 * a scan that succeeds on bytes that are no JSON inside a value is possible, the other way round is not.
 */

const TAB = 0x09;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** Strings shorter than this are walked byte by byte: below it a call of `indexOf` costs more than it saves. */
const SHORT_STRING_BYTES = 48;

const MALFORMED = -1;
const TOO_DEEP = -2;

/** The key has no slot and is none of the ignored ones. */
const UNKNOWN = -1;
/** The key is known, and nobody wants its span. */
const IGNORED = -2;

/** Makes a table of the keys to find. */
function keyTable(names: readonly string[], ignored: readonly string[]) {
  /** Candidates by length in bytes. */
  const byLength: { readonly bytes: Uint8Array; readonly slot: number }[][] = [];
  const slots = new Map<string, number>();
  const add = (name: string, slot: number): void => {
    slots.set(name, slot);
    (byLength[name.length] ??= []).push({ bytes: Buffer.from(name, "latin1"), slot });
  };
  names.forEach(add);
  for (const name of ignored) add(name, IGNORED);
  // A key of more bytes than this can be none of them, however it is written: six bytes write a character at most.
  return { byLength, slots, keyBytesMax: (byLength.length - 1) * 6 };
}
type KeyTable = ReturnType<typeof keyTable>;

export type ScanFailure =
  | "not_an_object"
  | "malformed"
  | "too_deep"
  | "too_many_values"
  | "trailing_bytes";

/**
 * The keys to find, and what a scan found of them; a key's slot is its place in `names`. `ignored` keys are known but
 * leave no span; they only do not count as unknown. All are plain ASCII. It is filled anew by each scan, so that the hot
 * path allocates nothing; whoever keeps spans beyond the next scan copies them.
 */
export function createScan(names: readonly string[], ignored: readonly string[] = []) {
  return {
    names,
    table: keyTable(names, ignored),
    /** Four numbers a slot: key start, key end, value start, value end; quotes included. All are 0 when it is absent. */
    spans: new Int32Array(names.length * 4),
    /** Two numbers a slot that is there: members in its value at every depth, and of an array's own elements. */
    counts: new Int32Array(names.length * 2),
    objectStart: 0,
    objectEnd: 0,
    memberCount: 0,
    /** The bytes of keys and values of members that the table does not know. */
    unknownBytes: 0,
    /** The slot of a key that came twice, else -1. The spans are of its last occurrence, as JSON.parse takes it. */
    duplicateSlot: -1,
    /** A key that is one of the table's names but for upper and lower case: some parsers take one for the other. */
    lookalikeSlot: -1,
  };
}
export type ObjectScan = ReturnType<typeof createScan>;

/** Where the value of a slot starts, or 0 when the object has no such member. */
export function valueStart(scan: ObjectScan, slot: number): number {
  return scan.spans[slot * 4 + 2] ?? 0;
}

/** Where the value of a slot ends (exclusive), or 0 when the object has no such member. */
export function valueEnd(scan: ObjectScan, slot: number): number {
  return scan.spans[slot * 4 + 3] ?? 0;
}

/** The members of the objects in a slot's value, at every depth or directly in its array; 0 when it is not there. */
export function membersIn(scan: ObjectScan, slot: number, ofElements = false): number {
  if (valueStart(scan, slot) === 0) return 0;
  return scan.counts[slot * 2 + (ofElements ? 1 : 0)] ?? 0;
}

/** The index of the quote that closes a string whose text starts at `from`, or -1. Linear also on `\"\"\"…`. */
function closingQuote(bytes: Uint8Array, from: number, end: number): number {
  let pos = from;
  for (;;) {
    const near = Math.min(pos + SHORT_STRING_BYTES, end);
    while (pos < near) {
      const byte = bytes[pos];
      if (byte === QUOTE) return pos;
      pos += byte === BACKSLASH ? 2 : 1;
    }
    if (pos >= end) return MALFORMED;
    const quote = bytes.indexOf(QUOTE, pos);
    if (quote === -1 || quote >= end) return MALFORMED;
    let slash = quote;
    while (slash > pos && bytes[slash - 1] === BACKSLASH) slash -= 1;
    if (((quote - slash) & 1) === 0) return quote;
    pos = quote + 1;
  }
}

/** The first index from `from` on that holds no JSON white space. */
export function skipSpace(bytes: Uint8Array, from: number, end: number): number {
  let pos = from;
  while (pos < end) {
    const byte = bytes[pos] ?? 0;
    if (byte > SPACE) break;
    if (byte !== SPACE && byte !== LINE_FEED && byte !== CARRIAGE_RETURN && byte !== TAB) break;
    pos += 1;
  }
  return pos;
}

/** Commas and opening brackets that containerEnd has passed since the scan began. */
let passed = 0;
/** Colons that it has passed since the present member's value began: the members of objects in it, at every depth. */
let membersWithin = 0;
/** Those among them that belong to the objects directly in it, when it is an array. */
let elementMembers = 0;

/** The end of the array or object that starts at `from`, by counting brackets. */
function containerEnd(bytes: Uint8Array, from: number, end: number, depthMax: number): number {
  let pos = from;
  let depth = 0;
  while (pos < end) {
    const byte = bytes[pos] ?? 0;
    if (byte === QUOTE) {
      pos = closingQuote(bytes, pos + 1, end);
      if (pos < 0) return MALFORMED;
    } else if (byte < OPEN_BRACKET) {
      // Digits, colons and white space: most of what stands between strings.
      if (byte === COMMA) passed += 1;
      else if (byte === COLON) {
        membersWithin += 1;
        if (depth === 2) elementMembers += 1;
      }
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      passed += 1;
      depth += 1;
      if (depth > depthMax) return TOO_DEEP;
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      depth -= 1;
      if (depth === 0) return pos + 1;
    }
    pos += 1;
  }
  return MALFORMED;
}

/** The end of a number, true, false or null: where a delimiter or white space comes. */
function scalarEnd(bytes: Uint8Array, from: number, end: number): number {
  let pos = from;
  while (pos < end) {
    const byte = bytes[pos] ?? 0;
    // Signs, digits, the point and letters: everything that numbers and the three words consist of.
    const inWord =
      (byte >= 0x30 && byte <= 0x39) ||
      (byte >= 0x61 && byte <= 0x7a) ||
      byte === 0x2d ||
      byte === 0x2e ||
      byte === 0x2b ||
      byte === 0x45;
    if (!inWord) break;
    pos += 1;
  }
  return pos === from ? MALFORMED : pos;
}

function anyEnd(bytes: Uint8Array, from: number, end: number, depthMax: number): number {
  const byte = bytes[from];
  if (byte === QUOTE) {
    const quote = closingQuote(bytes, from + 1, end);
    return quote < 0 ? MALFORMED : quote + 1;
  }
  if (byte === OPEN_BRACE || byte === OPEN_BRACKET) return containerEnd(bytes, from, end, depthMax);
  return scalarEnd(bytes, from, end);
}

/** The JSON value that spans [start, end); undefined where it is none. */
export function parseWithin(bytes: Buffer, start: number, end: number): unknown {
  try {
    return JSON.parse(bytes.toString("utf8", start, end)) as unknown;
  } catch {
    return undefined;
  }
}

/** A string's value, from its span with the quotes; undefined when it is no valid JSON string. */
export function readString(bytes: Buffer, start: number, end: number): string | undefined {
  if (bytes[start] !== QUOTE) return undefined;
  const value = parseWithin(bytes, start, end);
  return typeof value === "string" ? value : undefined;
}

/** True when the value at this span is the word `null`. */
export function isNull(bytes: Uint8Array, start: number, end: number): boolean {
  return end - start === 4 && bytes[start] === 0x6e;
}

/** The slot of a key whose text (without quotes) spans [start, end). */
function slotOf(table: KeyTable, bytes: Buffer, start: number, end: number): number {
  const candidates = table.byLength[end - start];
  if (candidates !== undefined) {
    for (const candidate of candidates) {
      const name = candidate.bytes;
      let at = 0;
      while (at < name.length && name[at] === bytes[start + at]) at += 1;
      if (at === name.length) return candidate.slot;
    }
  }
  if (end - start > table.keyBytesMax) return UNKNOWN;
  for (let pos = start; pos < end; pos += 1) {
    if (bytes[pos] === BACKSLASH) {
      const key = readString(bytes, start - 1, end + 1);
      return key === undefined ? UNKNOWN : (table.slots.get(key) ?? UNKNOWN);
    }
  }
  return UNKNOWN;
}

/**
 * The slot of the name that an unknown key resembles. Go's JSON reads keys whatever their case, with the long s and
 * the Kelvin sign as s and k; up and down again maps all of those to one spelling.
 */
function lookalikeOf(table: KeyTable, bytes: Buffer, start: number, end: number): number {
  if (end - start > table.keyBytesMax) return -1;
  let plain = true;
  for (let pos = start; pos < end && plain; pos += 1) {
    const byte = bytes[pos] ?? 0;
    plain = byte < 0x80 && (byte < 0x41 || byte > 0x5a) && byte !== BACKSLASH;
  }
  if (plain) return -1;
  const key = readString(bytes, start - 1, end + 1);
  return key === undefined ? -1 : (table.slots.get(key.toUpperCase().toLowerCase()) ?? -1);
}

/**
 * Scans the JSON object that fills [start, end) of `bytes`, white space around it allowed, and writes the spans of its
 * keys into `scan`. The object itself is depth 1 of `depthMax`. A key may be written with escapes.
 * Returns undefined when the object could be read. Keys that come twice or in another case are noted, not refused.
 * `valuesMax` bounds its members, elements and containers at all depths together, roughly: whoever parses the object
 * afterwards pays for each of them, and two bytes can make one.
 */
export function scanObject(
  bytes: Buffer,
  start: number,
  end: number,
  scan: ObjectScan,
  depthMax: number,
  valuesMax = Infinity,
): ScanFailure | undefined {
  passed = 0;
  // A loop is quicker than `fill` for so few.
  for (let at = 0; at < scan.spans.length; at += 1) scan.spans[at] = 0;
  scan.memberCount = 0;
  scan.unknownBytes = 0;
  scan.duplicateSlot = -1;
  scan.lookalikeSlot = -1;
  let pos = skipSpace(bytes, start, end);
  if (pos >= end || bytes[pos] !== OPEN_BRACE) return "not_an_object";
  if (depthMax < 1) return "too_deep";
  scan.objectStart = pos;
  pos = skipSpace(bytes, pos + 1, end);
  if (bytes[pos] === CLOSE_BRACE && pos < end) pos += 1;
  else {
    for (;;) {
      if (pos >= end || bytes[pos] !== QUOTE) return "malformed";
      const keyStart = pos;
      const quote = closingQuote(bytes, pos + 1, end);
      if (quote < 0) return "malformed";
      pos = skipSpace(bytes, quote + 1, end);
      if (pos >= end || bytes[pos] !== COLON) return "malformed";
      const valueAt = skipSpace(bytes, pos + 1, end);
      membersWithin = elementMembers = 0;
      pos = anyEnd(bytes, valueAt, end, depthMax - 1);
      if (pos < 0) return pos === TOO_DEEP ? "too_deep" : "malformed";
      scan.memberCount += 1;
      if (scan.memberCount + passed > valuesMax) return "too_many_values";
      note(bytes, scan, keyStart, quote + 1, valueAt, pos);
      pos = skipSpace(bytes, pos, end);
      const byte = pos < end ? bytes[pos] : 0;
      pos += 1;
      if (byte === CLOSE_BRACE) break;
      if (byte !== COMMA) return "malformed";
      pos = skipSpace(bytes, pos, end);
    }
  }
  scan.objectEnd = pos;
  return skipSpace(bytes, pos, end) === end ? undefined : "trailing_bytes";
}

function note(
  bytes: Buffer,
  scan: ObjectScan,
  keyStart: number,
  keyEnd: number,
  valueAt: number,
  valueTo: number,
): void {
  const slot = slotOf(scan.table, bytes, keyStart + 1, keyEnd - 1);
  if (slot >= 0) {
    const spans = scan.spans;
    const at = slot * 4;
    if (spans[at + 2] !== 0) scan.duplicateSlot = slot;
    spans[at] = keyStart;
    spans[at + 1] = keyEnd;
    spans[at + 2] = valueAt;
    spans[at + 3] = valueTo;
    scan.counts[slot * 2] = membersWithin;
    scan.counts[slot * 2 + 1] = elementMembers;
  } else if (slot === UNKNOWN) {
    scan.unknownBytes += keyEnd - keyStart + valueTo - valueAt;
    const lookalike = lookalikeOf(scan.table, bytes, keyStart + 1, keyEnd - 1);
    if (lookalike >= 0) scan.lookalikeSlot = lookalike;
  }
}

/** The start of the first element of the array at [start, end), or -1 when it is empty or no array. */
export function firstElement(bytes: Uint8Array, start: number, end: number): number {
  if (bytes[start] !== OPEN_BRACKET) return -1;
  const pos = skipSpace(bytes, start + 1, end);
  return pos < end && bytes[pos] !== CLOSE_BRACKET ? pos : -1;
}
