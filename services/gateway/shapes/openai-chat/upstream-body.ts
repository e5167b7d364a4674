import { inserting, removing, replacing, splice } from "#services/gateway/json/splice.ts";
import type { Edit } from "#services/gateway/json/splice.ts";
import type { UpstreamNames } from "#services/gateway/shapes/shape.ts";
import type { ChatAsk } from "./request.ts";

/**
 * The body to send upstream: the caller's bytes with the binding's model name, the output cap under the name that the
 * binding knows, usage asked for in a stream, storing switched off, the default service tier where the host is to be
 * held to it and the caller named none, and without `model_region`. Every other byte is the caller's. When nothing
 * differs it is the caller's buffer itself. `body` is the one that `ask` was read from.
 */
export function upstreamBody(body: Buffer, ask: ChatAsk, names: UpstreamNames): Buffer {
  const { edits: spans } = ask;
  const edits: Edit[] = [];
  if (names.upstreamModel !== ask.model) {
    edits.push(
      replacing(spans.model.valueStart, spans.model.valueEnd, JSON.stringify(names.upstreamModel)),
    );
  }
  capOutput(ask, names, edits);
  if (ask.stream) askForUsage(ask, edits);
  if (spans.modelRegion)
    edits.push(removing(spans.modelRegion.keyStart, spans.modelRegion.valueEnd));
  if (spans.store) edits.push(replacing(spans.store.valueStart, spans.store.valueEnd, "false"));
  if (names.pinsServiceTier && ask.serviceTier === undefined) pinServiceTier(ask, edits);
  return splice(body, edits);
}

/**
 * Sets the cap under the binding's name. The caller's other name is renamed, or removed when both stand there (one of
 * them is null then).
 */
function capOutput(ask: ChatAsk, names: UpstreamNames, edits: Edit[]): void {
  const { maxTokens, maxCompletionTokens, objectStart } = ask.edits;
  const [own, other] =
    names.outputCapName === "max_tokens"
      ? [maxTokens, maxCompletionTokens]
      : [maxCompletionTokens, maxTokens];
  const kept = own ?? other;
  if (kept === undefined) {
    edits.push(inserting(objectStart, `"${names.outputCapName}":${names.outputCapTokens}`, true));
    return;
  }
  if (own === undefined)
    edits.push(replacing(kept.keyStart, kept.keyEnd, `"${names.outputCapName}"`));
  else if (other !== undefined) edits.push(removing(other.keyStart, other.valueEnd));
  // With both names there, the caller's number may be the removed one's.
  const stands =
    ask.outputCapTokens === names.outputCapTokens && (own === undefined || other === undefined);
  if (!stands) edits.push(replacing(kept.valueStart, kept.valueEnd, String(names.outputCapTokens)));
}

/** The hold rests on the default tier's prices, and the account upstream may be set to a dearer one. */
function pinServiceTier(ask: ChatAsk, edits: Edit[]): void {
  const { objectStart, serviceTier } = ask.edits;
  edits.push(
    serviceTier === undefined
      ? inserting(objectStart, '"service_tier":"default"', true)
      : replacing(serviceTier.valueStart, serviceTier.valueEnd, '"default"'),
  );
}

function askForUsage(ask: ChatAsk, edits: Edit[]): void {
  if (ask.includeUsageAsked) return;
  const { objectStart, streamOptions, streamOptionsInside: inside } = ask.edits;
  if (streamOptions === undefined) {
    edits.push(inserting(objectStart, '"stream_options":{"include_usage":true}', true));
  } else if (inside === undefined) {
    edits.push(
      replacing(streamOptions.valueStart, streamOptions.valueEnd, '{"include_usage":true}'),
    );
  } else if (inside.includeUsage === undefined) {
    edits.push(inserting(inside.objectStart, '"include_usage":true', !inside.isEmpty));
  } else {
    edits.push(replacing(inside.includeUsage.valueStart, inside.includeUsage.valueEnd, "true"));
  }
}
