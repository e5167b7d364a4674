import { describe, expect, test } from "vitest";
import { parseDirectives } from "./directives.ts";

const directivesOf = (text: string) => parseDirectives(text, "messages");

describe("directives", () => {
  test("a text without a bracket asks for nothing", () => {
    for (const text of ["", "hello", "[simple output=5]", "sim output=5", "[sim]"])
      expect(directivesOf(text)).toEqual({ counts: {} });
  });

  test("every word has its place", () => {
    expect(
      directivesOf(
        "Please [sim input=1200 cached=600 cache-write=10 audio-in=3 image-in=4 output=500 reasoning=20 audio-out=7" +
          " no-usage chunks=9 tool=2 model=sim-flat-2026 tier=priority hold=a.1 first=100 delay=20] thanks",
      ),
    ).toEqual({
      counts: {
        input: 1200,
        cached: 600,
        cacheWrite: 10,
        audioIn: 3,
        imageIn: 4,
        output: 500,
        reasoning: 20,
        audioOut: 7,
      },
      noUsage: true,
      chunks: 9,
      tool: 2,
      model: "sim-flat-2026",
      tier: "priority",
      hold: "a.1",
      first: 100,
      delay: 20,
    });
  });

  test.each([
    ["status=503", { how: "status", status: 503 }],
    ["retry-after=3 status=429", { how: "status", status: 429, retryAfterSeconds: 3 }],
    ["hang-up", { how: "hang-up" }],
    ["reset-after=5", { how: "reset", after: 5 }],
    ["end-after=0", { how: "end", after: 0 }],
    ["stall-after=3", { how: "stall", after: 3 }],
    ["error-after=1", { how: "error", after: 1 }],
    ["garbage", { how: "garbage" }],
    ["no-done", { how: "no-done" }],
  ])("%s is a way to fail", (words, failure) => {
    expect(directivesOf(`[sim ${words}]`)).toEqual({ counts: {}, failure });
  });

  test.each([
    ["[sim outptu=5]", "'outptu'"],
    ["[sim output]", "'output' needs"],
    ["[sim output=-1]", "'output' needs"],
    ["[sim output=1e3]", "'output' needs"],
    ["[sim output=5 output=5]", "'output' stands twice"],
    ["[sim garbage=1]", "'garbage'"],
    ["[sim no-usages]", "'no-usages'"],
    ["[sim toString]", "'toString'"],
    ["[sim __proto__=1]", "'__proto__'"],
    ["[sim status=200]", "'status' needs"],
    ["[sim retry-after=3]", "'retry-after' needs 'status'"],
    ["[sim hold=]", "'hold' needs"],
    ["[sim delay=600001]", "'delay' needs"],
    ["[sim garbage hang-up]", "one way only"],
    ["[sim output=5", "not closed"],
    [`[sim ${" ".repeat(2000)}]`, "not closed"],
    ["[sim output=5] [sim input=5]", "two brackets"],
  ])("%s is refused by name", (text, part) => {
    expect(() => directivesOf(text)).toThrow(part);
  });
});
