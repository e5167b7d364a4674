import { z } from "zod";
import { parseDirectives, type Directives } from "./directives.ts";
import { Refused } from "./refused.ts";

/** What the simulator reads of a chat completion request. No text of the prompt is in it. */
export interface ChatRequest {
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Number of choices. */
  readonly choices: number;
  /** The most output tokens of one choice. */
  readonly outputTokensCap: number | undefined;
  /** ceil(bytes of text / 4), plus 85 per image. */
  readonly inputTokens: number;
  readonly messages: number;
  readonly textBytes: number;
  readonly images: number;
  readonly tools: readonly { readonly name: string; readonly parameters?: unknown }[];
  /** The tool that the caller insists on; `any` when it only insists on some tool. */
  readonly toolWanted: { readonly name: string } | "any" | undefined;
  /** The answer is to be JSON of this schema. */
  readonly jsonSchema: unknown;
  /** The tier that is served when no directive says otherwise: the one asked for, if it is one with a price of its own. */
  readonly serviceTier: string;
  readonly directives: Directives;
}

const IMAGE_TOKENS = 85;
const CHOICES_MAX = 128;
const MODEL_CHARACTERS_MAX = 256;

const NO_MODEL = "model is not a name";
const NO_MESSAGES = "messages is not a list with at least one message";

export const modelName = z.string(NO_MODEL).min(1, NO_MODEL).max(MODEL_CHARACTERS_MAX, NO_MODEL);

const unread = z.unknown().optional();
const named = z.object({ name: z.string() });
const part = z.object({ type: unread, text: z.string().catch("") }).catch({ text: "" });
const parts = z.union([z.string().transform((text) => [{ type: "text", text }]), z.array(part)]);
const message = z.object({ role: unread, content: parts.catch([]) }).catch({ content: [] });
const offer = z.object({ function: named.extend({ parameters: unread }) });
const toolChoice = z.union([
  z.literal("required").transform(() => "any" as const),
  z.object({ function: named }).transform((choice) => choice.function),
]);
const answerFormat = z.union([
  z.object({ type: z.literal("json_object") }).transform(() => ({ type: "object" })),
  z
    .object({ type: z.literal("json_schema"), json_schema: z.object({ schema: unread }) })
    .transform((format) => format.json_schema.schema ?? {}),
]);

/** What is acted on is checked; what is only looked at is nothing where it is not understood. */
const chatBody = z.object({
  model: modelName,
  messages: z.array(message, NO_MESSAGES).min(1, NO_MESSAGES),
  n: countOf("n", CHOICES_MAX),
  max_completion_tokens: capOf("max_completion_tokens"),
  stream: z.boolean().catch(false),
  stream_options: z.object({ include_usage: z.boolean() }).optional().catch(undefined),
  tools: z.array(z.unknown()).optional().catch(undefined),
  tool_choice: toolChoice.optional().catch(undefined),
  response_format: answerFormat.optional().catch(undefined),
  service_tier: z.enum(["default", "flex", "priority"]).catch("default"),
});
const olderCapBody = z.object({ max_tokens: capOf("max_tokens") });

/** A member that may be an integer from 1 on. */
export function countOf(name: string, max: number) {
  const problem = `${name} is not an integer from 1 to ${max}`;
  return z.int(problem).min(1, problem).max(max, problem).nullish();
}

function capOf(name: string) {
  const problem = `${name} is not a positive integer`;
  return z.int(problem).positive(problem).nullish();
}

/**
 * Reads the parsed body of `POST /chat/completions`. Only what the simulator acts on is checked; other fields are
 * ignored. Refused: no model, no messages, counts that are no positive integers, a directive that is not understood.
 */
export function readRequest(body: unknown): ChatRequest {
  const { messages, tools, ...fields } = readBody(chatBody, body);
  // The older name of the cap counts only where the newer one is not given.
  const { max_completion_tokens: cap = readBody(olderCapBody, body).max_tokens } = fields;
  const contents = messages.flatMap(({ content }) => content);
  const textBytes = contents.reduce((bytes, { text }) => bytes + Buffer.byteLength(text), 0);
  const toolBytes = tools ? Buffer.byteLength(JSON.stringify(tools)) : 0;
  const images = contents.filter(({ type }) => type === "image_url").length;
  const lastOfUser = messages.findLast(({ role }) => role === "user")?.content ?? [];
  const words = lastOfUser.map(({ text }) => text).join("\n");
  return {
    model: fields.model,
    stream: fields.stream,
    includeUsage: fields.stream_options?.include_usage ?? false,
    choices: fields.n ?? 1,
    outputTokensCap: cap ?? undefined,
    inputTokens: Math.ceil((textBytes + toolBytes) / 4) + images * IMAGE_TOKENS,
    messages: messages.length,
    textBytes,
    images,
    tools: (tools ?? []).flatMap((tool) => offer.safeParse(tool).data?.function ?? []),
    toolWanted: fields.tool_choice,
    jsonSchema: fields.response_format,
    serviceTier: fields.service_tier,
    directives: parseDirectives(words, "messages"),
  };
}

/** What a schema takes of a body of any kind; refused with the first thing that is wrong. */
export function readBody<T>(schema: z.ZodType<T>, body: unknown): T {
  if (typeof body !== "object" || body === null || Array.isArray(body))
    throw new Refused("the body is not a JSON object");
  const read = schema.safeParse(body);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  throw new Refused(issue?.message ?? "the body cannot be read", { param: String(issue?.path[0]) });
}
