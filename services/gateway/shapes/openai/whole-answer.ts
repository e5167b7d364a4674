import {
  createScan,
  isNull,
  parseWithin,
  readString,
  scanObject,
  valueEnd,
  valueStart,
} from "#services/gateway/json/scan.ts";
import type { ReadUsage, SeenOutput } from "#services/gateway/shapes/estimate.ts";
import type { AnswerFault, WholeAnswer } from "#services/gateway/shapes/shape.ts";

/** Upstreams are trusted with deeper nesting than callers, but not with any. */
export const UPSTREAM_DEPTH_MAX = 512;
/** Names that an upstream gives us are kept only up to this length. */
const NAME_BYTES_MAX = 256;

const LIST = 0;
const USAGE = 1;
const MODEL = 2;
const SERVICE_TIER = 3;
const ERROR = 4;

/** What OpenAI's whole answers differ in. Spans are of the list's value in the body. */
export interface WholeAnswerKind {
  /** The member that holds what was asked for: `choices`, `data`. */
  readonly list: string;
  readonly readUsage: (usage: unknown) => ReadUsage | undefined;
  readonly finish: (body: Buffer, start: number, end: number) => string;
  readonly seen: (body: Buffer, start: number, end: number) => SeenOutput;
}

/**
 * A reader of whole answers of one kind, in their bytes, that parses only the usage: an answer can be large, and to parse it
 * would take several times its size. What is inside the list is not validated: it is the caller's, and passes as it came.
 */
export function wholeAnswerReader(
  kind: WholeAnswerKind,
): (body: Buffer) => WholeAnswer | AnswerFault {
  const scan = createScan([kind.list, "usage", "model", "service_tier", "error"]);
  return (body) => {
    const failure = scanObject(body, 0, body.length, scan, UPSTREAM_DEPTH_MAX);
    if (failure !== undefined) return "garbage";
    const error = valueStart(scan, ERROR);
    if (error !== 0 && !isNull(body, error, valueEnd(scan, ERROR))) return "upstream_error";
    const text = (slot: number): string | undefined =>
      readString(body, valueStart(scan, slot), valueEnd(scan, slot));
    const [start, end] = [valueStart(scan, LIST), valueEnd(scan, LIST)];
    if (start === 0 || body[start] !== 0x5b) return "garbage";
    return {
      body,
      usage: kind.readUsage(parseWithin(body, valueStart(scan, USAGE), valueEnd(scan, USAGE))),
      servedModel: nameOf(text(MODEL)),
      serviceTier: nameOf(text(SERVICE_TIER)),
      finish: kind.finish(body, start, end),
      seen: () => kind.seen(body, start, end),
    };
  };
}

/** A name that an upstream gave, where it is one and no longer than a name can be. */
export function nameOf(value: unknown): string | undefined {
  if (typeof value !== "string" || value === "") return undefined;
  return Buffer.byteLength(value) <= NAME_BYTES_MAX ? value : undefined;
}
