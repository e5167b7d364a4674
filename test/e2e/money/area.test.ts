import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { eventsIn } from "./books.ts";
import { leavesNothingRunning, newFolder, post, startRelai } from "#test/e2e/relai.ts";

leavesNothingRunning();

const OPENAI_API_KEY = "sk-nobody";

test("a host outside of the region's area serves nothing there, and the log says so", async () => {
  const OPENAI_BASE_URL = "https://eu.api.openai.com/v1";
  const relai = await startRelai({ settings: { OPENAI_API_KEY, OPENAI_BASE_URL } });
  const listed = await fetch(`${relai.gateway}/v1/models`, {
    headers: { authorization: `Bearer ${relai.key}` },
  });
  const { data } = (await listed.json()) as { data: { id: string }[] };
  expect(data.map(({ id }) => id).filter((id) => !id.startsWith("sim-"))).toEqual([]);
  const refused = await post(relai, "hello", { model: "gpt-4o" });
  expect(refused.status).toBe(404);
  await refused.text();
  const served = await post(relai, "hello");
  expect(served.status).toBe(200);
  await served.text();
  expect(await relai.stop()).toBe(0);
  expect(relai.stderr()).toContain("host_outside_area");
  const areas = (await eventsIn(relai)).flatMap(({ data: fact }) =>
    "processingArea" in fact ? [fact.processingArea] : [],
  );
  expect(new Set(areas)).toEqual(new Set(["us"]));
});

test("a host that nobody can place stops the start with one sentence, before anything is written", async () => {
  const dataDir = join(newFolder(), "data");
  const settings = { OPENAI_API_KEY, OPENAI_BASE_URL: "https://models.example/v1" };
  await expect(startRelai({ dataDir, settings })).rejects.toThrow(
    /^relai ended with 2: relai: OPENAI_AREA must say where models\.example processes, [^\n]+\.\n$/,
  );
  expect(existsSync(dataDir)).toBe(false);
  const placed = await startRelai({ dataDir, settings: { ...settings, OPENAI_AREA: "us" } });
  expect(await placed.stop()).toBe(0);
});
