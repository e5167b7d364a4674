import { pricesAt, servedBinding, servedTier } from "#domain/catalogue/lookup.ts";
import type { Binding } from "#domain/catalogue/types.ts";
import type { Attempt } from "#domain/events/schemas.ts";
import { totalInput, type Tokens } from "#domain/prices.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import { chargeHold, type ChargeOutcome } from "#services/gateway/money/charge.ts";
import type { Offer } from "#services/gateway/money/offer.ts";
import { estimateTokens, type SeenOutput } from "#services/gateway/shapes/estimate.ts";
import type { Said } from "#services/gateway/shapes/shape.ts";
import type { Answer } from "./answer.ts";
import type { Admitted, Tried } from "./attempt.ts";

/** What an answer came to: what it said of itself, what it showed, and how it ended. */
export interface Served extends Said {
  seen(): SeenOutput;
  readonly finish: string;
  /** It came to its end; or its client had left, and nobody is to be told of an error. */
  readonly isTold: boolean;
}

/**
 * Prices what was served, by what the answer says was served, and charges it. An answer that is told to its client is
 * counted here; one that ends with an error is counted where that is told.
 */
export async function settle(
  gateway: Gateway,
  answer: Answer,
  { offer, hold }: Pick<Admitted, "offer" | "hold">,
  { binding: tried, forwarded }: Pick<Tried, "binding" | "forwarded">,
  attempts: Attempt[],
  served: Served,
): Promise<ChargeOutcome> {
  const { catalogue, clock, telemetry } = gateway.parts;
  const tokens = served.usage?.tokens ?? estimate(offer, tried, served.seen());
  if (served.usage?.anomaly)
    telemetry.alarm("usage_parts_exceed_total", { requestId: answer.requestId });
  const binding = servedBinding(catalogue, tried, served.servedModel ?? tried.upstreamModel);
  const serviceTier = servedTier(binding.price, served.serviceTier);
  const firstByteAtMs = forwarded.firstByteAtMs() ?? forwarded.beganMs;
  const clientGone = answer.isGone();
  const charge = await chargeHold(gateway.money, hold, {
    tokens,
    binding,
    serviceTier,
    prices: pricesAt(binding.price, serviceTier, totalInput(tokens)),
    billedBy: served.usage ? "provider" : "estimate",
    clientGone,
    attempts,
    firstByteMs: Math.round(firstByteAtMs - forwarded.beganMs),
    durationMs: Math.round(clock.elapsed() - answer.beganMs),
    finish: served.finish,
  });
  if (served.isTold && charge.outcome === "charged") {
    answer.count({
      ...(clientGone ? { status: 499, code: "client_gone" } : { status: 200, code: "ok" }),
      firstByteMs: firstByteAtMs - answer.beganMs,
      chargedMicro: charge.chargedMicro,
      inputTokens: totalInput(tokens),
      outputTokens: (tokens.output ?? 0) + (tokens.outputAudio ?? 0),
    });
  }
  return charge;
}

function estimate({ ask, outputCapTokens }: Offer, { model }: Binding, seen: SeenOutput): Tokens {
  const { bounds } = ask;
  const { imageTokensMax = 0, contextWindowTokens } = model;
  const asked = {
    ...bounds,
    imageTokens: Math.min(bounds.imageCount * imageTokensMax, contextWindowTokens),
    outputCapTokens: outputCapTokens * ask.n,
  };
  return estimateTokens(asked, seen);
}
