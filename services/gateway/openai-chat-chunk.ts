import {
  createScan,
  firstElement,
  isNull,
  keyTable,
  nextElement,
  scanObject,
} from "./json-bytes.ts";
import { valueEnd, valueStart } from "./json-bytes.ts";
import { removalSpan } from "./json-splice.ts";
import { nameAt, usageAt } from "./openai-chat-answer.ts";
import { readChoice, UPSTREAM_DEPTH_MAX } from "./openai-chat-choice.ts";
import type { ChoiceFacts } from "./openai-chat-choice.ts";
import type { ReadUsage } from "./openai-chat-usage.ts";

const CHOICES = 0;
const USAGE = 1;
const MODEL = 2;
const SERVICE_TIER = 3;
const ERROR = 4;
const MODERATION = 5;
const PROMPT_FILTER_RESULTS = 6;
const OBFUSCATION = 7;
const TABLE = keyTable(
  [
    "choices",
    "usage",
    "model",
    "service_tier",
    "error",
    "moderation",
    "prompt_filter_results",
    "obfuscation",
  ],
  ["id", "object", "created", "system_fingerprint", "provider", "x_groq"],
);
const SCAN = createScan(TABLE);
const CHOICE: ChoiceFacts = {
  index: 0,
  visibleBytes: 0,
  audioBytes: 0,
  finishReason: "",
  contentStart: 0,
  contentEnd: 0,
};

/** What the chunks of a stream have said so far. */
export interface ChunkFacts {
  usage: ReadUsage | undefined;
  servedModel: string | undefined;
  serviceTier: string | undefined;
  /** Of each started choice, by its index, why it ended; empty while it goes on. */
  readonly finishReasons: string[];
  startedCount: number;
  finishedCount: number;
  visibleBytes: number;
  audioBytes: number;
  /** Chunks that showed something. */
  chunks: number;
}

/** A name as it stood in the bytes last time: the same bytes again need no decoding. */
export interface SeenNames {
  model: Buffer;
  serviceTier: Buffer;
  /** One of them is another than before. Whoever remembers chunks by their bytes looks at it and takes it back. */
  changed: boolean;
}

/** What becomes of a chunk: it passes, it is taken out, or its usage member is; or the stream has failed. */
export type ChunkVerdict = "keep" | "drop" | "cut" | "upstream_error" | "garbage";

/** The span to leave out after the verdict `cut`. */
export const CUT = { start: 0, end: 0 };

interface Span {
  readonly start: number;
  readonly end: number;
}

/** After `keep` or `cut`: where the strings stand that alone change from chunk to chunk, if this is such a chunk. */
export const CHANGING: { content: Span | undefined; padding: Span | undefined } = {
  content: undefined,
  padding: undefined,
};

/**
 * Reads the chunk whose JSON spans [start, end) and adds what it says to the facts. With `hideUsage` it also decides
 * how to take out what the caller did not ask for: the chunk that exists only for usage, or the usage member of others.
 */
export function readChunk(
  bytes: Buffer,
  start: number,
  end: number,
  facts: ChunkFacts,
  seen: SeenNames,
  hideUsage: boolean,
): ChunkVerdict {
  CHANGING.content = undefined;
  if (scanObject(bytes, start, end, TABLE, SCAN, UPSTREAM_DEPTH_MAX) !== undefined)
    return "garbage";
  noteName(bytes, MODEL, facts, seen);
  noteName(bytes, SERVICE_TIER, facts, seen);
  const usageStart = valueStart(SCAN, USAGE);
  const usageEnd = valueEnd(SCAN, USAGE);
  const hasUsage = usageStart !== 0 && !isNull(bytes, usageStart, usageEnd);
  // The last usage wins: providers that repeat it count from the beginning each time. One that cannot be read leaves none.
  if (hasUsage) facts.usage = usageAt(bytes, usageStart, usageEnd);
  if (isThere(bytes, ERROR)) return "upstream_error";
  const choiceCount = readChoices(bytes, facts);
  if (choiceCount < 0) return "garbage";
  if (choiceCount === 1 && !hasUsage && CHOICE.contentStart !== 0 && CHOICE.finishReason === "")
    noteChanging(bytes);
  if (usageStart === 0 || !hideUsage) return "keep";
  const saysMore = isThere(bytes, MODERATION) || isThere(bytes, PROMPT_FILTER_RESULTS);
  if (hasUsage && choiceCount === 0 && !saysMore) return "drop";
  const span = removalSpan(bytes, SCAN.spans[USAGE * 4] ?? 0, usageEnd);
  CUT.start = span.start;
  CUT.end = span.end;
  return "cut";
}

function noteChanging(bytes: Buffer): void {
  CHANGING.content = { start: CHOICE.contentStart, end: CHOICE.contentEnd };
  const start = valueStart(SCAN, OBFUSCATION);
  const isString = start !== 0 && bytes[start] === 0x22;
  CHANGING.padding = isString ? { start, end: valueEnd(SCAN, OBFUSCATION) } : undefined;
}

function isThere(bytes: Buffer, slot: number): boolean {
  const start = valueStart(SCAN, slot);
  return start !== 0 && !isNull(bytes, start, valueEnd(SCAN, slot));
}

/** Adds the choices up and returns how many there are; -1 for garbage. No choices at all is none. */
function readChoices(bytes: Buffer, facts: ChunkFacts): number {
  const start = valueStart(SCAN, CHOICES);
  const end = valueEnd(SCAN, CHOICES);
  if (start === 0 || isNull(bytes, start, end)) return 0;
  if (bytes[start] !== 0x5b) return -1;
  let count = 0;
  let visibleBytes = 0;
  let from = firstElement(bytes, start, end);
  while (from >= 0) {
    const to = readChoice(bytes, from, end, CHOICE);
    if (to < 0) return -1;
    count += 1;
    visibleBytes += CHOICE.visibleBytes;
    facts.audioBytes += CHOICE.audioBytes;
    const before = facts.finishReasons[CHOICE.index];
    if (before === undefined) facts.startedCount += 1;
    if (CHOICE.finishReason !== "" && !before) facts.finishedCount += 1;
    if (before === undefined || CHOICE.finishReason !== "")
      facts.finishReasons[CHOICE.index] = CHOICE.finishReason;
    from = nextElement(bytes, to, end);
  }
  facts.visibleBytes += visibleBytes;
  if (visibleBytes > 0) facts.chunks += 1;
  return count;
}

function noteName(
  bytes: Buffer,
  slot: typeof MODEL | typeof SERVICE_TIER,
  facts: ChunkFacts,
  seen: SeenNames,
): void {
  const start = valueStart(SCAN, slot);
  if (start === 0) return;
  const end = valueEnd(SCAN, slot);
  const before = slot === MODEL ? seen.model : seen.serviceTier;
  if (sameBytes(before, bytes, start, end)) return;
  const name = nameAt(bytes, start, end);
  if (name === undefined) return;
  const now = Buffer.from(bytes.subarray(start, end));
  seen.changed = true;
  if (slot === MODEL) {
    facts.servedModel = name;
    seen.model = now;
  } else {
    facts.serviceTier = name;
    seen.serviceTier = now;
  }
}

function sameBytes(name: Buffer, bytes: Buffer, start: number, end: number): boolean {
  if (name.length !== end - start) return false;
  for (let at = 0; at < name.length; at += 1) if (name[at] !== bytes[start + at]) return false;
  return true;
}
