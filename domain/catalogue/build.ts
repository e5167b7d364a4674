import { completePrices, type ContextTier, type Price } from "#domain/prices.ts";
import { OPENAI_MODELS, type ModelRow } from "./openai-models.ts";
import { OPENAI_PRICES, type PriceRow } from "./openai-prices.ts";
import { SIMULATOR_MODELS } from "./simulator.ts";
import type { Binding, Catalogue, Host, Model, OutputCapName } from "./types.ts";

/** The day on which the shipped data was last held against its sources. It changes with every change of the data. */
export const DATA_VERSION = "2026-11-21";

/** The most output tokens that go upstream as the cap when the caller sets none. */
const OUTPUT_TOKENS_DEFAULT_MAX = 16_384;

export interface CatalogueOptions {
  /** OpenAI, or what speaks its API; false without a credential for it: then its names do not exist. */
  readonly openai: HostFacts | false;
  /** True when the simulated upstream runs: only `sim-*` names lead to it, and only then do they exist. */
  readonly simulator: boolean;
  /** The region's own area. The simulator processes in it, and a host that processes elsewhere is left out. */
  readonly processingArea: string;
}

/** What the settings say of a host, and no data file can. */
export type HostFacts = Pick<Host, "processingArea" | "pinsServiceTier">;

/**
 * Builds the snapshot from the shipped data: the models and bindings of every configured upstream. Pure: the same
 * options give an equal catalogue. A host that is not configured, or not in the area, contributes neither names nor
 * bindings.
 */
export function buildCatalogue(options: CatalogueOptions): Catalogue {
  const { openai, simulator, processingArea } = options;
  const bindings = [
    ...(openai && openai.processingArea === processingArea ? openaiBindings(openai) : []),
    ...(simulator ? simulatorBindings(processingArea) : []),
  ];
  return {
    dataVersion: DATA_VERSION,
    bindings: Map.groupBy(bindings, ({ model }) => model.id),
    byUpstreamModel: Map.groupBy(bindings, ({ upstreamModel }) => upstreamModel),
  };
}

function openaiBindings(facts: HostFacts): Binding[] {
  const host: Host = { slug: "openai", ...facts };
  return OPENAI_MODELS.flatMap(({ snapshots, ...row }) => {
    const price = priceOf(row.id);
    const names = { [row.id]: row.createdUnix, ...snapshots };
    return Object.entries(names).map(([id, createdUnix]) =>
      bind(modelOf({ ...row, id, createdUnix }, "openai"), host, "max_completion_tokens", price),
    );
  });
}

function simulatorBindings(processingArea: string): Binding[] {
  const host: Host = { slug: "simulator", processingArea, pinsServiceTier: false };
  return SIMULATOR_MODELS.map(({ outputCapName, price, ...row }) =>
    bind(modelOf(row, "relai"), host, outputCapName, price),
  );
}

function modelOf(row: ModelRow, ownedBy: string): Model {
  const outputTokensDefault = Math.min(row.outputTokensMax, OUTPUT_TOKENS_DEFAULT_MAX);
  return { ...row, ownedBy, outputTokensDefault };
}

function bind(model: Model, host: Host, outputCapName: OutputCapName, price: Price): Binding {
  const id = `${model.id}@${host.slug}`;
  const named = { upstreamModel: model.id, priceVersion: `${DATA_VERSION}:${id}` };
  return { id, model, host, outputCapName, price, ...named };
}

/** A model's list price. The rows of one service tier stand in ascending order of their first token. */
function priceOf(model: string): Price {
  const tiers = Map.groupBy(
    OPENAI_PRICES.filter(([name]) => name === model),
    ([, serviceTier]) => serviceTier,
  );
  if (!tiers.has("default")) throw new RangeError(`no default price ships for ${model}`);
  const written = [...tiers].map(([serviceTier, rows]) => [serviceTier, rows.map(contextTierOf)]);
  return Object.fromEntries(written) as Price;
}

/**
 * A provider's row as a context tier. Sale and cost are both the list price: what the organization pays is what the
 * provider charges us. An operator's markup or discount belongs to the catalogue that is edited while running.
 */
function contextTierOf(row: PriceRow): ContextTier {
  const [, , fromInputTokens, input, cacheRead, cacheWriteShort, output, apart] = row;
  const pico = completePrices({
    input,
    output,
    ...(cacheRead !== null && { cacheRead }),
    ...(cacheWriteShort !== null && { cacheWriteShort }),
    ...apart,
  });
  return { fromInputTokens, salePico: pico, costPico: pico };
}
