import { parseDirectives } from "./directives.ts";
import type { Directives } from "./directives.ts";

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
  readonly tools: readonly ToolOffer[];
  /** The tool that the caller insists on; `any` when it only insists on some tool. */
  readonly toolWanted: { readonly name: string } | "any" | undefined;
  /** The answer is to be JSON of this schema. */
  readonly jsonSchema: unknown;
  readonly serviceTier: string;
  readonly directives: Directives;
}

export interface ToolOffer {
  readonly name: string;
  readonly parameters: unknown;
}

export type ReadRequest = { readonly ok: true; readonly request: ChatRequest } | Refused;

export interface Refused {
  readonly ok: false;
  readonly message: string;
  readonly param: string | null;
}

type Fields = Readonly<Record<string, unknown>>;

const IMAGE_TOKENS = 85;
const CHOICES_MAX = 128;
const MODEL_CHARACTERS_MAX = 256;

/**
 * Reads the parsed body of `POST /chat/completions`. Only what the simulator acts on is checked; other fields are
 * ignored. Refused: no model, no messages, counts that are no positive integers, a directive that is not understood.
 */
export function readRequest(body: unknown): ReadRequest {
  const unnamed = modelFault(body);
  if (unnamed) return unnamed;
  const fields = body as Fields;
  const model = fields["model"] as string;
  const messages = fields["messages"];
  if (!Array.isArray(messages) || messages.length === 0)
    return refuse("messages is not a list with at least one message", "messages");
  const choices = positiveInteger(fields["n"]);
  if (choices === "bad" || (choices ?? 1) > CHOICES_MAX)
    return refuse(`n is not an integer from 1 to ${CHOICES_MAX}`, "n");
  const capName =
    fields["max_completion_tokens"] === undefined ? "max_tokens" : "max_completion_tokens";
  const cap = positiveInteger(fields[capName]);
  if (cap === "bad") return refuse(`${capName} is not a positive integer`, capName);
  const content = measure(messages);
  const parsed = parseDirectives(lastUserText(messages));
  if (!parsed.ok) return refuse(parsed.message, "messages");
  const options = fields["stream_options"];
  const tools = fields["tools"];
  const toolBytes = Array.isArray(tools) ? Buffer.byteLength(JSON.stringify(tools)) : 0;
  return {
    ok: true,
    request: {
      model,
      stream: fields["stream"] === true,
      includeUsage: isFields(options) && options["include_usage"] === true,
      choices: choices ?? 1,
      outputTokensCap: cap,
      inputTokens: Math.ceil((content.textBytes + toolBytes) / 4) + content.images * IMAGE_TOKENS,
      messages: messages.length,
      ...content,
      tools: readTools(tools),
      toolWanted: readToolChoice(fields["tool_choice"]),
      jsonSchema: readJsonSchema(fields["response_format"]),
      serviceTier: readTier(fields["service_tier"]),
      directives: parsed.directives,
    },
  };
}

function measure(messages: readonly unknown[]): { textBytes: number; images: number } {
  let textBytes = 0;
  let images = 0;
  for (const message of messages) {
    if (!isFields(message)) continue;
    const content = message["content"];
    if (typeof content === "string") textBytes += Buffer.byteLength(content);
    if (!Array.isArray(content)) continue;
    for (const part of content) {
      if (!isFields(part)) continue;
      if (part["type"] === "image_url") images += 1;
      if (typeof part["text"] === "string") textBytes += Buffer.byteLength(part["text"]);
    }
  }
  return { textBytes, images };
}

/** The text of the last message of role user, its text parts one after another. */
function lastUserText(messages: readonly unknown[]): string {
  const message = messages.findLast((one) => isFields(one) && one["role"] === "user");
  const content = isFields(message) ? message["content"] : undefined;
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  const texts = content.map((part) =>
    isFields(part) && typeof part["text"] === "string" ? part["text"] : "",
  );
  return texts.join("\n");
}

function readTools(tools: unknown): ToolOffer[] {
  if (!Array.isArray(tools)) return [];
  return tools.flatMap((tool) => {
    const offer = isFields(tool) ? tool["function"] : undefined;
    if (!isFields(offer) || typeof offer["name"] !== "string") return [];
    return [{ name: offer["name"], parameters: offer["parameters"] }];
  });
}

function readToolChoice(choice: unknown): ChatRequest["toolWanted"] {
  if (choice === "required") return "any";
  const named = isFields(choice) ? choice["function"] : undefined;
  return isFields(named) && typeof named["name"] === "string" ? { name: named["name"] } : undefined;
}

function readJsonSchema(format: unknown): unknown {
  if (!isFields(format)) return undefined;
  if (format["type"] === "json_object") return { type: "object" };
  const named = format["type"] === "json_schema" ? format["json_schema"] : undefined;
  return isFields(named) ? (named["schema"] ?? {}) : undefined;
}

/** The tier that is served when no directive says otherwise: the one asked for, if it is one with a price of its own. */
function readTier(tier: unknown): string {
  return tier === "flex" || tier === "priority" ? tier : "default";
}

function positiveInteger(value: unknown): number | undefined | "bad" {
  if (value === undefined || value === null) return undefined;
  return typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : "bad";
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What is wrong with a body of any kind: it is no object, or names no model. */
export function modelFault(body: unknown): Refused | undefined {
  if (!isFields(body)) return refuse("the body is not a JSON object", null);
  const model = body["model"];
  if (typeof model === "string" && model !== "" && model.length <= MODEL_CHARACTERS_MAX)
    return undefined;
  return refuse("model is not a name", "model");
}

function refuse(message: string, param: string | null): Refused {
  return { ok: false, message, param };
}
