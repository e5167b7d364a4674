import { expect, test } from "vitest";
import { ConfigError, readConfig } from "./config.ts";
import { openaiHostOf } from "./openai-host.ts";

const OPENAI_API_KEY = "sk-canary";

function areaOf(url: string | undefined, region = "us", area?: string): string | undefined {
  const env = { OPENAI_API_KEY, OPENAI_BASE_URL: url, OPENAI_AREA: area };
  try {
    return openaiHostOf(readConfig({ env }), region)?.processingArea;
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return error instanceof Error ? error.message : "";
  }
}

test.each([
  [undefined, "us", undefined, "us"],
  [undefined, "eu", undefined, "us"],
  ["https://us.api.openai.com/v1", "eu", undefined, "us"],
  ["https://eu.api.openai.com/v1", "eu", undefined, "eu"],
  ["https://eu.api.openai.com/v1", "us", undefined, "eu"],
  ["https://EU.API.OpenAI.com/v1", "us", "eu", "eu"],
  ["http://127.0.0.1:9/v1", "eu", undefined, "eu"],
  ["http://[::1]:9/v1", "us", undefined, "us"],
  ["http://localhost:9/v1", "eu", "us", "us"],
  ["https://models.example/v1", "us", "global", "global"],
])(
  "the area belongs to the host: %s in region %s with OPENAI_AREA %s processes in %s",
  (...row) => {
    const [url, region, area, processingArea] = row;
    expect(areaOf(url, region, area)).toBe(processingArea);
  },
);

test("an address that nobody knows needs OPENAI_AREA, and one of OpenAI's does not take another", () => {
  expect(areaOf("https://models.example/v1", "eu")).toBe(
    "OPENAI_AREA must say where models.example processes, such as us, eu or global: a region serves only hosts of its own area, and this one is eu.",
  );
  for (const near of ["api.openai.com.example", "api.openai.com.", "xapi.openai.com", "1.2.3.4"])
    expect(areaOf(`https://${near}/v1`)).toContain("OPENAI_AREA must say where");
  expect(areaOf(undefined, "eu", "eu")).toBe(
    'OPENAI_AREA is "eu" but must be "us", where api.openai.com processes; it can be left out.',
  );
});

test("only OpenAI itself is held to the default service tier", () => {
  const pins = (OPENAI_BASE_URL?: string): boolean | undefined => {
    const env = { OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_AREA: OPENAI_BASE_URL && "eu" };
    return openaiHostOf(readConfig({ env }), "us")?.pinsServiceTier;
  };
  expect([pins(), pins("https://eu.api.openai.com/v1")]).toEqual([true, true]);
  expect(pins("https://models.example/v1")).toBe(false);
  expect(pins("http://127.0.0.1:9/v1")).toBe(false);
});

test("without a credential there is no host, and nobody asks where it would process", () => {
  const env = { OPENAI_BASE_URL: "https://models.example/v1" };
  expect(openaiHostOf(readConfig({ env }), "us")).toBeUndefined();
});
