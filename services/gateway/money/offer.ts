import { holdPrices } from "#domain/catalogue/lookup.ts";
import type { Binding, Catalogue } from "#domain/catalogue/types.ts";
import { holdFor, type HoldBounds, type HoldPrices } from "#domain/hold.ts";
import type { ApiError } from "#services/errors.ts";
import { fault } from "#services/gateway/json/object.ts";
import type { Ask, Shape } from "#services/gateway/shapes/shape.ts";

/** A request that can be served: what was asked, where it can run, and what is held for it. */
export interface Offer {
  readonly ask: Ask;
  /** Fixed at admission; the first is tried first. */
  readonly candidates: readonly Binding[];
  /** Of every candidate: there is never a fallback to another area. */
  readonly processingArea: string;
  /** Of the candidate that is tried first. */
  readonly priceVersion: string;
  /** The output cap of each choice, as it goes upstream. */
  readonly outputCapTokens: number;
  readonly bounds: HoldBounds;
  /** The dearest prices that can apply. */
  readonly prices: HoldPrices;
  readonly holdMicro: number;
  readonly holdCostMicro: number;
}

export const MODEL_NOT_FOUND: ApiError = {
  code: "model_not_found",
  param: "model",
  message: "The model does not exist here; GET /v1/models lists what this key can use",
};

/**
 * Reads a body, resolves its model to the bindings of the region's own processing area (there is never a fallback to
 * another), and sizes its hold. Answers with the refusal of the table where one of these fails. Keeps nothing of the
 * body.
 */
export function makeOffer(
  shape: Shape,
  catalogue: Catalogue,
  processingArea: string,
  body: Buffer,
  depthMax: number,
): Offer | ApiError {
  const ask = shape.read(body, depthMax);
  if ("code" in ask) return ask;
  if (ask.modelRegion !== undefined && ask.modelRegion !== "global") {
    const message =
      "'global' is the only valid value for model_region; leave it out for processing in the region";
    return fault("model_region", message);
  }
  const bindings = catalogue.bindings.get(ask.model) ?? [];
  const [first] = bindings;
  if (!first) return MODEL_NOT_FOUND;
  if (first.model.operation !== shape.operation) {
    const message = `${ask.model} does not serve this route: it is a model for ${first.model.operation}.`;
    return fault("model", message);
  }
  if (ask.modelRegion === "global") {
    const message =
      "Global routing is off for regional keys: prompts of a regional key never leave its region";
    return { code: "residency_violation", param: "model_region", message };
  }
  const { outputTokensMax, outputTokensDefault } = first.model;
  const outputCapTokens = ask.outputCapTokens ?? outputTokensDefault;
  if (outputCapTokens > outputTokensMax) {
    const name = ask.outputCapName;
    const message = `'${name}' is ${outputCapTokens}, and ${ask.model} writes at most ${outputTokensMax} tokens.`;
    return fault(name, message);
  }
  const bounds = boundsOf(ask, first, outputCapTokens);
  const prices = holdPrices(bindings, ask.serviceTier, bounds.inputTokensBound);
  return {
    ask,
    candidates: bindings,
    processingArea,
    priceVersion: first.priceVersion,
    outputCapTokens,
    bounds,
    prices,
    ...holdFor(bounds, prices),
  };
}

/** An image or a reference whose size cannot be known takes the model's whole context window. */
function boundsOf(ask: Ask, { model }: Binding, outputCapTokens: number): HoldBounds {
  const { bounds } = ask;
  const sized = bounds.imageCount - bounds.remoteImageCount;
  const images = sized * (model.imageTokensMax ?? model.contextWindowTokens);
  const known = bounds.inputTokensBound + images;
  return {
    inputTokensBound: bounds.unknownSize ? Math.max(known, model.contextWindowTokens) : known,
    outputTokensBound: (outputCapTokens + bounds.predictionTokensBound) * ask.n,
    hasAudioInput: bounds.hasAudioInput,
    hasImages: bounds.imageCount > 0 || bounds.unknownSize,
    hasAudioOutput: bounds.hasAudioOutput,
  };
}
