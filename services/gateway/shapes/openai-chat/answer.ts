import {
  createScan,
  firstElement,
  isNull,
  keyTable,
  readString,
  scanObject,
  valueEnd,
  valueStart,
} from "#services/gateway/json/scan.ts";
import { addChoices, finishWord, nameOf, noFacts, UPSTREAM_DEPTH_MAX } from "./chunk.ts";
import type { ReadUsage, SeenOutput } from "#services/gateway/shapes/estimate.ts";
import { readUsage } from "#services/gateway/shapes/openai/usage.ts";
import type { WholeAnswer } from "#services/gateway/shapes/shape.ts";

const CHOICES = 0;
const USAGE = 1;
const MODEL = 2;
const SERVICE_TIER = 3;
const ERROR = 4;
const TABLE = keyTable(["choices", "usage", "model", "service_tier", "error"]);
const SCAN = createScan(TABLE);

const CHOICE_TABLE = keyTable(["finish_reason"]);
const CHOICE_SCAN = createScan(CHOICE_TABLE);

const GARBAGE: WholeAnswer = { ok: false, kind: "garbage" };

/**
 * Reads a whole chat completion in its bytes, parsing only its usage: an answer can be large, and to parse it would take
 * several times its size. What is inside the choices is not validated: it is the caller's, and passes as it came.
 */
export function readChatAnswer(body: Buffer): WholeAnswer {
  const failure = scanObject(body, 0, body.length, TABLE, SCAN, UPSTREAM_DEPTH_MAX);
  if (failure !== undefined) return GARBAGE;
  const error = valueStart(SCAN, ERROR);
  if (error !== 0 && !isNull(body, error, valueEnd(SCAN, ERROR)))
    return { ok: false, kind: "error" };
  const choices = valueStart(SCAN, CHOICES);
  if (choices === 0 || body[choices] !== 0x5b) return GARBAGE;
  return {
    ok: true,
    body,
    usage: usageAt(body, valueStart(SCAN, USAGE), valueEnd(SCAN, USAGE)),
    servedModel: nameOf(textAt(body, MODEL)),
    serviceTier: nameOf(textAt(body, SERVICE_TIER)),
    finish: finishWord(firstFinish(body, choices, valueEnd(SCAN, CHOICES))),
    seen: () => seenInAnswer(body),
  };
}

/** What an answer without usage shows, for the estimate. Its choices are parsed. */
function seenInAnswer(body: Buffer): SeenOutput {
  const facts = noFacts();
  if (scanObject(body, 0, body.length, TABLE, SCAN, UPSTREAM_DEPTH_MAX) === undefined) {
    const [start, end] = [valueStart(SCAN, CHOICES), valueEnd(SCAN, CHOICES)];
    // Each choice that shows some text counts as one chunk.
    for (const choice of start === 0 ? [] : listAt(body, start, end)) addChoices([choice], facts);
  }
  const { visibleBytes, chunks, audioBytes } = facts;
  return { visibleBytes, chunks, audioBytes };
}

function listAt(body: Buffer, start: number, end: number): readonly unknown[] {
  try {
    const list: unknown = JSON.parse(body.toString("utf8", start, end));
    return Array.isArray(list) ? list : [];
  } catch {
    return [];
  }
}

/** The usage whose value spans [start, end); a start of 0 means that there is none. */
function usageAt(bytes: Buffer, start: number, end: number): ReadUsage | undefined {
  if (start === 0 || isNull(bytes, start, end)) return undefined;
  try {
    return readUsage(JSON.parse(bytes.toString("utf8", start, end)));
  } catch {
    return undefined;
  }
}

function textAt(body: Buffer, slot: number): string | undefined {
  return readString(body, valueStart(SCAN, slot), valueEnd(SCAN, slot));
}

function firstFinish(body: Buffer, start: number, end: number): string | undefined {
  const from = firstElement(body, start, end);
  if (from < 0) return undefined;
  const failure = scanObject(body, from, end, CHOICE_TABLE, CHOICE_SCAN, UPSTREAM_DEPTH_MAX);
  if (failure !== undefined && failure !== "trailing_bytes") return undefined;
  return readString(body, valueStart(CHOICE_SCAN, 0), valueEnd(CHOICE_SCAN, 0)) || undefined;
}
