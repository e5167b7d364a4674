import { expect, test } from "vitest";
import { banner } from "./banner.ts";

const HERE = "http://127.0.0.1:1";
const addresses = { region: "eu", gateway: HERE, control: HERE, internal: HERE };

function shown(models: number, outside?: { url: string; processingArea: string }): string {
  const facts = {
    demo: undefined,
    demoFile: "",
    models,
    outside,
    firstModel: undefined,
    servers: [],
  };
  return banner({ ...addresses, simulator: undefined }, { ...facts, dataDir: "/d" });
}

test("who has no model is told what is missing: a credential, or a host of the region's own area", () => {
  expect(shown(0)).toContain("none: set OPENAI_API_KEY and start again");
  const outside = { url: "https://api.openai.com/v1", processingArea: "us" };
  const told = shown(0, outside);
  expect(told).toMatch(/models +0\n/);
  expect(told).toContain(
    "https://api.openai.com/v1 serves nothing here: it processes in us, and a region\nuses only hosts of its own area (this one is eu).",
  );
  expect(shown(6, outside)).toContain("serves nothing here");
  expect(shown(6)).not.toContain("serves nothing here");
});
