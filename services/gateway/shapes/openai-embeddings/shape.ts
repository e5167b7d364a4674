import type { ApiError } from "#services/errors.ts";
import {
  fault,
  modelFault,
  readObject,
  spanAt,
  textFault,
  type MemberSpan,
} from "#services/gateway/json/object.ts";
import { createScan } from "#services/gateway/json/scan.ts";
import { removing, setting, splice, type Edit } from "#services/gateway/json/splice.ts";
import { TEXT_ONLY, textTokensBound } from "#services/gateway/shapes/estimate.ts";
import { OPENAI_ERRORS } from "#services/gateway/shapes/openai/errors.ts";
import { readUsage } from "#services/gateway/shapes/openai/usage.ts";
import { wholeAnswerReader } from "#services/gateway/shapes/openai/whole-answer.ts";
import type { Ask, Shape, UpstreamNames } from "#services/gateway/shapes/shape.ts";

const MODEL = 0;
const MODEL_REGION = 1;
/** Parameters that the model never sees as text. Any other unknown member counts as its bytes. */
const PARAMETERS = ["encoding_format", "dimensions", "user"];
const SCAN = createScan(["model", "model_region", "input"], PARAMETERS);
/** OpenAI takes 300,000 tokens a request, and each may stand there as its id. */
const VALUES_MAX = 400_000;
/** What the estimate of an answer without usage takes for a token. */
const BYTES_OF_TOKEN = 4;

/** A request for embeddings as far as relai reads it. */
interface EmbeddingsAsk extends Ask {
  /** For {@link upstreamBody} only. */
  readonly edits: Readonly<Record<"model" | "modelRegion", MemberSpan | undefined>>;
}

/**
 * Reads the body of `POST /v1/embeddings`. Refused is what relai cannot read safely or cannot bound: the input is a text, token
 * ids, or a list of one of them. All other validation is the upstream's, the answer's format too.
 */
function readRequest(body: Buffer, depthMax: number): EmbeddingsAsk | ApiError {
  const object = readObject(body, SCAN, depthMax, VALUES_MAX);
  if ("code" in object) return object;
  const { model, input, model_region: modelRegion } = object.fields;
  const unusable = modelFault(model) ?? textFault("model_region", modelRegion);
  if (unusable) return unusable;
  const { spans, unknownBytes } = SCAN;
  const sums = { textBytes: unknownBytes, tokenIds: 0, texts: 1 };
  if (!sumInput(input, sums)) return INPUT_FAULT;
  return {
    model: model as string,
    stream: false,
    n: 1,
    outputCapTokens: null,
    outputCapName: "max_tokens",
    serviceTier: undefined,
    modelRegion: (modelRegion ?? undefined) as string | undefined,
    bounds: {
      ...TEXT_ONLY,
      promptBytes: sums.textBytes + sums.tokenIds * BYTES_OF_TOKEN,
      // Each text is counted for itself, so each may have half a token more.
      inputTokensBound: textTokensBound(sums.textBytes) + sums.texts + sums.tokenIds,
    },
    edits: { model: spanAt(spans, MODEL), modelRegion: spanAt(spans, MODEL_REGION) },
  };
}

/** The caller's bytes with the binding's name of the model and without `model_region`. */
function upstreamBody(
  body: Buffer,
  { model, edits: spans }: EmbeddingsAsk,
  { upstreamModel }: UpstreamNames,
): Buffer {
  const edits: Edit[] = [];
  if (upstreamModel !== model && spans.model)
    edits.push(setting(spans.model, JSON.stringify(upstreamModel)));
  if (spans.modelRegion) edits.push(removing(spans.modelRegion));
  return splice(body, edits);
}

type InputSums = Record<"textBytes" | "tokenIds" | "texts", number>;

/** Adds the input up; false when it is none. */
function sumInput(input: unknown, sums: InputSums): boolean {
  const items: unknown = typeof input === "string" ? [input] : input;
  if (!Array.isArray(items) || items.length === 0) return false;
  if (areTokenIds(items)) {
    sums.tokenIds += items.length;
  } else if (items.every((item) => typeof item === "string")) {
    for (const text of items) sums.textBytes += Buffer.byteLength(text);
    sums.texts += items.length;
  } else {
    for (const item of items) {
      if (!Array.isArray(item) || !areTokenIds(item)) return false;
      sums.tokenIds += item.length;
    }
  }
  return true;
}

const INPUT_FAULT = fault(
  "input",
  "'input' must be a string, an array of token ids, or a non-empty array of only strings or only arrays of token ids.",
);

function areTokenIds(items: readonly unknown[]): boolean {
  return items.every((item) => Number.isSafeInteger(item));
}

const NOTHING_SHOWN = { visibleBytes: 0, chunks: 0, audioBytes: 0 };

/** OpenAI's embeddings. They are never streamed, and what comes out of the model costs nothing. */
export const OPENAI_EMBEDDINGS: Shape<EmbeddingsAsk> = {
  path: "/embeddings",
  operation: "embeddings",
  read: readRequest,
  upstreamBody,
  credentialHeaders: (credential) => ({ authorization: `Bearer ${credential}` }),
  readAnswer: wholeAnswerReader({
    list: "data",
    // OpenAI's usage of embeddings names no completion.
    readUsage: (usage) =>
      readUsage(typeof usage === "object" ? { completion_tokens: 0, ...usage } : usage),
    finish: () => "stop",
    seen: () => NOTHING_SHOWN,
  }),
  openStream() {
    throw new Error("embeddings are not streamed");
  },
  errors: OPENAI_ERRORS,
};
