import { OPENAI_CHAT } from "./openai-chat/shape.ts";
import { OPENAI_EMBEDDINGS } from "./openai-embeddings/shape.ts";
import type { Shape } from "./shape.ts";

/** Every wire shape that the gateway serves. */
export const SHAPES: readonly Shape[] = [OPENAI_CHAT, OPENAI_EMBEDDINGS];
