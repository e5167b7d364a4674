import { pricesAt } from "#domain/catalogue/lookup.ts";
import type { Catalogue } from "#domain/catalogue/types.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import { TOKEN_CLASSES, totalInput } from "#domain/prices.ts";
import type { Report } from "./found.ts";

/**
 * 15 PRICE, against the catalogue: an admission pins the price of one of its bindings, and a charge carries the prices of
 * the version, binding and service tier that it names, at the context tier of its own tokens. Prices of another data
 * version than the catalogue's cannot be looked up; those of its own must be there.
 */
export function createPinCheck(report: Report, catalogue: Catalogue) {
  const bindings = [...catalogue.bindings.values()].flat();
  const byVersion = new Map(bindings.map((binding) => [binding.priceVersion, binding]));

  function pinned({ requestId, priceVersion }: { requestId: string; priceVersion: string }) {
    const binding = byVersion.get(priceVersion);
    if (!binding && priceVersion.startsWith(`${catalogue.dataVersion}:`))
      report("PRICE", `${requestId} pins ${priceVersion}, which its catalogue does not have`);
    return binding;
  }

  return (event: RecordedEvent): void => {
    if (event.type === "RequestAdmitted.v1") {
      const { requestId, bindingIds } = event.data;
      const binding = pinned(event.data);
      if (binding && !bindingIds.includes(binding.id))
        report("PRICE", `${requestId} pins the price of ${binding.id}, where it cannot run`);
    }
    if (event.type !== "UsageRecorded.v1") return;
    const { requestId, bindingId, serviceTier, tokens, salePico, costPico } = event.data;
    const binding = pinned(event.data);
    if (!binding) return;
    if (binding.id !== bindingId)
      report("PRICE", `${requestId} ran at ${bindingId} and is priced as ${binding.id}`);
    if (serviceTier !== "default" && serviceTier !== "flex" && serviceTier !== "priority")
      return report("PRICE", `${requestId} was served at a tier that has no name`);
    if (!binding.price[serviceTier])
      return report("PRICE", `${requestId} was served at ${serviceTier}, which ${bindingId} lacks`);
    const prices = pricesAt(binding.price, serviceTier, totalInput(tokens));
    for (const name of TOKEN_CLASSES) {
      if (!tokens[name]) continue;
      if (salePico[name] !== prices.salePico[name] || costPico[name] !== prices.costPico[name])
        report("PRICE", `${requestId} has other prices for ${name} than ${binding.priceVersion}`);
    }
  };
}
