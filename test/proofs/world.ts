import { buildCatalogue } from "#domain/catalogue/build.ts";
import type { Catalogue } from "#domain/catalogue/types.ts";
import { openHere, type Running } from "#test/e2e/relai.ts";

/** A relai that proofs run on, all in one process or a region of processes on servers, and what it asks for the model there. */
export interface ProofWorld extends Running {
  readonly gatewayUrls: readonly string[];
  readonly catalogue: Catalogue;
  /** What a chat completion of one message holds with this output cap. */
  holdOf(content: string, outputMax: number): { holdMicro: number; holdCostMicro: number };
  /** What so many tokens cost. */
  chargeOf(input: number, output: number): { chargedMicro: number; providerCostMicro: number };
  /** Where its events say that calls went. */
  readonly host: { readonly host: string; readonly hostKey: string };
}

const CATALOGUE = buildCatalogue({ openai: false, simulator: true, processingArea: "us" });
/** `sim-flat` costs the provider a fifth less than the caller. */
const costOf = (micro: number) => micro * 0.8;

/** A relai with the demo: `sim-flat` is a micro-dollar a token, and a hold has 24 for what a request is made of. */
export function asEmbedded<R extends Running>(
  relai: R,
  gatewayUrls: readonly string[],
): R & ProofWorld {
  return {
    ...relai,
    gatewayUrls,
    catalogue: CATALOGUE,
    holdOf(content, outputMax) {
      const holdMicro = 24 + Math.ceil(content.length / 2) + outputMax;
      return { holdMicro, holdCostMicro: Math.ceil(costOf(holdMicro)) };
    },
    chargeOf: (input, output) => ({
      chargedMicro: input + output,
      providerCostMicro: Math.round(costOf(input + output)),
    }),
    host: { host: "simulator", hostKey: "embedded" },
  };
}

/** Opens relai in this process. */
export async function embeddedWorld(options: { gatewayCount: number }): Promise<ProofWorld> {
  const opened = await openHere(options);
  return asEmbedded(opened, opened.relai.gatewayUrls);
}
