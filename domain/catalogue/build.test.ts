import { describe, expect, test } from "vitest";
import { TOKEN_CLASSES, costOf, totalInput } from "#domain/prices.ts";
import type { ContextTier, Tokens } from "#domain/prices.ts";
import { DATA_VERSION, buildCatalogue } from "./build.ts";
import { OPENAI_MODELS } from "./openai-models.ts";
import { OPENAI_PRICES } from "./openai-prices.ts";
import { pricesAt } from "./lookup.ts";
import type { Binding } from "./types.ts";

const OPENAI = { processingArea: "us", pinsServiceTier: true };
const both = buildCatalogue({ openai: OPENAI, simulator: true, processingArea: "us" });
const all: readonly Binding[] = [...both.bindings.values()].flat();

function only(modelId: string): Binding {
  const [binding] = both.bindings.get(modelId) ?? [];
  if (!binding) throw new Error(`${modelId} has no binding`);
  return binding;
}

describe("which names exist", () => {
  test("a provider's only with that provider, the simulator's only with the simulator", () => {
    for (const [openai, simulator] of [
      [true, true],
      [true, false],
      [false, true],
      [false, false],
    ] as const) {
      const catalogue = buildCatalogue({
        openai: openai && OPENAI,
        simulator,
        processingArea: "us",
      });
      expect([catalogue.bindings.has("gpt-4o"), catalogue.bindings.has("sim-flat")]).toEqual([
        openai,
        simulator,
      ]);
    }
  });

  test.each(["eu", "global", "apac"])("in %s are none of a host that processes in us", (area) => {
    const elsewhere = buildCatalogue({ openai: OPENAI, simulator: true, processingArea: area });
    const names = [...elsewhere.bindings.keys()];
    expect(names.filter((id) => !id.startsWith("sim-"))).toEqual([]);
    expect(names).toContain("sim-flat");
    const areas = [...elsewhere.bindings.values()].flat().map(({ host }) => host.processingArea);
    expect(new Set(areas)).toEqual(new Set([area]));
  });

  test("in us are none of a host that processes anywhere", () => {
    const openai = { ...OPENAI, processingArea: "global" };
    const inUs = buildCatalogue({ openai, simulator: false, processingArea: "us" });
    expect(inUs.bindings.size).toBe(0);
  });

  test("only sim-* names lead to the simulator", () => {
    for (const { model, host } of all)
      expect(host.slug === "simulator").toBe(model.id.startsWith("sim-"));
    const simulated = all
      .filter(({ host }) => host.slug === "simulator")
      .map(({ model }) => model.id);
    expect(simulated).toEqual([
      "sim-flat",
      "sim-small",
      "sim-large",
      "sim-tiers",
      "sim-vision",
      "sim-audio",
      "sim-embed",
    ]);
  });

  test("are unique, and each is found by exactly its own name", () => {
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
    expect(both.bindings.get("gpt-4o")?.[0]?.model.id).toBe("gpt-4o");
    expect(both.bindings.get("GPT-4o")).toBeUndefined();
    expect(both.bindings.get("")).toBeUndefined();
  });

  test("every price row belongs to a model and every model has its rows", () => {
    expect([...new Set(OPENAI_PRICES.map(([model]) => model))]).toEqual(
      OPENAI_MODELS.map(({ id }) => id),
    );
  });
});

describe("every binding", () => {
  test.each(all.map((binding) => [binding.id, binding] as const))(
    "%s is well formed",
    (id, binding) => {
      const { model, host, price, priceVersion, upstreamModel } = binding;
      expect(id).toBe(`${model.id}@${host.slug}`);
      expect(priceVersion).toBe(`${DATA_VERSION}:${id}`);
      expect(upstreamModel).toBe(model.id);
      expect(host.processingArea).toBe("us");
      expect(model.outputTokensDefault).toBe(Math.min(model.outputTokensMax, 16_384));
      expect(model.outputTokensMax).toBeLessThan(model.contextWindowTokens);
      for (const tiers of Object.values(price)) {
        expect(tiers[0]?.fromInputTokens).toBe(0);
        const starts = tiers.map((tier) => tier.fromInputTokens);
        expect(starts).toEqual([...new Set(starts)].sort((a, b) => a - b));
        const pico = tiers.flatMap((tier) => [
          ...Object.values(tier.salePico),
          ...Object.values(tier.costPico),
        ]);
        // Only of a model that writes no token is a price 0: that of its output.
        const least = model.outputTokensMax > 0 ? 1 : 0;
        expect(pico.filter((each) => !Number.isSafeInteger(each) || each < least)).toEqual([]);
        expect(tiers.every((tier) => tier.salePico.input > 0)).toBe(true);
      }
    },
  );

  test("of the provider sells at its list price, of the simulator a quarter above its cost", () => {
    for (const { host, price } of all) {
      for (const { salePico, costPico } of Object.values(price).flat()) {
        for (const name of TOKEN_CLASSES) {
          expect(costPico[name] * 5).toBe(
            host.slug === "simulator" ? salePico[name] * 4 : salePico[name] * 5,
          );
        }
      }
    }
  });
});

describe("the simulator's models", () => {
  test("sim-flat and sim-embed have one price for everything; every other one a price of its own for every class", () => {
    for (const { model, price } of all.filter(({ host }) => host.slug === "simulator")) {
      for (const { salePico } of Object.values(price).flat()) {
        expect(new Set(Object.values(salePico)).size).toBe(
          ["sim-flat", "sim-embed"].includes(model.id) ? 1 : TOKEN_CLASSES.length,
        );
      }
    }
    expect(only("sim-flat").price.default[0]?.salePico.input).toBe(1_000_000);
    expect(only("sim-flat").price.default[0]?.costPico.output).toBe(800_000);
  });

  test("know the output cap under either name, and one of them takes images", () => {
    expect(new Set(all.map(({ outputCapName }) => outputCapName))).toEqual(
      new Set(["max_tokens", "max_completion_tokens"]),
    );
    expect(only("sim-vision").model.imageTokensMax).toBe(2_000);
    expect(only("sim-small").model).not.toHaveProperty("imageTokensMax");
  });
});

describe("golden bills, tier boundary on both sides", () => {
  const sale = (tier: ContextTier) => tier.salePico;
  const cost = (tier: ContextTier) => tier.costPico;
  test.each<[string, "default" | "flex" | "priority", Tokens, typeof sale, number, number]>([
    ["sim-tiers", "default", { input: 199_999, output: 10 }, sale, 400_098, 0],
    ["sim-tiers", "default", { input: 199_999, output: 10 }, cost, 320_078, 400_000],
    ["sim-tiers", "default", { input: 200_000, output: 10 }, sale, 800_200, 0],
    ["sim-tiers", "default", { input: 1, cacheRead: 199_999, output: 0 }, sale, 80_004, -400_000],
    ["sim-tiers", "flex", { input: 200_000, output: 10 }, sale, 400_100, 0],
    ["sim-tiers", "priority", { input: 199_999, output: 10 }, sale, 1_000_245, 0],
    ["sim-audio", "default", { input: 3, inputAudio: 5, outputAudio: 7 }, sale, 372, 0],
    ["sim-vision", "default", { input: 1, inputImage: 1_501 }, sale, 2_252, 500_000],
    ["gpt-4o", "default", { input: 1_000, cacheRead: 1_000, output: 500 }, sale, 8_750, 0],
    ["gpt-4o", "priority", { input: 1_000, cacheRead: 1_000, output: 500 }, cost, 14_875, 0],
    ["gpt-4o", "flex", { input: 1_000, cacheRead: 1_000, output: 500 }, sale, 8_750, 0],
    ["gpt-5.4", "default", { input: 271_999, output: 1 }, sale, 680_012, 500_000],
    ["gpt-5.4", "default", { input: 272_000, output: 1 }, sale, 1_360_022, 500_000],
    ["gpt-6-sol", "default", { input: 272_000, output: 1 }, sale, 544_010, 0],
    ["gpt-6-sol", "default", { input: 272_001, output: 1 }, sale, 1_088_019, 0],
    [
      "gpt-6-sol",
      "default",
      { cacheRead: 272_001, cacheWriteShort: 2, output: 1 },
      sale,
      108_825,
      400_000,
    ],
    ["gpt-6-luna", "flex", { input: 3, cacheRead: 1, cacheWriteShort: 1 }, sale, 0, 217_500],
    ["gpt-audio", "default", { inputAudio: 10, output: 3, outputAudio: 20 }, sale, 1_630, 0],
  ])("%s at %s: %j", (modelId, serviceTier, tokens, side, chargedMicro, residualPico) => {
    const prices = side(pricesAt(only(modelId).price, serviceTier, totalInput(tokens)));
    expect(costOf(tokens, prices)).toEqual({ micro: chargedMicro, residualPico });
  });
});
