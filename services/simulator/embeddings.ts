import { createHash } from "node:crypto";
import { planWhole, type AnswerPlan } from "./answer.ts";
import { parseDirectives, type Directives } from "./directives.ts";
import { modelFault, type Refused } from "./request.ts";

/** What the simulator reads of a request for embeddings. */
export interface EmbeddingsRequest {
  readonly model: string;
  readonly stream: false;
  /** A hash of each input, from which its embedding is made: no text of the caller is kept. */
  readonly seeds: readonly Buffer[];
  /** ceil(bytes of text / 4), or as many as there are token ids. */
  readonly inputTokens: number;
  readonly isBase64: boolean;
  readonly dimensions: number;
  readonly directives: Directives;
}

type ReadEmbeddings = { readonly ok: true; readonly request: EmbeddingsRequest } | Refused;

const DIMENSIONS_DEFAULT = 256;
const DIMENSIONS_MAX = 3072;
const INPUTS_MAX = 2048;

/** Reads the parsed body of `POST /embeddings`. Directives stand in the last input that is a text. */
export function readEmbeddings(body: unknown): ReadEmbeddings {
  const unnamed = modelFault(body);
  if (unnamed) return unnamed;
  const { model, input, dimensions, encoding_format: format } = body as Record<string, unknown>;
  const inputs = inputsOf(input);
  if (inputs.length === 0 || inputs.length > INPUTS_MAX)
    return refuse(`input has not between 1 and ${INPUTS_MAX} texts or lists of tokens`, "input");
  const count = dimensions ?? DIMENSIONS_DEFAULT;
  if (typeof count !== "number" || !(count >= 1 && count <= DIMENSIONS_MAX) || count % 1 !== 0)
    return refuse(`dimensions is not an integer from 1 to ${DIMENSIONS_MAX}`, "dimensions");
  if (format !== undefined && format !== "float" && format !== "base64")
    return refuse("encoding_format is neither float nor base64", "encoding_format");
  const lastText = inputs.findLast((one) => typeof one === "string");
  const parsed = parseDirectives(typeof lastText === "string" ? lastText : "");
  if (!parsed.ok) return refuse(parsed.message, "input");
  let inputTokens = 0;
  for (const one of inputs)
    inputTokens += typeof one === "string" ? Math.ceil(Buffer.byteLength(one) / 4) : one.length;
  return {
    ok: true,
    request: {
      model: model as string,
      stream: false,
      seeds: inputs.map((one) => createHash("sha256").update(JSON.stringify(one)).digest()),
      inputTokens,
      isBase64: format === "base64",
      dimensions: count,
      directives: parsed.directives,
    },
  };
}

/** The answer to a request for embeddings: the same input has the same embedding, of length 1. */
export function planEmbeddings(request: EmbeddingsRequest): AnswerPlan {
  const { model, directives, seeds, dimensions, isBase64 } = request;
  const input = directives.input ?? request.inputTokens;
  const none = { cached: 0, cacheWrite: 0, audioIn: 0, imageIn: 0 };
  const counts = { ...none, input, output: 0, reasoning: 0, audioOut: 0 };
  return planWhole(directives, counts, {
    object: "list",
    data: seeds.map((seed, index) => {
      const floats = embeddingOf(seed, dimensions);
      const embedding = isBase64 ? Buffer.from(floats.buffer).toString("base64") : [...floats];
      return { object: "embedding", index, embedding };
    }),
    model: directives.model ?? model,
    ...(!directives.noUsage && { usage: { prompt_tokens: input, total_tokens: input } }),
  });
}

function embeddingOf(seed: Buffer, dimensions: number): Float32Array {
  const bytes = createHash("shake256", { outputLength: dimensions * 2 })
    .update(seed)
    .digest();
  const raw = Array.from({ length: dimensions }, (_, at) => bytes.readInt16LE(at * 2) || 1);
  const length = Math.hypot(...raw);
  return Float32Array.from(raw, (value) => value / length);
}

/** Each input is a text or the ids of its tokens; nothing where the input is neither. */
function inputsOf(input: unknown): readonly (string | readonly number[])[] {
  const isIds = (value: unknown): value is number[] =>
    Array.isArray(value) && value.length > 0 && value.every((id) => Number.isSafeInteger(id));
  if (typeof input === "string") return [input];
  if (isIds(input)) return [input];
  if (!Array.isArray(input)) return [];
  const inputs = input as readonly unknown[];
  return inputs.every((one) => typeof one === "string") || inputs.every(isIds) ? inputs : [];
}

function refuse(message: string, param: string): ReadEmbeddings {
  return { ok: false, message, param };
}
