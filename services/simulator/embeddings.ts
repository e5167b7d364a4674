import { createHash } from "node:crypto";
import { z } from "zod";
import { planWhole, type AnswerPlan } from "./answer.ts";
import { parseDirectives, type Directives } from "./directives.ts";
import { countOf, modelName, readBody } from "./request.ts";
import { NO_COUNTS } from "./usage.ts";

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

const DIMENSIONS_DEFAULT = 256;
const DIMENSIONS_MAX = 3072;
const INPUTS_MAX = 2048;
const NO_INPUT = `input has not between 1 and ${INPUTS_MAX} texts or lists of tokens`;

/** Each input is a text or the ids of its tokens. */
const ids = z.array(z.int()).min(1, NO_INPUT);
const inputs = z.union(
  [
    z.string().transform((text) => [text]),
    ids.transform((one) => [one]),
    z.array(z.string()).min(1, NO_INPUT).max(INPUTS_MAX, NO_INPUT),
    z.array(ids).min(1, NO_INPUT).max(INPUTS_MAX, NO_INPUT),
  ],
  NO_INPUT,
);
const embeddingsBody = z.object({
  model: modelName,
  input: inputs,
  dimensions: countOf("dimensions", DIMENSIONS_MAX),
  encoding_format: z
    .enum(["float", "base64"], "encoding_format is neither float nor base64")
    .optional(),
});

/** Reads the parsed body of `POST /embeddings`. Directives stand in the last input that is a text. */
export function readEmbeddings(body: unknown): EmbeddingsRequest {
  const { model, input, dimensions, encoding_format } = readBody(embeddingsBody, body);
  const sizes = input.map((one) =>
    typeof one === "string" ? Math.ceil(Buffer.byteLength(one) / 4) : one.length,
  );
  const lastText = input.findLast((one) => typeof one === "string");
  return {
    model,
    stream: false,
    seeds: input.map((one) => createHash("sha256").update(JSON.stringify(one)).digest()),
    inputTokens: sizes.reduce((sum, size) => sum + size, 0),
    isBase64: encoding_format === "base64",
    dimensions: dimensions ?? DIMENSIONS_DEFAULT,
    directives: parseDirectives(lastText ?? "", "input"),
  };
}

/** The answer to a request for embeddings: the same input has the same embedding, of length 1. */
export function planEmbeddings(request: EmbeddingsRequest): AnswerPlan {
  const { model, directives, seeds, dimensions, isBase64 } = request;
  const { input = request.inputTokens } = directives.counts;
  return planWhole(
    directives,
    { ...NO_COUNTS, input },
    {
      object: "list",
      data: seeds.map((seed, index) => {
        const floats = embeddingOf(seed, dimensions);
        const embedding = isBase64 ? Buffer.from(floats.buffer).toString("base64") : [...floats];
        return { object: "embedding", index, embedding };
      }),
      model: directives.model ?? model,
      ...(!directives.noUsage && { usage: { prompt_tokens: input, total_tokens: input } }),
    },
  );
}

function embeddingOf(seed: Buffer, dimensions: number): Float32Array {
  const bytes = createHash("shake256", { outputLength: dimensions * 2 })
    .update(seed)
    .digest();
  const raw = Array.from({ length: dimensions }, (_, at) => bytes.readInt16LE(at * 2) || 1);
  const length = Math.hypot(...raw);
  return Float32Array.from(raw, (value) => value / length);
}
