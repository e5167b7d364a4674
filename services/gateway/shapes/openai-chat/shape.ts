import { OPENAI_ERRORS } from "#services/gateway/shapes/openai/errors.ts";
import type { Shape } from "#services/gateway/shapes/shape.ts";
import { readChatAnswer } from "./answer.ts";
import { readChatRequest, type ChatAsk } from "./request.ts";
import { createChatStream } from "./stream.ts";
import { upstreamBody } from "./upstream-body.ts";

/** OpenAI's chat completions, whole and streamed. */
export const OPENAI_CHAT: Shape<ChatAsk> = {
  path: "/chat/completions",
  operation: "chat",
  read: readChatRequest,
  upstreamBody,
  credentialHeaders: (credential) => ({ authorization: `Bearer ${credential}` }),
  readAnswer: readChatAnswer,
  openStream: createChatStream,
  errors: OPENAI_ERRORS,
};
