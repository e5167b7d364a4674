import { createScan, decodedBytes, firstElement, isNull, keyTable } from "./json-bytes.ts";
import { nextElement, readString, scanObject, valueEnd, valueStart } from "./json-bytes.ts";
import type { KeyTable, ObjectScan } from "./json-bytes.ts";

/** Upstreams are trusted with deeper nesting than callers, but not with any. */
export const UPSTREAM_DEPTH_MAX = 512;

interface Shape {
  readonly table: KeyTable;
  readonly scan: ObjectScan;
}

function shape(names: readonly string[], ignored: readonly string[]): Shape {
  const table = keyTable(names, ignored);
  return { table, scan: createScan(table) };
}

const INDEX = 0;
const FINISH_REASON = 1;
const DELTA = 2;
const MESSAGE = 3;
const CHOICE = shape(
  ["index", "finish_reason", "delta", "message"],
  ["logprobs", "native_finish_reason"],
);

const CONTENT = 0;
const REFUSAL = 1;
const REASONING_CONTENT = 2;
const REASONING = 3;
const TOOL_CALLS = 4;
const FUNCTION_CALL = 5;
const AUDIO = 6;
const DELTA_SHAPE = shape(
  ["content", "refusal", "reasoning_content", "reasoning", "tool_calls", "function_call", "audio"],
  ["role", "annotations", "reasoning_details"],
);

const TOOL_CALL = shape(["function", "custom"], ["index", "id", "type"]);
const FUNCTION = shape(["name", "arguments", "input"], []);
const TRANSCRIPT = 0;
const AUDIO_DATA = 1;
const AUDIO_SHAPE = shape(["transcript", "data"], ["id", "expires_at"]);

/** What one choice of an answer or of a chunk says. Filled anew by each reading. */
export interface ChoiceFacts {
  index: number;
  /** UTF-8 bytes of text that the caller sees: content, refusal, reasoning, names and arguments of tool calls, transcript. */
  visibleBytes: number;
  /** Decoded bytes of audio. */
  audioBytes: number;
  /** The reason in the bytes; empty when the choice goes on. */
  finishReason: string;
  /** The span of the content's string, when it is all that the choice says; a start of 0 otherwise. */
  contentStart: number;
  contentEnd: number;
}

/**
 * Reads the choice that starts at `start` and ends before `end`, of a chunk (`delta`) or of a whole answer (`message`).
 * Returns where it ends, or -1 when it is garbage.
 */
export function readChoice(bytes: Buffer, start: number, end: number, facts: ChoiceFacts): number {
  const { table, scan } = CHOICE;
  const failure = scanObject(bytes, start, end, table, scan, UPSTREAM_DEPTH_MAX);
  if (failure !== undefined && failure !== "trailing_bytes") return -1;
  const choiceEnd = scan.objectEnd;
  const index = valueStart(scan, INDEX);
  facts.index = index === 0 ? 0 : smallInteger(bytes, index, valueEnd(scan, INDEX));
  facts.finishReason = finishReasonAt(bytes, scan);
  const said = valueStart(scan, DELTA) !== 0 ? DELTA : MESSAGE;
  const from = valueStart(scan, said);
  const to = valueEnd(scan, said);
  facts.visibleBytes = 0;
  facts.audioBytes = 0;
  facts.contentStart = 0;
  if (from === 0 || isNull(bytes, from, to)) return choiceEnd;
  const visible = visibleIn(bytes, from, to, facts);
  if (visible < 0) return -1;
  facts.visibleBytes = visible;
  const content = valueStart(DELTA_SHAPE.scan, CONTENT);
  const contentEnd = valueEnd(DELTA_SHAPE.scan, CONTENT);
  const isAllContent = visible > 0 && facts.audioBytes === 0;
  if (content !== 0 && isAllContent && visible === decodedBytes(bytes, content, contentEnd)) {
    facts.contentStart = content;
    facts.contentEnd = contentEnd;
  }
  return choiceEnd;
}

/** Why the choice that starts at `start` ended, without looking at what it says; empty when it did not. */
export function readFinishReason(bytes: Buffer, start: number, end: number): string {
  const failure = scanObject(bytes, start, end, CHOICE.table, CHOICE.scan, UPSTREAM_DEPTH_MAX);
  return failure === undefined || failure === "trailing_bytes"
    ? finishReasonAt(bytes, CHOICE.scan)
    : "";
}

function finishReasonAt(bytes: Buffer, scan: ObjectScan): string {
  const from = valueStart(scan, FINISH_REASON);
  const to = valueEnd(scan, FINISH_REASON);
  return from === 0 || isNull(bytes, from, to) ? "" : (readString(bytes, from, to) ?? "");
}

/** A small whole number; 0 when it is absent or something else, as with providers that send a single choice bare. */
function smallInteger(bytes: Buffer, start: number, end: number): number {
  if (end - start > 4) return 0;
  let value = 0;
  for (let pos = start; pos < end; pos += 1) {
    const digit = (bytes[pos] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) return 0;
    value = value * 10 + digit;
  }
  return value;
}

/** The visible bytes of a delta or message, -1 when it is no object; its audio goes into the facts. */
function visibleIn(bytes: Buffer, start: number, end: number, facts: ChoiceFacts): number {
  const { table, scan } = DELTA_SHAPE;
  if (scanObject(bytes, start, end, table, scan, UPSTREAM_DEPTH_MAX) !== undefined) return -1;
  let sum = textAt(bytes, scan, CONTENT) + textAt(bytes, scan, REFUSAL);
  // Some providers send the same reasoning under both names.
  sum += Math.max(textAt(bytes, scan, REASONING_CONTENT), textAt(bytes, scan, REASONING));
  const call = valueStart(scan, FUNCTION_CALL);
  if (call !== 0) sum += textOfFunction(bytes, call, valueEnd(scan, FUNCTION_CALL));
  const audio = valueStart(scan, AUDIO);
  if (audio !== 0) sum += readAudio(bytes, audio, valueEnd(scan, AUDIO), facts);
  const calls = valueStart(scan, TOOL_CALLS);
  return calls === 0 ? sum : sum + textOfToolCalls(bytes, calls, valueEnd(scan, TOOL_CALLS));
}

function textAt(bytes: Buffer, scan: ObjectScan, slot: number): number {
  const start = valueStart(scan, slot);
  return start === 0 ? 0 : decodedBytes(bytes, start, valueEnd(scan, slot));
}

/** The text of all members that a shape names. */
function textOf(bytes: Buffer, start: number, end: number, { table, scan }: Shape): number {
  if (scanObject(bytes, start, end, table, scan, UPSTREAM_DEPTH_MAX) !== undefined) return 0;
  let sum = 0;
  for (let slot = 0; slot < table.names.length; slot += 1) sum += textAt(bytes, scan, slot);
  return sum;
}

/** The text of an audio member; the bytes that its base64 stands for go into the facts. */
function readAudio(bytes: Buffer, start: number, end: number, facts: ChoiceFacts): number {
  const { table, scan } = AUDIO_SHAPE;
  if (scanObject(bytes, start, end, table, scan, UPSTREAM_DEPTH_MAX) !== undefined) return 0;
  facts.audioBytes = Math.floor((textAt(bytes, scan, AUDIO_DATA) * 3) / 4);
  return textAt(bytes, scan, TRANSCRIPT);
}

function textOfFunction(bytes: Buffer, start: number, end: number): number {
  return textOf(bytes, start, end, FUNCTION);
}

function textOfToolCalls(bytes: Buffer, start: number, end: number): number {
  const { table, scan } = TOOL_CALL;
  let sum = 0;
  let from = firstElement(bytes, start, end);
  while (from >= 0) {
    const failure = scanObject(bytes, from, end, table, scan, UPSTREAM_DEPTH_MAX);
    if (failure !== undefined && failure !== "trailing_bytes") return sum;
    from = nextElement(bytes, scan.objectEnd, end);
    for (let slot = 0; slot < table.names.length; slot += 1) {
      const at = valueStart(scan, slot);
      if (at !== 0) sum += textOfFunction(bytes, at, valueEnd(scan, slot));
    }
  }
  return sum;
}
