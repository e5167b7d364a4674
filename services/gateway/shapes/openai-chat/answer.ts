import {
  createScan,
  firstElement,
  parseWithin,
  readString,
  scanObject,
  valueEnd,
  valueStart,
} from "#services/gateway/json/scan.ts";
import type { SeenOutput } from "#services/gateway/shapes/estimate.ts";
import { readUsage } from "#services/gateway/shapes/openai/usage.ts";
import {
  UPSTREAM_DEPTH_MAX,
  wholeAnswerReader,
} from "#services/gateway/shapes/openai/whole-answer.ts";
import { addChoices, finishWord, noFacts } from "./chunk.ts";

const CHOICE_SCAN = createScan(["finish_reason"]);

/** Reads a whole chat completion. */
export const readChatAnswer = wholeAnswerReader({
  list: "choices",
  readUsage,
  finish: (body, start, end) => finishWord(firstFinish(body, start, end)),
  seen: seenInChoices,
});

/** What an answer without usage shows, for the estimate. Its choices are parsed. */
function seenInChoices(body: Buffer, start: number, end: number): SeenOutput {
  const facts = noFacts();
  const choices = parseWithin(body, start, end);
  // Each choice that shows some text counts as one chunk.
  for (const choice of Array.isArray(choices) ? (choices as readonly unknown[]) : [])
    addChoices([choice], facts);
  const { visibleBytes, chunks, audioBytes } = facts;
  return { visibleBytes, chunks, audioBytes };
}

function firstFinish(body: Buffer, start: number, end: number): string | undefined {
  const from = firstElement(body, start, end);
  if (from < 0) return undefined;
  const failure = scanObject(body, from, end, CHOICE_SCAN, UPSTREAM_DEPTH_MAX);
  if (failure !== undefined && failure !== "trailing_bytes") return undefined;
  return readString(body, valueStart(CHOICE_SCAN, 0), valueEnd(CHOICE_SCAN, 0)) || undefined;
}
