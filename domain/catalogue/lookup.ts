import {
  eachClass,
  tierFor,
  type ContextTier,
  type Price,
  type ServiceTier,
} from "#domain/prices.ts";
import type { HoldPrices } from "#domain/hold.ts";
import type { Binding, Catalogue, Host } from "./types.ts";

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

/** What a provider puts behind a model's name to say which of its versions it is. */
const SNAPSHOT = /-\d{4}-\d{2}-\d{2}$/;

/**
 * The name of a model that an answer says was served, where the catalogue has that name or it is a dated snapshot of one;
 * else undefined: any other name could be any text.
 */
export function knownServed(
  catalogue: Pick<Catalogue, "byUpstreamModel">,
  servedModel: string | undefined,
): string | undefined {
  return catalogue.byUpstreamModel.has(servedModel?.replace(SNAPSHOT, "") ?? "") ||
    catalogue.byUpstreamModel.has(servedModel ?? "")
    ? servedModel
    : undefined;
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
  const named = (name: string) =>
    catalogue.byUpstreamModel.get(name)?.find(({ host }) => host.slug === admitted.host.slug);
  const served = named(servedModel) ?? named(servedModel.replace(SNAPSHOT, ""));
  return served === undefined || served.price === admitted.price ? admitted : served;
}

/**
 * The service tiers at which a host may bill a request that names this one (undefined: it names none, or `auto`). What
 * names none may be served at any tier unless the host is pinned; so may a name that nobody knows.
 */
export function serviceTiersFor(
  requested: string | undefined,
  host: Pick<Host, "pinsServiceTier">,
): readonly ServiceTier[] {
  if (requested === undefined) return host.pinsServiceTier ? DEFAULT_ONLY : ANY_TIER;
  return TIERS_NAMED.get(requested) ?? ANY_TIER;
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
 * more than the hold. Throws when there is no binding.
 */
export function holdPrices(
  bindings: readonly Binding[],
  requestedTier: string | undefined,
  inputTokensBound: number,
): HoldPrices {
  const begun = bindings
    .flatMap(({ price, host }) =>
      serviceTiersFor(requestedTier, host).flatMap((name) => price[name] ?? price.default),
    )
    .filter((tier) => tier.fromInputTokens <= inputTokensBound);
  const [only, ...others] = new Set(begun);
  if (!only) throw new RangeError("a hold has no price");
  if (others.length === 0) return only;
  const tiers = [only, ...others];
  const dearest = (side: keyof HoldPrices) =>
    eachClass((name) => Math.max(...tiers.map((tier) => tier[side][name])));
  return { salePico: dearest("salePico"), costPico: dearest("costPico") };
}
