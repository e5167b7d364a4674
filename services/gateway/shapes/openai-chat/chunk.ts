import { isMembers, type Members } from "#services/gateway/json/object.ts";
import { createScan, parseWithin, scanObject, valueEnd } from "#services/gateway/json/scan.ts";
import { removalSpan } from "#services/gateway/json/splice.ts";
import type { Mutable, SeenOutput } from "#services/gateway/shapes/estimate.ts";
import { readUsage } from "#services/gateway/shapes/openai/usage.ts";
import { nameOf, UPSTREAM_DEPTH_MAX } from "#services/gateway/shapes/openai/whole-answer.ts";
import type { Said } from "#services/gateway/shapes/shape.ts";

/** What the chunks of a stream, or the choices of a whole answer, have said so far. */
export interface ChunkFacts extends Mutable<Said & SeenOutput> {
  /** Of each started choice, by its index, why it ended; empty while it goes on. */
  readonly finishReasons: string[];
  startedCount: number;
  finishedCount: number;
}

const FINISH_WORDS = new Set("stop length tool_calls content_filter function_call".split(" "));

/** The reason for an answer's end as the event repeats it: a word that we know, for any other text is the upstream's. */
export function finishWord(reason = ""): string {
  return reason === "" || FINISH_WORDS.has(reason) ? reason : "other";
}

export function noFacts(): ChunkFacts {
  return {
    usage: undefined,
    servedModel: undefined,
    serviceTier: undefined,
    finishReasons: [],
    startedCount: 0,
    finishedCount: 0,
    visibleBytes: 0,
    audioBytes: 0,
    chunks: 0,
  };
}

/** What becomes of a chunk: it passes, it is taken out, or its usage member is; or the stream has failed. */
export type ChunkVerdict = "keep" | "drop" | "cut" | "upstream_error" | "garbage";

/** The span to leave out after the verdict `cut`. */
export const CUT = { start: 0, end: 0 };

const USAGE_SCAN = createScan(["usage"]);

/**
 * Reads the chunk whose JSON spans [start, end) and adds what it says to the facts. With `hideUsage` it also decides
 * how to take out what the caller did not ask for: the chunk that exists only for usage, or the usage member of others.
 * Each chunk is parsed: to scan its bytes for the few members of interest costs more than V8's own parser.
 */
export function readChunk(
  bytes: Buffer,
  start: number,
  end: number,
  facts: ChunkFacts,
  hideUsage: boolean,
): ChunkVerdict {
  const chunk = parseWithin(bytes, start, end);
  if (!isMembers(chunk)) return "garbage";
  facts.servedModel = nameOf(chunk["model"]) ?? facts.servedModel;
  facts.serviceTier = nameOf(chunk["service_tier"]) ?? facts.serviceTier;
  const usage = chunk["usage"];
  // The last usage wins: providers that repeat it count from the beginning each time. One that cannot be read leaves none.
  if (isThere(usage)) facts.usage = readUsage(usage);
  if (isThere(chunk["error"])) return "upstream_error";
  const choiceCount = addChoices(chunk["choices"], facts);
  if (choiceCount < 0) return "garbage";
  if (usage === undefined || !hideUsage) return "keep";
  const saysMore = isThere(chunk["moderation"]) || isThere(chunk["prompt_filter_results"]);
  if (isThere(usage) && choiceCount === 0 && !saysMore) return "drop";
  if (usage !== null || !cutLastNull(bytes, end)) {
    scanObject(bytes, start, end, USAGE_SCAN, UPSTREAM_DEPTH_MAX);
    Object.assign(CUT, removalSpan(bytes, USAGE_SCAN.spans[0] ?? 0, valueEnd(USAGE_SCAN, 0)));
  }
  return "cut";
}

const NULL_USAGE = Buffer.from(',"usage":null');
const BRACKETS: ReadonlySet<number> = new Set(Buffer.from("[]{}"));

/**
 * The usual place of the usual value, without a scan: a quote within a string is escaped, so these bytes are a member,
 * and it is one of the chunk itself when no bracket stands between it and the chunk's own last one.
 */
function cutLastNull(bytes: Buffer, end: number): boolean {
  const at = bytes.lastIndexOf(NULL_USAGE, end - 1);
  if (at < 0) return false;
  const after = at + NULL_USAGE.length;
  for (let pos = after; pos < end - 1; pos += 1) if (BRACKETS.has(bytes[pos] ?? 0)) return false;
  CUT.start = at;
  CUT.end = after;
  return bytes[end - 1] === 0x7d;
}

function isThere(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/**
 * Adds the choices of a chunk (their `delta`) or of a whole answer (their `message`) up, and returns how many there are;
 * -1 for garbage. No choices at all is none.
 */
export function addChoices(choices: unknown, facts: ChunkFacts): number {
  if (!isThere(choices)) return 0;
  if (!Array.isArray(choices)) return -1;
  let visibleBytes = 0;
  for (const choice of choices as readonly unknown[]) {
    if (!isMembers(choice)) return -1;
    const said = choice["delta"] ?? choice["message"];
    if (isThere(said)) {
      if (!isMembers(said)) return -1;
      visibleBytes += visibleIn(said);
      const audio = said["audio"];
      if (isMembers(audio)) facts.audioBytes += Math.floor((bytesOf(audio["data"]) * 3) / 4);
    }
    const { index: at, finish_reason: reason } = choice;
    const index = typeof at === "number" && Number.isInteger(at) && at >= 0 && at < 1000 ? at : 0;
    const finishReason = typeof reason === "string" ? reason : "";
    const before = facts.finishReasons[index];
    if (before === undefined) facts.startedCount += 1;
    if (finishReason !== "" && !before) facts.finishedCount += 1;
    if (before === undefined || finishReason !== "") facts.finishReasons[index] = finishReason;
  }
  facts.visibleBytes += visibleBytes;
  if (visibleBytes > 0) facts.chunks += 1;
  return choices.length;
}

/** UTF-8 bytes of text that the caller sees: content, refusal, reasoning, names and arguments of tool calls, transcript. */
function visibleIn(said: Members): number {
  // Some providers send the same reasoning under both names.
  const reasoning = Math.max(bytesOf(said["reasoning_content"]), bytesOf(said["reasoning"]));
  let sum = bytesOf(said["content"]) + bytesOf(said["refusal"]) + reasoning;
  const { audio, function_call: call, tool_calls: calls } = said;
  if (isMembers(audio)) sum += bytesOf(audio["transcript"]);
  sum += textOfCall(call);
  if (!Array.isArray(calls)) return sum;
  for (const each of calls as readonly unknown[])
    if (isMembers(each)) sum += textOfCall(each["function"]) + textOfCall(each["custom"]);
  return sum;
}

function textOfCall(call: unknown): number {
  if (!isMembers(call)) return 0;
  return bytesOf(call["name"]) + bytesOf(call["arguments"]) + bytesOf(call["input"]);
}

function bytesOf(text: unknown): number {
  return typeof text === "string" ? Buffer.byteLength(text) : 0;
}
