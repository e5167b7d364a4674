import { openaiErrorBody } from "#services/errors.ts";
import { isMembers } from "#services/gateway/json/object.ts";
import { parseWithin } from "#services/gateway/json/scan.ts";
import type { ErrorShape } from "#services/gateway/shapes/shape.ts";

/** Errors as OpenAI's clients read them, whichever of its routes they asked. */
export const OPENAI_ERRORS: ErrorShape = {
  body: openaiErrorBody,
  told(body) {
    const parsed = parseWithin(body, 0, body.length);
    return isMembers(parsed) && isMembers(parsed["error"]) ? parsed["error"] : {};
  },
  // Without `[DONE]` behind it, so that the stream cannot pass for a whole answer.
  inStream: (error) => `data: ${openaiErrorBody(error)}\n\n`,
};
