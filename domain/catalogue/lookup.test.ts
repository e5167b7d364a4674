import { describe, expect, test } from "vitest";
import { completePrices } from "#domain/prices.ts";
import type { Price } from "#domain/prices.ts";
import { buildCatalogue } from "./build.ts";
import { holdPrices, servedBinding, servedTier, serviceTiersFor } from "./lookup.ts";
import type { Binding, Catalogue } from "./types.ts";

const us = buildCatalogue({
  openai: { processingArea: "us", pinsServiceTier: true },
  simulator: true,
  processingArea: "us",
});

function binding(modelId: string, overrides: Partial<Binding> = {}): Binding {
  const [found] = us.bindings.get(modelId) ?? [];
  if (!found) throw new Error(`${modelId} has no binding`);
  return { ...found, ...overrides };
}

function catalogueOf(...bindings: Binding[]): Catalogue {
  return {
    dataVersion: "test",
    bindings: Map.groupBy(bindings, ({ model }) => model.id),
    byUpstreamModel: Map.groupBy(bindings, ({ upstreamModel }) => upstreamModel),
  };
}

/** A price whose every class costs `pico` in the first context tier; later ones as given. */
function flat(pico: number, later: Record<number, number> = {}): Price["default"] {
  const tierAt = (fromInputTokens: number, each: number) => {
    const prices = completePrices({ input: each, output: each });
    return {
      fromInputTokens,
      salePico: prices,
      costPico: completePrices({ input: each / 2, output: each / 2 }),
    };
  };
  return [
    tierAt(0, pico),
    ...Object.entries(later).map(([from, each]) => tierAt(Number(from), each)),
  ];
}

describe("the binding that was served", () => {
  const gpt4o = binding("gpt-4o");
  test.each([
    ["the very model", "gpt-4o", "gpt-4o@openai"],
    ["a snapshot that ships at the same price", "gpt-4o-2024-08-06", "gpt-4o@openai"],
    ["a snapshot that does not ship", "gpt-4o-2031-01-02", "gpt-4o@openai"],
    ["another model", "gpt-4o-mini", "gpt-4o-mini@openai"],
    ["a snapshot of another model that does not ship", "gpt-4.1-2031-01-02", "gpt-4.1@openai"],
    ["a name that nobody knows", "gpt-99", "gpt-4o@openai"],
    ["a snapshot of a name that nobody knows", "gpt-99-2031-01-02", "gpt-4o@openai"],
    ["a model of another host", "sim-flat", "gpt-4o@openai"],
    ["no name at all", "", "gpt-4o@openai"],
  ])("is for %s (%j) %s", (_, served, id) => {
    expect(servedBinding(us, gpt4o, served).id).toBe(id);
  });

  test("is the snapshot's own where the catalogue prices it apart", () => {
    const model = { ...gpt4o.model, id: "gpt-4o-2024-05-13" };
    const apart = {
      ...gpt4o,
      id: "gpt-4o-2024-05-13@openai",
      model,
      upstreamModel: model.id,
      price: { default: flat(9) },
    };
    const catalogue = catalogueOf(gpt4o, apart);
    expect(servedBinding(catalogue, gpt4o, "gpt-4o-2024-05-13")).toBe(apart);
    expect(servedBinding(catalogue, apart, "gpt-4o-2024-05-13")).toBe(apart);
    expect(servedBinding(catalogue, apart, "gpt-4o")).toBe(gpt4o);
  });

  test("goes by the upstream's name for the model, not by ours", () => {
    const renamed = binding("sim-small", { upstreamModel: "inner-name" });
    const catalogue = catalogueOf(renamed, binding("sim-flat"));
    expect(servedBinding(catalogue, renamed, "inner-name-2026-01-01")).toBe(renamed);
    expect(servedBinding(catalogue, binding("sim-flat"), "inner-name")).toBe(renamed);
  });
});

describe("service tiers", () => {
  const any = ["default", "flex", "priority"];
  test.each([
    [undefined, ["default"], any],
    ["default", ["default"], ["default"]],
    ["scale", ["default"], ["default"]],
    ["never heard of", any, any],
    ["flex", ["flex", "default"], ["flex", "default"]],
    ["priority", ["priority", "default"], ["priority", "default"]],
    ["fast", ["priority", "default"], ["priority", "default"]],
  ])("asked for %j may be billed at %j where relai pins it, else at %j", (...row) => {
    const [requested, pinned, elsewhere] = row;
    expect(serviceTiersFor(requested, { pinsServiceTier: true })).toEqual(pinned);
    expect(serviceTiersFor(requested, { pinsServiceTier: false })).toEqual(elsewhere);
  });

  test.each([
    ["sim-tiers", undefined, "default"],
    ["sim-tiers", "default", "default"],
    ["sim-tiers", "scale", "default"],
    ["sim-tiers", "flex", "flex"],
    ["sim-tiers", "priority", "priority"],
    ["sim-tiers", "fast", "priority"],
    ["sim-small", "flex", "default"],
    ["sim-small", "priority", "default"],
  ])("%s served at %j is billed at %s", (modelId, served, tier) => {
    expect(servedTier(binding(modelId).price, served)).toBe(tier);
  });
});

describe("the prices of a hold", () => {
  const cheap = binding("sim-small", { price: { default: flat(10, { 100: 60 }), flex: flat(4) } });
  const dear = binding("sim-large", {
    price: { default: flat(20, { 1_000: 40 }), priority: flat(90) },
  });
  const pinned = { ...dear, host: { ...dear.host, pinsServiceTier: true } };
  test.each([
    ["one binding, first tier", [cheap], "default", 99, 10],
    ["one binding, at the boundary", [cheap], "default", 100, 60],
    ["two bindings: the dearer", [cheap, dear], "default", 99, 20],
    ["two bindings: the dearer changes with the tier", [cheap, dear], "default", 100, 60],
    ["a later, cheaper tier does not lower the bound", [cheap, dear], "default", 1_000, 60],
    ["flex may be served at default", [cheap], "flex", 99, 10],
    ["priority counts", [cheap, dear], "priority", 0, 90],
    ["a binding without the tier has its default", [cheap], "priority", 99, 10],
    ["tiers that were not asked for do not count", [dear], "default", 0, 20],
    ["no tier where nothing pins it: the dearest", [dear], undefined, 0, 90],
    ["no tier where it is pinned: the default", [pinned], undefined, 0, 20],
    ["no tier, pinned at one host and not at the other", [pinned, cheap], undefined, 100, 60],
    ["a tier that nobody knows: the dearest", [pinned], "never heard of", 0, 90],
  ])("%s", (_, bindings, requested, inputTokensBound, pico) => {
    const prices = holdPrices(bindings, requested, inputTokensBound);
    expect(prices.salePico).toEqual(completePrices({ input: pico, output: pico }));
    expect(prices.costPico).toEqual(completePrices({ input: pico / 2, output: pico / 2 }));
  });

  test("are the maximum of each class and side by itself", () => {
    const one = {
      fromInputTokens: 0,
      salePico: completePrices({ input: 8, output: 2 }),
      costPico: flat(1)[0]?.salePico,
    };
    const two = {
      fromInputTokens: 0,
      salePico: completePrices({ input: 3, output: 9 }),
      costPico: flat(7)[0]?.salePico,
    };
    const bindings = [one, two].map(({ costPico, ...rest }) => {
      if (!costPico) throw new Error("no tier");
      return binding("sim-flat", { price: { default: [{ ...rest, costPico }] } });
    });
    const prices = holdPrices(bindings, "default", 5);
    expect([prices.salePico.input, prices.salePico.output, prices.costPico.input]).toEqual([
      8, 9, 7,
    ]);
  });

  test("do not exist without a binding", () => {
    expect(() => holdPrices([], "default", 1)).toThrow(RangeError);
  });
});
