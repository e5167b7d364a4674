import type { OutputCapName } from "#domain/catalogue/types.ts";
import type { ApiError } from "#services/errors.ts";
import {
  createScan,
  membersIn,
  scanObject,
  valueEnd,
  valueStart,
} from "#services/gateway/json/scan.ts";
import {
  fault,
  inOtherCase,
  isMembers,
  JSON_DEPTH_MAX,
  memberCount,
  modelFault,
  otherCaseOf,
  readObject,
  scanMessage,
  spanAt,
  textFault,
  twiceWithin,
  type Members,
  type MemberSpan,
} from "#services/gateway/json/object.ts";
import { inserting, removing, setting, type Edit } from "#services/gateway/json/splice.ts";
import { TEXT_ONLY } from "#services/gateway/shapes/estimate.ts";
import type { Ask, AskBounds } from "#services/gateway/shapes/shape.ts";
import {
  inputTokensBound,
  isCompressed,
  predictionTokens,
  sumMessages,
  type PromptSums,
} from "./bounds.ts";

/** OpenAI's own limit on the answers of one request. */
const CHOICES_MAX = 128;

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

/** Members that make the provider call tools of its own for a fee that no hold can bound. */
const FEE_MEMBERS = ["web_search_options", "search_parameters", "plugins"] as const;

/**
 * The members that are read, or edited, or counted. A second one of any of them is refused: the upstream might read the
 * other.
 */
const READ = [
  ...COUNTED_AS_TEXT,
  ...COUNTED_AS_JSON,
  ...FEE_MEMBERS,
  "model",
  "model_region",
  "max_tokens",
  "max_completion_tokens",
  "service_tier",
  "store",
  "stream",
  "stream_options",
  "n",
  "modalities",
  "audio",
] as const;
type ReadName = (typeof READ)[number];

/** OpenAI's parameters that the model never sees as text. Any other unknown member counts as its bytes. */
const PARAMETERS = `
  temperature top_p stop seed user safety_identifier metadata logit_bias logprobs top_logprobs
  frequency_penalty presence_penalty parallel_tool_calls reasoning_effort verbosity moderation
  prompt_cache_key prompt_cache_options prompt_cache_retention
`
  .trim()
  .split(/\s+/);

const SCAN = createScan(READ, PARAMETERS);
const SLOT = Object.fromEntries(READ.map((name, slot) => [name, slot])) as Readonly<
  Record<ReadName, number>
>;

const OPTIONS_SCAN = createScan(["include_usage"], ["include_obfuscation"]);

/** A chat completion request as far as relai reads it. It keeps nothing of the prompt: whoever has the body lets it go. */
export interface ChatAsk extends Ask {
  /** The caller asked for usage in the stream, and so gets it. */
  readonly includeUsageAsked: boolean;
  /** What {@link upstreamBody} does for every binding alike, and where the members stand that it sets for one. */
  readonly always: readonly Edit[];
  readonly objectStart: number;
  readonly spans: Readonly<
    Record<"model" | OutputCapName | "service_tier", MemberSpan | undefined>
  >;
}

type Fields = Readonly<Partial<Record<ReadName, unknown>>>;

/**
 * Reads the body of `POST /v1/chat/completions`. Refused is what relai cannot read safely or cannot bound; all other
 * validation is the upstream's. The body is scanned first, for depth and doubled members, and then parsed once.
 */
export function readChatRequest(body: Buffer, depthMax = JSON_DEPTH_MAX): ChatAsk | ApiError {
  const object = readObject(body, SCAN, depthMax);
  if ("code" in object) return object;
  let countedBytes = SCAN.unknownBytes;
  for (const name of COUNTED_AS_JSON)
    countedBytes += valueEnd(SCAN, SLOT[name]) - valueStart(SCAN, SLOT[name]);

  const fields: Fields = object.fields;
  const { model, messages } = fields;
  const unnamed = modelFault(model);
  if (unnamed) return unnamed;
  if (!Array.isArray(messages) || messages.length === 0)
    return fault("messages", "'messages' must be a non-empty array.");

  for (const name of COUNTED_AS_TEXT)
    if (memberCount(fields[name]) !== membersIn(SCAN, SLOT[name]))
      return fault(name, twiceWithin(name));
  const plain = readPlain(fields);
  if ("code" in plain) return plain;
  const hosted = hostedTool(fields, membersIn(SCAN, SLOT.tools, true));
  if (hosted) return hosted;
  const options = readStreamOptions(body, fields.stream_options, depthMax);
  if ("code" in options) return options;
  const bounds = boundsOf(messages, fields, countedBytes);
  if ("code" in bounds) return bounds;

  const always: Edit[] = [];
  if (plain.stream && !options.asked) always.push(options.asking);
  const [region, store] = [spanOf("model_region"), spanOf("store")];
  if (region) always.push(removing(region));
  if (store && (fields.store ?? false) !== false) always.push(setting(store, "false"));
  return {
    model: String(model),
    ...plain,
    includeUsageAsked: plain.stream && options.asked,
    bounds,
    always,
    objectStart: SCAN.objectStart,
    spans: {
      model: spanOf("model"),
      max_tokens: spanOf("max_tokens"),
      max_completion_tokens: spanOf("max_completion_tokens"),
      service_tier: spanOf("service_tier"),
    },
  };
}

/** Where a member stands in the body that was scanned last. */
function spanOf(name: ReadName): MemberSpan | undefined {
  return spanAt(SCAN.spans, SLOT[name]);
}

type Plain = Pick<
  ChatAsk,
  "stream" | "n" | "outputCapTokens" | "outputCapName" | "serviceTier" | "modelRegion"
>;

function readPlain(fields: Fields): Plain | ApiError {
  const stream = fields.stream ?? false;
  if (typeof stream !== "boolean") return fault("stream", "'stream' must be true or false.");
  const n = fields.n ?? 1;
  if (!isCount(n) || n > CHOICES_MAX)
    return fault("n", `'n' must be an integer from 1 to ${CHOICES_MAX}.`);
  const maxTokens = fields.max_tokens ?? null;
  const maxCompletionTokens = fields.max_completion_tokens ?? null;
  if (maxTokens !== null && maxCompletionTokens !== null) {
    const message =
      "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
    return fault("max_tokens", message);
  }
  const outputCapTokens = maxTokens ?? maxCompletionTokens;
  const outputCapName = maxTokens === null ? "max_completion_tokens" : "max_tokens";
  if (outputCapTokens !== null && !isCount(outputCapTokens))
    return fault(outputCapName, `'${outputCapName}' must be a positive integer.`);
  const noText =
    textFault("service_tier", fields.service_tier) ??
    textFault("model_region", fields.model_region);
  if (noText) return noText;
  const serviceTier = (fields.service_tier ?? "auto") as string;
  return {
    stream,
    n,
    outputCapTokens,
    outputCapName,
    serviceTier: serviceTier === "auto" ? undefined : serviceTier,
    modelRegion: (fields.model_region ?? undefined) as string | undefined,
  };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 1;
}

/** Whether the caller asks for usage in the stream, and the edit that asks for it. */
function readStreamOptions(
  body: Buffer,
  options: unknown,
  depthMax: number,
): { asked: boolean; asking: Edit } | ApiError {
  const span = spanOf("stream_options");
  if (span === undefined) {
    const member = '"stream_options":{"include_usage":true}';
    return { asked: false, asking: inserting(SCAN.objectStart, member, true) };
  }
  if (options === null) return { asked: false, asking: setting(span, '{"include_usage":true}') };
  if (!isMembers(options)) return fault("stream_options", "'stream_options' must be an object.");
  const include = options["include_usage"] ?? null;
  const name = "stream_options.include_usage";
  if (include !== null && typeof include !== "boolean")
    return fault(name, `'${name}' must be true or false.`);
  const { valueStart, valueEnd } = span;
  const failure = scanObject(body, valueStart, valueEnd, OPTIONS_SCAN, depthMax);
  if (failure !== undefined) return fault("stream_options", scanMessage(failure, depthMax));
  if (OPTIONS_SCAN.duplicateSlot >= 0 || OPTIONS_SCAN.lookalikeSlot >= 0)
    return fault(name, `'${name}' is given more than once, or in another case.`);
  const { objectStart, memberCount } = OPTIONS_SCAN;
  const includeUsage = spanAt(OPTIONS_SCAN.spans, 0);
  const asking = includeUsage
    ? setting(includeUsage, "true")
    : inserting(objectStart, '"include_usage":true', memberCount > 0);
  return { asked: include === true, asking };
}

const TOOL_NAMES = ["type"];

/**
 * Tools that the provider runs itself cost fees per call, which no hold can bound. `scannedMembers` is how many members
 * the tools have in the bytes.
 */
function hostedTool(fields: Members, scannedMembers: number): ApiError | undefined {
  for (const name of FEE_MEMBERS) {
    if (fields[name] === undefined || fields[name] === null) continue;
    const message = `'${name}' is not supported: the provider charges a fee per call, which no hold can bound.`;
    return fault(name, message);
  }
  const { tools } = fields;
  if (!Array.isArray(tools)) return undefined;
  let members = 0;
  for (const tool of tools as readonly unknown[]) {
    if (!isMembers(tool)) continue;
    for (const key in tool) {
      members += 1;
      if (otherCaseOf(key, TOOL_NAMES)) return fault("tools", inOtherCase("type"));
    }
    const type = "type" in tool ? tool["type"] : "function";
    if (type === "function" || type === "custom") continue;
    const message =
      "Only tools of type 'function' and 'custom' are supported: a tool that the provider runs has a fee, which no hold can bound.";
    return fault("tools", message);
  }
  return members === scannedMembers ? undefined : fault("tools", twiceWithin("tools"));
}

function boundsOf(
  messages: readonly unknown[],
  fields: Fields,
  countedBytes: number,
): AskBounds | ApiError {
  const sums: PromptSums = { ...TEXT_ONLY, promptBytes: countedBytes, otherCase: undefined };
  sumMessages(messages, sums);
  if (sums.otherCase) return fault("messages", inOtherCase(sums.otherCase));
  const predictionTokensBound = predictionTokens(fields.prediction, sums);
  if (sums.otherCase) return fault("prediction", inOtherCase(sums.otherCase));
  const { otherCase: _, ...bounds } = sums;
  const { modalities } = fields;
  return {
    ...bounds,
    inputTokensBound: inputTokensBound(sums.promptBytes, messages.length),
    hasAudioOutput:
      (Array.isArray(modalities) && modalities.includes("audio")) ||
      (fields.audio ?? null) !== null,
    isAudioOutputCompressed: isCompressed(fields.audio),
    predictionTokensBound,
  };
}
