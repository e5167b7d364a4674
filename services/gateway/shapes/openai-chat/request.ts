import { isUtf8 } from "node:buffer";

import type { OutputCapName } from "#domain/catalogue/types.ts";

import {
  createScan,
  keyTable,
  membersIn,
  scanObject,
  valueEnd,
  valueStart,
} from "#services/gateway/json/scan.ts";
import type { ScanFailure } from "#services/gateway/json/scan.ts";
import { inputTokensBound, isCompressed, predictionTokens, sumMessages } from "./bounds.ts";
import type { ChatBounds, PromptSums } from "./bounds.ts";
import { inOtherCase, memberCount, twiceWithin } from "#services/gateway/json/members.ts";
import { hostedTool } from "./tools.ts";

/** The deepest nesting of a body where the settings say nothing else. */
export const JSON_DEPTH_MAX = 64;
/**
 * Members, elements and containers of a body together. Twenty megabytes of `{},` are seven million objects, whose
 * parsing holds up every other request for a second and takes many times the body's memory.
 */
export const JSON_VALUES_MAX = 250_000;
const MODEL_BYTES_MAX = 256;
/** OpenAI's own limit on the answers of one request. */
const CHOICES_MAX = 128;

/**
 * The members that are read, or edited, or counted. The first ones are edited and their spans are kept.
 * A second one of any of them is refused: the upstream might read the other.
 */
const READ = [
  "model",
  "stream_options",
  "max_tokens",
  "max_completion_tokens",
  "model_region",
  "store",
  "service_tier",
  "messages",
  "stream",
  "n",
  "tools",
  "functions",
  "response_format",
  "tool_choice",
  "function_call",
  "prediction",
  "modalities",
  "audio",
  "web_search_options",
  "search_parameters",
  "plugins",
] as const;
type ReadName = (typeof READ)[number];

/** How many members from the first on can be edited. */
const EDITED_COUNT = 7;

/** OpenAI's parameters that the model never sees as text. Any other unknown member counts as its bytes. */
const PARAMETERS = [
  "temperature",
  "top_p",
  "stop",
  "seed",
  "user",
  "safety_identifier",
  "metadata",
  "logit_bias",
  "logprobs",
  "top_logprobs",
  "frequency_penalty",
  "presence_penalty",
  "parallel_tool_calls",
  "reasoning_effort",
  "verbosity",
  "moderation",
  "prompt_cache_key",
  "prompt_cache_options",
  "prompt_cache_retention",
];

const TABLE = keyTable(READ, PARAMETERS);
const SCAN = createScan(TABLE);
const SLOT = Object.fromEntries(READ.map((name, slot) => [name, slot])) as Readonly<
  Record<ReadName, number>
>;

const OPTIONS_TABLE = keyTable(["include_usage"], ["include_obfuscation"]);
const OPTIONS_SCAN = createScan(OPTIONS_TABLE);

/** Whose bytes, as they stand in the body, are part of the prompt: schemas and choices of tools. */
const COUNTED_AS_JSON = [
  "tools",
  "functions",
  "response_format",
  "tool_choice",
  "function_call",
] as const;

/** Whose text and images are counted after parsing, so that a member that is there twice would count once. */
const COUNTED_AS_TEXT = ["messages", "prediction"] as const;

/** Where a member stands in the body. */
export interface MemberSpan {
  readonly keyStart: number;
  readonly keyEnd: number;
  readonly valueStart: number;
  readonly valueEnd: number;
}

/** What `stream_options` holds, as far as an edit needs it. */
export interface StreamOptionsSpans {
  readonly objectStart: number;
  readonly isEmpty: boolean;
  /** The value of `include_usage` in it; undefined when it has none. */
  readonly includeUsage: MemberSpan | undefined;
}

/** A chat completion request as far as relai reads it. It keeps nothing of the prompt: whoever has the body lets it go. */
export interface ChatAsk {
  readonly model: string;
  readonly stream: boolean;
  /** The caller asked for usage in the stream, and so gets it. */
  readonly includeUsageAsked: boolean;
  /** How many answers; 1 when absent. */
  readonly n: number;
  /** The caller's cap on output tokens; null when there is none. */
  readonly outputCapTokens: number | null;
  /** The name that the cap came under. */
  readonly outputCapName: OutputCapName;
  /** The tier that is named; undefined when absent, null or `auto`: then whoever serves it chooses. */
  readonly serviceTier: string | undefined;
  readonly modelRegion: string | undefined;
  readonly bounds: ChatBounds;
  /** For {@link upstreamBody} only. */
  readonly edits: {
    readonly objectStart: number;
    readonly model: MemberSpan;
    readonly streamOptions: MemberSpan | undefined;
    readonly streamOptionsInside: StreamOptionsSpans | undefined;
    readonly maxTokens: MemberSpan | undefined;
    readonly maxCompletionTokens: MemberSpan | undefined;
    readonly modelRegion: MemberSpan | undefined;
    /** Only when the caller asked for the answer to be stored. */
    readonly store: MemberSpan | undefined;
    /** Also when its value names no tier. */
    readonly serviceTier: MemberSpan | undefined;
  };
}

/** Why a body is refused with `400 invalid_request`. */
export interface BodyFault {
  readonly param: string | null;
  readonly message: string;
}

export type ChatRead =
  | { readonly ok: true; readonly ask: ChatAsk }
  | { readonly ok: false; readonly error: BodyFault };

type Fields = Readonly<Partial<Record<ReadName, unknown>>>;

function fault(param: string | null, message: string): { ok: false; error: BodyFault } {
  return { ok: false, error: { param, message } };
}

/**
 * Reads the body of `POST /v1/chat/completions`. Refused is what relai cannot read safely or cannot bound; all other
 * validation is the upstream's. The body is scanned first, for depth and doubled members, and then parsed once.
 */
export function readChatRequest(body: Buffer, depthMax = JSON_DEPTH_MAX): ChatRead {
  const unreadable = scanBody(body, depthMax);
  if (unreadable !== undefined) return { ok: false, error: unreadable };
  // The scan's findings are taken before anything else can scan.
  const spans = SCAN.spans.slice(0, EDITED_COUNT * 4);
  const objectStart = SCAN.objectStart;
  let countedBytes = SCAN.unknownBytes;
  for (const name of COUNTED_AS_JSON)
    countedBytes += valueEnd(SCAN, SLOT[name]) - valueStart(SCAN, SLOT[name]);

  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString());
  } catch {
    return fault(null, "We could not parse the JSON body of your request: it is not valid JSON.");
  }
  // The scan has seen that this is an object.
  const fields = parsed as Fields;
  const { model, messages } = fields;
  if (typeof model !== "string" || model === "")
    return fault("model", "You must provide a model parameter, a non-empty string.");
  if (Buffer.byteLength(model) > MODEL_BYTES_MAX || !model.isWellFormed()) {
    return fault(
      "model",
      `'model' must be at most ${MODEL_BYTES_MAX} bytes of valid Unicode text.`,
    );
  }
  if (!Array.isArray(messages) || messages.length === 0)
    return fault("messages", "'messages' must be a non-empty array.");

  for (const name of COUNTED_AS_TEXT)
    if (memberCount(fields[name]) !== membersIn(SCAN, SLOT[name]))
      return fault(name, twiceWithin(name));
  const plain = readPlain(fields);
  if ("error" in plain) return plain;
  const hosted = hostedTool(fields, membersIn(SCAN, SLOT.tools, true));
  if (hosted !== undefined) return { ok: false, error: hosted };
  const options = readStreamOptions(body, fields.stream_options, spans, depthMax);
  if ("error" in options) return options;
  const bounds = boundsOf(messages, fields, countedBytes);
  if ("error" in bounds) return bounds;

  return {
    ok: true,
    ask: {
      model,
      ...plain,
      includeUsageAsked: plain.stream && options.asked,
      bounds,
      edits: {
        objectStart,
        model: spanAt(spans, SLOT.model) ?? NOWHERE,
        streamOptions: spanAt(spans, SLOT.stream_options),
        streamOptionsInside: options.inside,
        maxTokens: spanAt(spans, SLOT.max_tokens),
        maxCompletionTokens: spanAt(spans, SLOT.max_completion_tokens),
        modelRegion: spanAt(spans, SLOT.model_region),
        store:
          fields.store === false || fields.store === null ? undefined : spanAt(spans, SLOT.store),
        serviceTier: spanAt(spans, SLOT.service_tier),
      },
    },
  };
}

const NOWHERE: MemberSpan = { keyStart: 0, keyEnd: 0, valueStart: 0, valueEnd: 0 };

function scanBody(body: Buffer, depthMax: number): BodyFault | undefined {
  if (body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf) {
    return {
      param: null,
      message: "The body begins with a byte order mark; JSON is sent without one.",
    };
  }
  if (!isUtf8(body)) return { param: null, message: "The body is not valid UTF-8." };
  const failure = scanObject(body, 0, body.length, TABLE, SCAN, depthMax, JSON_VALUES_MAX);
  if (failure !== undefined) return { param: null, message: scanMessage(failure, depthMax) };
  const twice = SCAN.duplicateSlot < 0 ? undefined : READ[SCAN.duplicateSlot];
  if (twice !== undefined) return { param: twice, message: `'${twice}' is given more than once.` };
  const alike = SCAN.lookalikeSlot < 0 ? undefined : READ[SCAN.lookalikeSlot];
  return alike === undefined ? undefined : { param: alike, message: inOtherCase(alike) };
}

function scanMessage(failure: ScanFailure, depthMax: number): string {
  switch (failure) {
    case "not_an_object":
      return "The body must be a JSON object.";
    case "too_deep":
      return `The body is nested deeper than ${depthMax} levels.`;
    case "too_many_values":
      return `The body has more than ${JSON_VALUES_MAX} members, elements and brackets.`;
    case "trailing_bytes":
      return "The body goes on after the end of its JSON object.";
    case "malformed":
      return "We could not parse the JSON body of your request: it is not valid JSON.";
  }
}

function spanAt(spans: Int32Array, slot: number): MemberSpan | undefined {
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

type Plain = Pick<
  ChatAsk,
  "stream" | "n" | "outputCapTokens" | "outputCapName" | "serviceTier" | "modelRegion"
>;

function readPlain(fields: Fields): Plain | { ok: false; error: BodyFault } {
  const stream = fields.stream ?? false;
  if (typeof stream !== "boolean") return fault("stream", "'stream' must be true or false.");
  const n = fields.n ?? 1;
  if (!isCount(n) || n > CHOICES_MAX)
    return fault("n", `'n' must be an integer from 1 to ${CHOICES_MAX}.`);
  const maxTokens = fields.max_tokens ?? null;
  const maxCompletionTokens = fields.max_completion_tokens ?? null;
  if (maxTokens !== null && maxCompletionTokens !== null) {
    return fault(
      "max_tokens",
      "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
    );
  }
  const outputCapTokens = maxTokens ?? maxCompletionTokens;
  const outputCapName = maxTokens === null ? "max_completion_tokens" : "max_tokens";
  if (outputCapTokens !== null && !isCount(outputCapTokens))
    return fault(outputCapName, `'${outputCapName}' must be a positive integer.`);
  const serviceTier = fields.service_tier ?? undefined;
  if (serviceTier !== undefined && typeof serviceTier !== "string")
    return fault("service_tier", "'service_tier' must be a string.");
  const modelRegion = fields.model_region ?? undefined;
  if (modelRegion !== undefined && typeof modelRegion !== "string")
    return fault("model_region", "'model_region' must be a string.");
  return {
    stream,
    n,
    outputCapTokens,
    outputCapName,
    serviceTier: serviceTier === "auto" ? undefined : serviceTier,
    modelRegion,
  };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 1;
}

function readStreamOptions(
  body: Buffer,
  options: unknown,
  spans: Int32Array,
  depthMax: number,
): { asked: boolean; inside: StreamOptionsSpans | undefined } | { ok: false; error: BodyFault } {
  if (options === undefined || options === null) return { asked: false, inside: undefined };
  const span = spanAt(spans, SLOT.stream_options);
  if (typeof options !== "object" || Array.isArray(options) || span === undefined) {
    return fault("stream_options", "'stream_options' must be an object.");
  }
  const include = "include_usage" in options ? options.include_usage : null;
  if (include !== null && typeof include !== "boolean") {
    return fault(
      "stream_options.include_usage",
      "'stream_options.include_usage' must be true or false.",
    );
  }
  const { valueStart, valueEnd } = span;
  const failure = scanObject(body, valueStart, valueEnd, OPTIONS_TABLE, OPTIONS_SCAN, depthMax);
  if (failure !== undefined) return fault("stream_options", scanMessage(failure, depthMax));
  if (OPTIONS_SCAN.duplicateSlot >= 0 || OPTIONS_SCAN.lookalikeSlot >= 0) {
    return fault(
      "stream_options.include_usage",
      "'stream_options.include_usage' is given more than once, or in another case.",
    );
  }
  const { objectStart, memberCount } = OPTIONS_SCAN;
  const includeUsage = spanAt(OPTIONS_SCAN.spans, 0);
  return {
    asked: include === true,
    inside: { objectStart, isEmpty: memberCount === 0, includeUsage },
  };
}

function boundsOf(
  messages: readonly unknown[],
  fields: Fields,
  countedBytes: number,
): ChatBounds | { ok: false; error: BodyFault } {
  const sums: PromptSums = {
    bytes: countedBytes,
    images: 0,
    remoteImages: 0,
    audio: false,
    audioBytes: 0,
    unknownSize: false,
    otherCase: undefined,
  };
  sumMessages(messages, sums);
  if (sums.otherCase) return fault("messages", inOtherCase(sums.otherCase));
  const predictionTokensBound = predictionTokens(fields.prediction, sums);
  if (sums.otherCase) return fault("prediction", inOtherCase(sums.otherCase));
  const { modalities } = fields;
  return {
    promptBytes: sums.bytes,
    inputTokensBound: inputTokensBound(sums.bytes, messages.length),
    imageCount: sums.images,
    remoteImageCount: sums.remoteImages,
    hasAudioInput: sums.audio,
    audioBytes: sums.audioBytes,
    hasAudioOutput:
      (Array.isArray(modalities) && modalities.includes("audio")) ||
      (fields.audio ?? null) !== null,
    isAudioOutputCompressed: isCompressed(fields.audio),
    unknownSize: sums.unknownSize,
    predictionTokensBound,
  };
}
