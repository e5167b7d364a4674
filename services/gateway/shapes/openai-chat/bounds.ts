import { isMembers, otherCaseOf, type Members } from "#services/gateway/json/object.ts";
import {
  AUDIO_COMPRESSION,
  textTokensBound,
  type Mutable,
} from "#services/gateway/shapes/estimate.ts";
import type { AskBounds } from "#services/gateway/shapes/shape.ts";

/**
 * How large a chat request can be for the model, in bytes of text. No tokenizer runs here: on untrusted text they take
 * seconds for kilobytes. Holds take two bytes for a token; what is still larger is charged beyond the hold.
 */

const TOKENS_PER_MESSAGE = 8;
const TOKENS_PER_REQUEST = 16;

/** Roles that the eight tokens of a message cover; any other text in `role` is counted. */
const ROLES: ReadonlySet<unknown> = new Set(
  "system developer user assistant tool function".split(" "),
);

/** The members that are read by their name. All others count as text, whatever their case. */
const MESSAGE_NAMES = ["role", "content", "audio"];
const PART_NAMES = ["type", "text", "refusal", "image_url"];
const IMAGE_NAMES = ["url"];
const PREDICTION_NAMES = ["content"];

/** The running sums of one request. */
export interface PromptSums extends Mutable<AskBounds> {
  /** A name that is read and that a member has in another case. */
  otherCase: string | undefined;
}

function noteCase(key: string, names: readonly string[], sums: PromptSums): void {
  sums.otherCase = otherCaseOf(key, names) ?? sums.otherCase;
}

/** The bytes of a value's text: strings decoded, keys and brackets as in compact JSON. Depth was bounded by the scan. */
export function textBytes(value: unknown): number {
  if (typeof value === "string") return Buffer.byteLength(value);
  if (typeof value !== "object" || value === null) return String(value).length;
  let sum = 2;
  if (Array.isArray(value)) {
    for (const item of value) sum += textBytes(item) + 1;
    return sum;
  }
  for (const [key, inner] of Object.entries(value))
    sum += Buffer.byteLength(key) + textBytes(inner) + 4;
  return sum;
}

/** Adds up the messages. An entry that is no message object counts as its text; the upstream will refuse it. */
export function sumMessages(messages: readonly unknown[], sums: PromptSums): void {
  for (const message of messages) {
    if (!isMembers(message)) {
      sums.promptBytes += textBytes(message);
      continue;
    }
    for (const key in message) {
      const value = message[key];
      if (key === "role") {
        if (!ROLES.has(value)) sums.promptBytes += textBytes(value);
      } else if (key === "content") {
        sumContent(value, sums);
      } else if (value !== null) {
        // Names, refusals, tool calls with their arguments, and whatever else a provider may show to its model.
        noteCase(key, MESSAGE_NAMES, sums);
        sums.promptBytes += Buffer.byteLength(key) + textBytes(value);
        if (key === "audio") sums.hasAudioInput = sums.unknownSize = true;
      }
    }
  }
}

function sumContent(content: unknown, sums: PromptSums): void {
  if (typeof content === "string") sums.promptBytes += Buffer.byteLength(content);
  else if (Array.isArray(content)) for (const part of content) sumPart(part, sums);
  else if (content !== null) sumPart(content, sums);
}

function sumPart(part: unknown, sums: PromptSums): void {
  if (!isMembers(part)) {
    sums.promptBytes += textBytes(part);
    return;
  }
  switch (part["type"]) {
    case "text":
    case "refusal":
      sumTextPart(part, sums);
      return;
    case "image_url": {
      const image = part["image_url"];
      const url = isMembers(image) ? image["url"] : image;
      for (const key in part) noteCase(key, PART_NAMES, sums);
      if (isMembers(image)) for (const key in image) noteCase(key, IMAGE_NAMES, sums);
      sums.imageCount += 1;
      if (typeof url === "string" && url.startsWith("data:image/")) return;
      sums.remoteImageCount += 1;
      sums.unknownSize = true;
      return;
    }
    case "input_audio": {
      const audio = part["input_audio"];
      const data = isMembers(audio) ? audio["data"] : undefined;
      if (isMembers(audio) && typeof data === "string")
        sums.audioBytes +=
          Buffer.byteLength(data, "base64") * (isCompressed(audio) ? AUDIO_COMPRESSION : 1);
      break;
    }
    case "file":
      break;
    default:
      sums.promptBytes += textBytes(part);
  }
  // Whatever it is: it may be dearer than text, and it may be large.
  sums.hasAudioInput = sums.unknownSize = true;
}

/** True when an `input_audio` or `audio` member names a compressed format; without one the samples are taken as plain. */
export function isCompressed(audio: unknown): boolean {
  const format = isMembers(audio) ? audio["format"] : undefined;
  return typeof format === "string" && format !== "pcm16" && format !== "wav";
}

/** All members but the type. A text part has usually only its text beside it, and then only that counts. */
function sumTextPart(part: Members, sums: PromptSums): void {
  for (const key in part) {
    if (key === "type") continue;
    sums.promptBytes += textBytes(part[key]);
    if (key === "text" || key === "refusal") continue;
    noteCase(key, PART_NAMES, sums);
    sums.promptBytes += Buffer.byteLength(key);
  }
}

/** The bound on a prediction's tokens, from the `prediction` member. */
export function predictionTokens(prediction: unknown, sums: PromptSums): number {
  if (!isMembers(prediction))
    return prediction === undefined || prediction === null
      ? 0
      : textTokensBound(textBytes(prediction));
  for (const key in prediction) noteCase(key, PREDICTION_NAMES, sums);
  const content = prediction["content"];
  return textTokensBound(content === undefined || content === null ? 0 : textBytes(content));
}

/** The bound of a request's input, without images and without the rule of the context window. Tokens. */
export function inputTokensBound(promptBytes: number, messageCount: number): number {
  return textTokensBound(promptBytes) + TOKENS_PER_MESSAGE * messageCount + TOKENS_PER_REQUEST;
}
