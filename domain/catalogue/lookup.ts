import {
  eachClass,
  tierFor,
  type ClassPrices,
  type ContextTier,
  type Price,
  type ServiceTier,
} from "#domain/prices.ts";
import type { Binding, Catalogue, Host } from "./types.ts";

const NONE: readonly Binding[] = [];
const DEFAULT_ONLY: readonly ServiceTier[] = ["default"];
const ANY_TIER: readonly ServiceTier[] = ["default", "flex", "priority"];
/** A provider may always serve the default tier instead of the one asked for. */
const TIERS_NAMED: ReadonlyMap<string, readonly ServiceTier[]> = new Map([
  ["default", DEFAULT_ONLY],
  // Capacity that is paid for elsewhere.
  ["scale", DEFAULT_ONLY],
  ["flex", ["flex", "default"]],
  ["priority", ["priority", "default"]],
  // Another name for priority.
  ["fast", ["priority", "default"]],
]);
const OTHER = "other";

// What is derived from a snapshot is remembered for as long as the snapshot itself: it never changes.
const bindingsByArea = new WeakMap<readonly Binding[], ReadonlyMap<string, readonly Binding[]>>();
const bindingsByUpstream = new WeakMap<Catalogue, ReadonlyMap<string, Binding>>();
const holdSteps = new WeakMap<
  readonly Binding[],
  Map<string | undefined, readonly ContextTier[]>
>();

/**
 * The bindings of a model that may process in an area, in order of preference; empty when there is none. The area has to
 * match exactly: `us` never falls back to `global` nor `global` to `us`. The same question gives the same array.
 */
export function bindingsFor(
  catalogue: Catalogue,
  modelId: string,
  processingArea: string,
): readonly Binding[] {
  const all = catalogue.bindings.get(modelId);
  if (!all) return NONE;
  let byArea = bindingsByArea.get(all);
  if (!byArea) {
    byArea = Map.groupBy(all, ({ host }) => host.processingArea);
    bindingsByArea.set(all, byArea);
  }
  return byArea.get(processingArea) ?? NONE;
}

/**
 * The binding to bill a call on: by the model that the response says was served, on the host that was called. A dated
 * snapshot (`gpt-4o-2024-08-06`) is billed as itself where the catalogue prices it apart, else as the model it is a
 * snapshot of. A name that is not known, or that costs the same, leaves the admitted binding in place.
 */
export function servedBinding(
  catalogue: Catalogue,
  admitted: Binding,
  servedModel: string,
): Binding {
  if (servedModel === admitted.upstreamModel) return admitted;
  const served =
    bindingByUpstream(catalogue, admitted, servedModel) ??
    bindingByUpstream(catalogue, admitted, servedModel.replace(/-\d{4}-\d{2}-\d{2}$/, ""));
  return served === undefined || served.price === admitted.price ? admitted : served;
}

function bindingByUpstream(
  catalogue: Catalogue,
  admitted: Binding,
  upstreamModel: string,
): Binding | undefined {
  let index = bindingsByUpstream.get(catalogue);
  if (!index) {
    const all = [...catalogue.bindings.values()].flat();
    index = new Map(
      all.map((binding) => [`${binding.host.slug}\n${binding.upstreamModel}`, binding]),
    );
    bindingsByUpstream.set(catalogue, index);
  }
  return index.get(`${admitted.host.slug}\n${upstreamModel}`);
}

/**
 * The service tiers at which a host may bill a request that names this one (undefined: it names none, or `auto`). What
 * names none may be served at any tier unless the host is pinned; so may a name that nobody knows.
 */
export function serviceTiersFor(
  requested: string | undefined,
  host: Pick<Host, "pinsServiceTier">,
): readonly ServiceTier[] {
  if (requested === undefined && host.pinsServiceTier) return DEFAULT_ONLY;
  return TIERS_NAMED.get(requested ?? OTHER) ?? ANY_TIER;
}

/** The tier to bill at, from what the response says was served; `default` where the price knows no such tier. */
export function servedTier(price: Price, served: string | undefined): ServiceTier {
  if (served === "flex" && price.flex) return "flex";
  if ((served === "priority" || served === "fast") && price.priority) return "priority";
  return "default";
}

/** The prices of a request: of this service tier (else the default one) and the context tier of its total input. */
export function pricesAt(price: Price, serviceTier: ServiceTier, inputTokens: number): ContextTier {
  return tierFor(price[serviceTier] ?? price.default, inputTokens);
}

/**
 * The prices a hold is computed with: for each class the dearest sale and the dearest cost over all bindings, all
 * service tiers that {@link serviceTiersFor} says (a binding without one has its default instead) and every context tier
 * that an input of at most `inputTokensBound` tokens can fall into. So nothing that can be served within the bounds costs
 * more than the hold. Fast on the second call for the same array of bindings. Throws when there is no binding.
 */
export function holdPrices(
  bindings: readonly Binding[],
  requestedTier: string | undefined,
  inputTokensBound: number,
): ContextTier {
  // Callers choose the name, so only known ones are remembered by it.
  const isKnown = requestedTier === undefined || TIERS_NAMED.has(requestedTier);
  const asked = isKnown ? requestedTier : OTHER;
  const byTier = holdSteps.get(bindings) ?? new Map<string | undefined, readonly ContextTier[]>();
  holdSteps.set(bindings, byTier);
  let steps = byTier.get(asked);
  if (!steps) byTier.set(asked, (steps = holdStepsOf(bindings, asked)));
  return tierFor(steps, inputTokensBound);
}

/** The maxima as a staircase: at each count of input tokens where a tier begins, the dearest of all that began by then. */
function holdStepsOf(
  bindings: readonly Binding[],
  requestedTier: string | undefined,
): ContextTier[] {
  const candidates = bindings.flatMap(({ price, host }) =>
    serviceTiersFor(requestedTier, host).flatMap((name) => price[name] ?? price.default),
  );
  const starts = [...new Set(candidates.map((tier) => tier.fromInputTokens))].sort((a, b) => a - b);
  return starts.map((fromInputTokens) => {
    const begun = candidates.filter((tier) => tier.fromInputTokens <= fromInputTokens);
    return {
      fromInputTokens,
      salePico: dearestByClass(begun.map((tier) => tier.salePico)),
      costPico: dearestByClass(begun.map((tier) => tier.costPico)),
    };
  });
}

function dearestByClass(prices: readonly ClassPrices[]): ClassPrices {
  return eachClass((name) => Math.max(0, ...prices.map((each) => each[name])));
}
