import { calcPrice } from "@pydantic/genai-prices";
import { describe, expect, test } from "vitest";
import { TOKEN_CLASSES, completePrices } from "#domain/prices.ts";
import type { ContextTier, ServiceTier, TokenClass } from "#domain/prices.ts";
import { DATA_VERSION, buildCatalogue } from "./build.ts";

/**
 * Holds every shipped price of a provider against the `@pydantic/genai-prices` package. What the package does not know
 * stands here with the reason; an entry that is no longer needed fails as well, so that the lists stay true.
 */
const MODELS_NOT_IN_PACKAGE: Readonly<Record<string, string>> = {
  "gpt-6.1-sol": "released 2026-09-29, after the package's data; from OpenAI's page of the model",
  "gpt-6.1-terra":
    "released 2026-10-26, after the package's data; as others quote OpenAI's page of the model",
};

/** The package prices the standard tier alone. The others are held to their published relation to it, further below. */
const TIERS_NOT_IN_PACKAGE: readonly ServiceTier[] = ["flex", "priority"];

const WINDOWS_OTHER_THAN_PACKAGE: Readonly<Record<string, string>> = {
  "gpt-4.1": "OpenAI's page says 1,047,576; the package rounds to a million",
  "gpt-4.1-mini": "OpenAI's page says 1,047,576; the package rounds to a million",
  "gpt-5.5": "OpenAI's page says 1,050,000; the package rounds to a million",
};

const CLASS_OF_PACKAGE_KEY: Readonly<Record<string, TokenClass>> = {
  input_mtok: "input",
  output_mtok: "output",
  cache_read_mtok: "cacheRead",
  cache_write_mtok: "cacheWriteShort",
  input_audio_mtok: "inputAudio",
  output_audio_mtok: "outputAudio",
};
/** Fees per call of tools that the provider hosts: no tokens. */
const PACKAGE_KEYS_OF_NO_TOKENS = new Set(["web_searches_kcount", "storage_searches_kcount"]);

const PROVIDER = [
  ...buildCatalogue({
    openai: { processingArea: "us", pinsServiceTier: true },
    simulator: false,
    processingArea: "us",
  }).bindings.values(),
].flat();

const undated = (modelId: string) => modelId.replace(/-\d{4}-\d{2}-\d{2}$/, "");

function inPackage(modelId: string) {
  const options = { providerId: "openai", timestamp: new Date(`${DATA_VERSION}T12:00:00Z`) };
  const found = calcPrice({ input_tokens: 1 }, modelId, options) ?? undefined;
  return found && { windowTokens: found.model.context_window, prices: found.model_price };
}

/** The package's price as our context tiers: dollars per million to pico per token, "above start" to "from". */
function tiersOf(
  prices: NonNullable<ReturnType<typeof inPackage>>["prices"],
): Omit<ContextTier, "costPico">[] {
  const written = Object.entries(prices).filter(([key]) => !PACKAGE_KEYS_OF_NO_TOKENS.has(key));
  const starts = new Set([0]);
  for (const [, price] of written) {
    if (typeof price === "object") for (const { start } of price.tiers) starts.add(start + 1);
  }
  return [...starts].map((fromInputTokens) => {
    const pico: Partial<Record<TokenClass, number>> = {};
    for (const [key, price] of written) {
      const name = CLASS_OF_PACKAGE_KEY[key];
      if (!name)
        throw new Error(`the package prices a class that the catalogue does not know: ${key}`);
      if (price === undefined) continue;
      const dollars =
        typeof price === "number"
          ? price
          : (price.tiers.findLast(({ start }) => start < fromInputTokens)?.price ?? price.base);
      pico[name] = Math.round(dollars * 1_000_000);
    }
    // What has no output has no price for it.
    const { input, output = 0 } = pico;
    if (input === undefined) throw new Error("the package has no input price");
    return { fromInputTokens, salePico: completePrices({ ...pico, input, output }) };
  });
}

/** Every disagreement in one readable line: model, context tier, class, ours, theirs. */
function disagreements(): string[] {
  return PROVIDER.flatMap(({ model, price }) => {
    const theirs = inPackage(model.id);
    if (!theirs) return [];
    const expected = tiersOf(theirs.prices);
    const ourStarts = price.default.map((tier) => tier.fromInputTokens).join(", ");
    const theirStarts = expected.map((tier) => tier.fromInputTokens).join(", ");
    if (ourStarts !== theirStarts)
      return [`${model.id}: context tiers from ${ourStarts}, package ${theirStarts}`];
    return expected.flatMap((tier, i) =>
      TOKEN_CLASSES.flatMap((name) => {
        const [ours, their] = [price.default[i]?.salePico[name], tier.salePico[name]];
        return ours === their
          ? []
          : [`${model.id} from ${tier.fromInputTokens} ${name}: ${ours}, package ${their} pico`];
      }),
    );
  });
}

describe("against the package", () => {
  test("every default price agrees, class by class and context tier by context tier", () => {
    expect(disagreements()).toEqual([]);
  });

  test("the models that it does not know are the listed ones", () => {
    const missing = PROVIDER.map(({ model }) => model.id).filter((id) => !inPackage(id));
    expect(missing).toEqual(Object.keys(MODELS_NOT_IN_PACKAGE));
  });

  test("context windows agree but for the listed ones, which are larger", () => {
    const other = PROVIDER.flatMap(({ model }) => {
      const theirs = inPackage(model.id)?.windowTokens;
      if (theirs === undefined || theirs === model.contextWindowTokens) return [];
      return model.contextWindowTokens > theirs
        ? [undated(model.id)]
        : [`${model.id} is smaller than the package's`];
    });
    expect([...new Set(other)].sort()).toEqual(Object.keys(WINDOWS_OTHER_THAN_PACKAGE));
  });

  test("it still knows nothing of service tiers", () => {
    const keys = PROVIDER.flatMap(({ model }) => Object.keys(inPackage(model.id)?.prices ?? {}));
    expect(keys.length).toBeGreaterThan(100);
    expect(keys.filter((key) => TIERS_NOT_IN_PACKAGE.some((name) => key.includes(name)))).toEqual(
      [],
    );
  });
});

describe("service tiers that the package does not know", () => {
  /** The list rounds half of $0.25 to $0.13. */
  const ROUNDED: Readonly<Record<string, number>> = {
    "gpt-5.4 flex 0 cacheRead": 130_000,
    "gpt-5.4 flex 272000 cacheRead": 260_000,
  };
  /** What "fast mode" costs as a multiple of the default price; twice where nothing else is listed. */
  const PRIORITY_PERCENT: Readonly<Record<string, number>> = {
    "gpt-5.5": 250,
    "gpt-5-mini": 180,
    "gpt-4.1": 175,
    "gpt-4.1-mini": 175,
    "gpt-4o": 170,
    "gpt-4o-mini": 166,
    o3: 175,
  };

  test("flex is half of the default price, priority its listed multiple, at the same context tiers", () => {
    const wrong: string[] = [];
    for (const { model, price } of PROVIDER) {
      for (const serviceTier of TIERS_NOT_IN_PACKAGE) {
        const percent = serviceTier === "flex" ? 50 : (PRIORITY_PERCENT[undated(model.id)] ?? 200);
        for (const [i, { fromInputTokens, salePico }] of (price[serviceTier] ?? []).entries()) {
          const standard = price.default[i];
          if (standard?.fromInputTokens !== fromInputTokens)
            wrong.push(`${model.id}: from ${fromInputTokens}`);
          for (const name of TOKEN_CLASSES) {
            const key = `${undated(model.id)} ${serviceTier} ${fromInputTokens} ${name}`;
            const exact = ROUNDED[key] ?? ((standard?.salePico[name] ?? 0) * percent) / 100;
            // 166 % stands for "five thirds": prices of that model are given to the cent.
            const off = Math.abs(salePico[name] - exact) / exact;
            if (off > (percent === 166 ? 0.005 : 0))
              wrong.push(`${key}: ${salePico[name]}, expected ${exact}`);
          }
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  test("a long context doubles input and caches and adds half to output, in every service tier", () => {
    let tiersSeen = 0;
    for (const { model, price } of PROVIDER) {
      for (const [short, long] of Object.values(price)) {
        if (!short || !long) continue;
        tiersSeen += 1;
        const expected = TOKEN_CLASSES.map((name) => {
          const factor = name === "output" || name === "outputAudio" ? 1.5 : 2;
          return short.salePico[name] * factor;
        });
        expect([model.id, TOKEN_CLASSES.map((name) => long.salePico[name])]).toEqual([
          model.id,
          expected,
        ]);
      }
    }
    expect(tiersSeen).toBeGreaterThan(20);
  });
});
