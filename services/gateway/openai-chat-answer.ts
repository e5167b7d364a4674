import {
  createScan,
  firstElement,
  isNull,
  keyTable,
  nextElement,
  readString,
} from "./json-bytes.ts";
import { scanObject, valueEnd, valueStart } from "./json-bytes.ts";
import { readChoice, readFinishReason, UPSTREAM_DEPTH_MAX } from "./openai-chat-choice.ts";
import type { ChoiceFacts } from "./openai-chat-choice.ts";
import { readUsage } from "./openai-chat-usage.ts";
import type { ReadUsage, SeenOutput } from "./openai-chat-usage.ts";

const CHOICES = 0;
const USAGE = 1;
const MODEL = 2;
const SERVICE_TIER = 3;
const ERROR = 4;
const TABLE = keyTable(
  ["choices", "usage", "model", "service_tier", "error"],
  ["id", "object", "created", "system_fingerprint"],
);
const SCAN = createScan(TABLE);

/** Names that an upstream gives us are kept only up to this length. */
const NAME_BYTES_MAX = 256;

export type ChatAnswer =
  | {
      readonly ok: true;
      /** Undefined when the upstream gave none, or one that cannot be read: then {@link seenInAnswer} and the estimate. */
      readonly usage: ReadUsage | undefined;
      /** The model and service tier that the answer names. */
      readonly servedModel: string | undefined;
      readonly serviceTier: string | undefined;
      /** Why the first choice ended. */
      readonly finish: string | undefined;
    }
  /** `error`: an error object under a status of success. `garbage`: no chat completion. */
  | { readonly ok: false; readonly kind: "garbage" | "error" };

const GARBAGE: ChatAnswer = { ok: false, kind: "garbage" };

/**
 * Reads a whole chat completion in its bytes, parsing only its usage. What is inside the choices is not validated: it
 * is the caller's, and passes as it came.
 */
export function readChatAnswer(body: Buffer): ChatAnswer {
  const failure = scanObject(body, 0, body.length, TABLE, SCAN, UPSTREAM_DEPTH_MAX);
  if (failure !== undefined) return GARBAGE;
  const error = valueStart(SCAN, ERROR);
  if (error !== 0 && !isNull(body, error, valueEnd(SCAN, ERROR)))
    return { ok: false, kind: "error" };
  const choices = valueStart(SCAN, CHOICES);
  if (choices === 0 || body[choices] !== 0x5b) return GARBAGE;
  return {
    ok: true,
    usage: usageAt(body, valueStart(SCAN, USAGE), valueEnd(SCAN, USAGE)),
    servedModel: nameAt(body, valueStart(SCAN, MODEL), valueEnd(SCAN, MODEL)),
    serviceTier: nameAt(body, valueStart(SCAN, SERVICE_TIER), valueEnd(SCAN, SERVICE_TIER)),
    finish: firstFinish(body, choices, valueEnd(SCAN, CHOICES)),
  };
}

/** What an answer without usage shows, for the estimate; each choice that shows some text is one chunk. */
export function seenInAnswer(body: Buffer): SeenOutput {
  const sum = { visibleBytes: 0, chunks: 0, audioBytes: 0 };
  const facts: ChoiceFacts = {
    index: 0,
    visibleBytes: 0,
    audioBytes: 0,
    finishReason: "",
    contentStart: 0,
    contentEnd: 0,
  };
  if (scanObject(body, 0, body.length, TABLE, SCAN, UPSTREAM_DEPTH_MAX) !== undefined) return sum;
  const end = valueEnd(SCAN, CHOICES);
  let from = firstElement(body, valueStart(SCAN, CHOICES), end);
  while (from >= 0) {
    const to = readChoice(body, from, end, facts);
    if (to < 0) break;
    sum.visibleBytes += facts.visibleBytes;
    sum.audioBytes += facts.audioBytes;
    if (facts.visibleBytes > 0) sum.chunks += 1;
    from = nextElement(body, to, end);
  }
  return sum;
}

/** The usage whose value spans [start, end); a start of 0 means that there is none. */
export function usageAt(bytes: Buffer, start: number, end: number): ReadUsage | undefined {
  if (start === 0 || isNull(bytes, start, end)) return undefined;
  try {
    return readUsage(JSON.parse(bytes.toString("utf8", start, end)));
  } catch {
    return undefined;
  }
}

/** A short, non-empty string, or undefined. */
export function nameAt(bytes: Buffer, start: number, end: number): string | undefined {
  if (start === 0 || end - start > NAME_BYTES_MAX) return undefined;
  return readString(bytes, start, end) || undefined;
}

function firstFinish(body: Buffer, start: number, end: number): string | undefined {
  const from = firstElement(body, start, end);
  return from < 0 ? undefined : readFinishReason(body, from, end) || undefined;
}
