import type { AnswerStream, AnswerFault, StreamOutput } from "#services/gateway/shapes/shape.ts";
import { CUT, finishWord, noFacts, readChunk, type ChunkVerdict } from "./chunk.ts";

/** An event beyond this is no chat completion chunk. */
export const SSE_EVENT_BYTES_MAX = 4 * 1024 * 1024;

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const COLON = 0x3a;
/** The four bytes of the field name `data`. */
const DATA = 0x64617461;
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];
const DONE = "[DONE]";
const TERMINATOR = "data: [DONE]\n\n";
/** A field name is short; without a colon this early a line is no line of an event stream. */
const FIELD_NAME_BYTES_MAX = 32;

const EMPTY = Buffer.alloc(0);
const NOTHING: StreamOutput = { out: undefined };

/** Offsets count from the start of the bytes in hand, and move with them. */
function startFraming(hideUsage: boolean) {
  return {
    facts: noFacts(),
    hideUsage,
    /** The bytes of an event that has begun and is not whole, with room for more; `heldLength` of them count. */
    held: EMPTY as Buffer,
    heldLength: 0,
    eventStart: 0,
    lineStart: 0,
    /** Up to here there is no line end behind `lineStart`. */
    searched: 0,
    /** Start and end of each data line's text in the present event. */
    data: [] as number[],
    isErrorEvent: false,
    isFirstLine: true,
    state: "open" as "open" | "done" | AnswerFault,
  };
}
type Framing = ReturnType<typeof startFraming>;

/** Makes the filter for one streamed answer. `includeUsageAsked` says whether the caller wants to see usage. */
export function createChatStream(options: { readonly includeUsageAsked: boolean }): AnswerStream {
  const framing = startFraming(!options.includeUsageAsked);
  const { facts } = framing;
  return {
    push: (bytes) => pushBytes(framing, bytes),
    end: () => endBytes(framing),
    said: facts,
    finish: () => finishWord(facts.finishReasons[0]),
    terminator: TERMINATOR,
    get done() {
      return framing.state === "done";
    },
    get heldBytes() {
      return framing.held.length;
    },
    get isComplete() {
      return facts.startedCount > 0 && facts.finishedCount === facts.startedCount;
    },
  };
}

function pushBytes(framing: Framing, bytes: Uint8Array): StreamOutput {
  if (framing.state !== "open" || bytes.length === 0) return NOTHING;
  const wasHeld = framing.heldLength > 0;
  const buffer = wasHeld ? joinHeld(framing, bytes) : asBuffer(bytes);
  const kept: number[] = [0];
  const state = readEvents(framing, buffer, kept);
  const eventStart = framing.eventStart;
  if (state === "open") hold(framing, buffer, eventStart, wasHeld);
  else framing.held = EMPTY;
  kept.push(eventStart);
  const out = assemble(buffer, kept);
  return state === "open" || state === "done" ? { out } : { out, failed: state };
}

/**
 * Reads all whole events in the buffer. `kept` grows by the borders of what is left out: it holds the start of a span
 * that passes, its end, the start of the next, and so on.
 */
function readEvents(framing: Framing, buffer: Buffer, kept: number[]): Framing["state"] {
  for (;;) {
    const lineEnd = buffer.indexOf(LINE_FEED, framing.searched);
    if (lineEnd < 0) {
      framing.searched = buffer.length;
      if (buffer.length - framing.eventStart > SSE_EVENT_BYTES_MAX) framing.state = "garbage";
      return framing.state;
    }
    const start = framing.lineStart;
    const end = lineEnd > start && buffer[lineEnd - 1] === CARRIAGE_RETURN ? lineEnd - 1 : lineEnd;
    framing.lineStart = framing.searched = lineEnd + 1;
    if (end > start) {
      if (!readLine(framing, buffer, start, end)) framing.state = "garbage";
    } else {
      framing.isFirstLine = false;
      const verdict =
        lineEnd + 1 - framing.eventStart > SSE_EVENT_BYTES_MAX
          ? "garbage"
          : readEvent(framing, buffer);
      if (verdict === "cut") kept.push(CUT.start, CUT.end);
      else if (verdict === "drop") kept.push(framing.eventStart, lineEnd + 1);
      else if (verdict !== "keep") framing.state = verdict;
      framing.data.length = 0;
      framing.isErrorEvent = false;
    }
    if (framing.state !== "open") return framing.state;
    if (end === start) framing.eventStart = lineEnd + 1;
  }
}

/** Notes one line of an event. False when no event stream has such a line. */
function readLine(framing: Framing, buffer: Buffer, lineStart: number, end: number): boolean {
  let start = lineStart;
  if (framing.isFirstLine) {
    framing.isFirstLine = false;
    if (BYTE_ORDER_MARK.every((byte, at) => buffer[start + at] === byte)) start += 3;
    if (start === end) return true;
  }
  const first = buffer[start] ?? 0;
  if (first === COLON) return true;
  const isLetter = (first | 0x20) >= 0x61 && (first | 0x20) <= 0x7a;
  if (!isLetter) return false;
  const nameMax = Math.min(end, start + FIELD_NAME_BYTES_MAX);
  let colon = start;
  while (colon < nameMax && buffer[colon] !== COLON) colon += 1;
  if (colon === nameMax && colon !== end) return false;
  let value = Math.min(colon + 1, end);
  if (value < end && buffer[value] === SPACE) value += 1;
  if (colon - start === 4 && buffer.readUInt32BE(start) === DATA) framing.data.push(value, end);
  else if (colon === end) return isBareField(buffer, start, end);
  else if (first === 0x65 && colon - start === 5) {
    framing.isErrorEvent = end - value === 5 && buffer.toString("latin1", value, end) === "error";
  }
  return true;
}

/** A field name without a value is allowed, if it is one of the four that there are. */
function isBareField(buffer: Buffer, start: number, end: number): boolean {
  const name = buffer.toString("latin1", start, end);
  return name === "event" || name === "id" || name === "retry";
}

/** Decides about the event whose lines have been read. `done` and the failures end the stream. */
function readEvent(framing: Framing, buffer: Buffer): ChunkVerdict | "done" {
  if (framing.isErrorEvent) return "upstream_error";
  const { data, facts, hideUsage } = framing;
  if (data.length === 0) return "keep";
  const start = data[0] ?? 0;
  const end = data[1] ?? 0;
  if (data.length > 2) return readJoined(framing, buffer);
  if (end - start < 16 && buffer.toString("latin1", start, end).trim() === DONE) return "done";
  return readChunk(buffer, start, end, facts, hideUsage);
}

/** An event of several data lines: its text is the lines with line feeds between them. */
function readJoined(framing: Framing, buffer: Buffer): ChunkVerdict | "done" {
  const { data, facts, hideUsage } = framing;
  const parts: Buffer[] = [];
  for (let at = 0; at < data.length; at += 2)
    parts.push(buffer.subarray(data[at], data[at + 1]), LINE_FEED_BYTES);
  const joined = Buffer.concat(parts.slice(0, -1));
  if (joined.length < 16 && joined.toString("latin1").trim() === DONE) return "done";
  const verdict = readChunk(joined, 0, joined.length, facts, hideUsage);
  if (verdict === "cut") {
    // Both ends lie in data lines, so what is left of the first and the last one makes one line again.
    CUT.start = placeOf(data, CUT.start);
    CUT.end = placeOf(data, CUT.end);
  }
  return verdict;
}

const LINE_FEED_BYTES = Buffer.from("\n");

/** Where an offset in the joined text stands in the buffer. */
function placeOf(data: readonly number[], offset: number): number {
  let left = offset;
  for (let at = 0; at < data.length; at += 2) {
    const start = data[at] ?? 0;
    const length = (data[at + 1] ?? 0) - start;
    if (left <= length) return start + left;
    left -= length + 1;
  }
  return data.at(-1) ?? 0;
}

/** Puts the pushed bytes behind those that are held. The room doubles, so that many small pieces cost little. */
function joinHeld(framing: Framing, bytes: Uint8Array): Buffer {
  const length = framing.heldLength + bytes.length;
  if (length > framing.held.length) {
    const larger = Buffer.allocUnsafeSlow(Math.max(1024, length, framing.held.length * 2));
    framing.held.copy(larger, 0, 0, framing.heldLength);
    framing.held = larger;
  }
  framing.held.set(bytes, framing.heldLength);
  framing.heldLength = length;
  return framing.held.subarray(0, length);
}

/** Keeps what follows the last whole event, and moves the offsets to it. */
function hold(framing: Framing, buffer: Buffer, eventStart: number, wasHeld: boolean): void {
  // Nothing was given out of the held bytes, so they can stay where they are and grow.
  if (wasHeld && eventStart === 0) return;
  const rest = buffer.length - eventStart;
  // Bytes given out may still be on their way to the client: their memory is not used again.
  framing.held = rest === 0 ? EMPTY : Buffer.from(buffer.subarray(eventStart));
  framing.heldLength = rest;
  framing.lineStart -= eventStart;
  framing.searched -= eventStart;
  for (let at = 0; at < framing.data.length; at += 1)
    framing.data[at] = (framing.data[at] ?? 0) - eventStart;
  framing.eventStart = 0;
}

/** The spans of `kept` as one buffer, copied only if there is more than one. */
function assemble(buffer: Buffer, kept: readonly number[]): Uint8Array | undefined {
  let size = 0;
  let spans = 0;
  let only = 0;
  for (let at = 0; at < kept.length; at += 2) {
    const length = (kept[at + 1] ?? 0) - (kept[at] ?? 0);
    if (length === 0) continue;
    size += length;
    spans += 1;
    only = at;
  }
  if (spans === 0) return undefined;
  if (size === buffer.length) return buffer;
  if (spans === 1) return buffer.subarray(kept[only], kept[only + 1]);
  const out = Buffer.allocUnsafe(size);
  let to = 0;
  for (let at = 0; at < kept.length; at += 2) to += buffer.copy(out, to, kept[at], kept[at + 1]);
  return out;
}

function endBytes(framing: Framing): StreamOutput {
  if (framing.state !== "open" || framing.heldLength === 0) return NOTHING;
  const last = pushBytes(framing, EVENT_END);
  // A last event that was cut short is not garbage: the stream is just not complete.
  framing.heldLength = 0;
  if (last.failed === "garbage") return NOTHING;
  return last;
}

const EVENT_END = Buffer.from("\n\n");

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
