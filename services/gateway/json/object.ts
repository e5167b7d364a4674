import { isUtf8 } from "node:buffer";
import type { ApiError } from "#services/errors.ts";
import { parseWithin, scanObject, type ObjectScan, type ScanFailure } from "./scan.ts";

/** The deepest nesting of a body where the settings say nothing else. */
export const JSON_DEPTH_MAX = 64;
/**
 * Members, elements and containers of a body together. Twenty megabytes of `{},` are seven million objects, whose
 * parsing holds up every other request for a second and takes many times the body's memory.
 */
export const JSON_VALUES_MAX = 250_000;
const MODEL_BYTES_MAX = 256;

/** The refusal of a body, or of what it asks for. */
export function fault(param: string | null, message: string): ApiError {
  return { code: "invalid_request", param, message };
}

/**
 * Reads a caller's body, a JSON object, into its members, having scanned its bytes into `scan`: for the depth and the number
 * of values before anything is parsed, and for members of its names that are there twice or in another case, which
 * parsing does not show and an upstream may read otherwise.
 */
export function readObject(
  body: Buffer,
  scan: ObjectScan,
  depthMax: number,
  valuesMax = JSON_VALUES_MAX,
): { readonly fields: Members } | ApiError {
  if (body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf)
    return fault(null, "The body begins with a byte order mark; JSON is sent without one.");
  if (!isUtf8(body)) return fault(null, "The body is not valid UTF-8.");
  const failure = scanObject(body, 0, body.length, scan, depthMax, valuesMax);
  if (failure !== undefined) return fault(null, scanMessage(failure, depthMax, valuesMax));
  const twice = scan.names[scan.duplicateSlot];
  if (twice !== undefined) return fault(twice, `'${twice}' is given more than once.`);
  const alike = scan.names[scan.lookalikeSlot];
  if (alike !== undefined) return fault(alike, inOtherCase(alike));
  const fields = parseWithin(body, 0, body.length);
  if (fields === undefined) return fault(null, scanMessage("malformed", depthMax, valuesMax));
  // The scan has seen that this is an object.
  return { fields: fields as Members };
}

export function scanMessage(
  failure: ScanFailure,
  depthMax: number,
  valuesMax = JSON_VALUES_MAX,
): string {
  switch (failure) {
    case "not_an_object":
      return "The body must be a JSON object.";
    case "too_deep":
      return `The body is nested deeper than ${depthMax} levels.`;
    case "too_many_values":
      return `The body has more than ${valuesMax} members, elements and brackets.`;
    case "trailing_bytes":
      return "The body goes on after the end of its JSON object.";
    case "malformed":
      return "We could not parse the JSON body of your request: it is not valid JSON.";
  }
}

/** What is wrong with the name of a model, or undefined. */
export function modelFault(model: unknown): ApiError | undefined {
  if (typeof model !== "string" || model === "")
    return fault("model", "You must provide a model parameter, a non-empty string.");
  if (Buffer.byteLength(model) <= MODEL_BYTES_MAX && model.isWellFormed()) return undefined;
  return fault("model", `'model' must be at most ${MODEL_BYTES_MAX} bytes of valid Unicode text.`);
}

/** What is wrong with a member that must be a string where it is there, or undefined. */
export function textFault(name: string, value: unknown): ApiError | undefined {
  return value === undefined || value === null || typeof value === "string"
    ? undefined
    : fault(name, `'${name}' must be a string.`);
}

/** Where a member stands in the body. */
export interface MemberSpan {
  readonly keyStart: number;
  readonly keyEnd: number;
  readonly valueStart: number;
  readonly valueEnd: number;
}

/** The member of a slot, from the spans of a scan or a copy of them; undefined when the object has none. */
export function spanAt(spans: Int32Array, slot: number): MemberSpan | undefined {
  const at = slot * 4;
  const valueStart = spans[at + 2] ?? 0;
  if (valueStart === 0) return undefined;
  return {
    keyStart: spans[at] ?? 0,
    keyEnd: spans[at + 1] ?? 0,
    valueStart,
    valueEnd: spans[at + 3] ?? 0,
  };
}

/*
 * Members below the top level of a body. relai reads those from the parsed body, where of two members with one name only
 * the last is left; an upstream may take the first, or one whose name differs in upper and lower case.
 */

export type Members = Readonly<Record<string, unknown>>;

export function isMembers(value: unknown): value is Members {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * How many members the objects in a parsed value have, at every depth. The scan counts them in the bytes: where it
 * found more, one was given twice.
 */
export function memberCount(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) {
    for (const item of value) count += memberCount(item);
    return count;
  }
  const members = value as Members;
  for (const key in members) count += 1 + memberCount(members[key]);
  return count;
}

const PLAIN = /^[a-z0-9_]*$/;

/** The one of `names`, plain all, that a key differs from in upper and lower case only, by the rule of the scan's `lookalikeOf`. */
export function otherCaseOf(key: string, names: readonly string[]): string | undefined {
  if (PLAIN.test(key)) return undefined;
  const folded = key.toUpperCase().toLowerCase();
  return names.includes(folded) ? folded : undefined;
}

/** What is said to a caller whose member differs from one that is read in letter case only. */
export function inOtherCase(name: string): string {
  return `A member differs from '${name}' only in upper and lower case; write it as '${name}'.`;
}

/** What is said to a caller who gave a member twice, somewhere below this one. */
export function twiceWithin(name: string): string {
  return `An object within '${name}' has a member more than once.`;
}
