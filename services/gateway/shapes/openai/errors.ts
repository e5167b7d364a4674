import { openaiErrorBody } from "#services/errors.ts";
import type { ErrorShape } from "#services/gateway/shapes/shape.ts";

/** Errors as OpenAI's clients read them, whichever of its routes they asked. */
export const OPENAI_ERRORS: ErrorShape = {
  body: openaiErrorBody,
  // Without `[DONE]` behind it, so that the stream cannot pass for a whole answer.
  inStream: (error) => `data: ${openaiErrorBody(error)}\n\n`,
};
