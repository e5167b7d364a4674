import type { Catalogue } from "#domain/catalogue/types.ts";
import { JSON_DEPTH_MAX } from "#services/gateway/json/object.ts";
import { makeOffer } from "#services/gateway/money/offer.ts";
import { OPENAI_CHAT } from "#services/gateway/shapes/openai-chat/shape.ts";
import { handleShape } from "#services/gateway/way/request.ts";

/** The way of a chat completion. */
export const handleChat = handleShape(OPENAI_CHAT);

/** What is offered for the body of a chat completion in the region `us`. */
export function offerOf(catalogue: Catalogue, body: Buffer) {
  return makeOffer(OPENAI_CHAT, catalogue, "us", body, JSON_DEPTH_MAX);
}
