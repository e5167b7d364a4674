import {
  inserting,
  removing,
  replacing,
  setting,
  splice,
  type Edit,
} from "#services/gateway/json/splice.ts";
import type { UpstreamNames } from "#services/gateway/shapes/shape.ts";
import type { ChatAsk } from "./request.ts";

/**
 * The body to send upstream: the caller's bytes with the binding's model name, the output cap under the name that the
 * binding knows, usage asked for in a stream, storing switched off, the default service tier where the host is to be
 * held to it and the caller named none, and without `model_region`. Every other byte is the caller's. When nothing
 * differs it is the caller's buffer itself. `body` is the one that `ask` was read from.
 */
export function upstreamBody(body: Buffer, ask: ChatAsk, names: UpstreamNames): Buffer {
  const { model } = ask.spans;
  const edits: Edit[] = [];
  if (names.upstreamModel !== ask.model && model)
    edits.push(setting(model, JSON.stringify(names.upstreamModel)));
  capOutput(ask, names, edits);
  edits.push(...ask.always);
  if (names.pinsServiceTier && ask.serviceTier === undefined) pinServiceTier(ask, edits);
  return splice(body, edits);
}

/**
 * Sets the cap under the binding's name. The caller's other name is renamed, or removed when both stand there (one of
 * them is null then).
 */
function capOutput(
  { spans, objectStart, outputCapTokens: asked }: ChatAsk,
  { outputCapName: name, outputCapTokens }: UpstreamNames,
  edits: Edit[],
): void {
  const own = spans[name];
  const other = spans[name === "max_tokens" ? "max_completion_tokens" : "max_tokens"];
  const kept = own ?? other;
  if (kept === undefined) {
    edits.push(inserting(objectStart, `"${name}":${outputCapTokens}`, true));
    return;
  }
  if (own === undefined) edits.push(replacing(kept.keyStart, kept.keyEnd, `"${name}"`));
  else if (other !== undefined) edits.push(removing(other));
  // With both names there, the caller's number may be the removed one's.
  const stands = asked === outputCapTokens && (own === undefined || other === undefined);
  if (!stands) edits.push(setting(kept, String(outputCapTokens)));
}

/** The hold rests on the default tier's prices, and the account upstream may be set to a dearer one. */
function pinServiceTier(ask: ChatAsk, edits: Edit[]): void {
  const tier = ask.spans.service_tier;
  if (tier) edits.push(setting(tier, '"default"'));
  else edits.push(inserting(ask.objectStart, '"service_tier":"default"', true));
}
