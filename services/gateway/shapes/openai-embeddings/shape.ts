import { readUsage } from "#services/gateway/shapes/openai/usage.ts";
import { OPENAI_ERRORS } from "#services/gateway/shapes/openai/errors.ts";
import { wholeAnswerReader } from "#services/gateway/shapes/openai/whole-answer.ts";
import type { Shape } from "#services/gateway/shapes/shape.ts";
import { readEmbeddingsRequest, upstreamBody, type EmbeddingsAsk } from "./request.ts";

const NOTHING_SHOWN = { visibleBytes: 0, chunks: 0, audioBytes: 0 };

/** OpenAI's embeddings. They are never streamed, and what comes out of the model costs nothing. */
export const OPENAI_EMBEDDINGS: Shape<EmbeddingsAsk> = {
  path: "/embeddings",
  operation: "embeddings",
  read: readEmbeddingsRequest,
  upstreamBody,
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
