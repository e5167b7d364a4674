import { expect, test } from "vitest";
import { sleep } from "#services/waiting.ts";
import { manualClock } from "#test/manual-clock.ts";
import { STOP_MS, stopAll, type Stops } from "./stopping.ts";

const PARTS = Object.keys(STOP_MS) as (keyof Stops)[];
const DRAIN_MS = 30_000;

test("all parts together have less than ten seconds beyond the drain", () => {
  expect(Object.values(STOP_MS).reduce<number>((sum, partMs) => sum + partMs, 0)).toBeLessThan(
    10_000,
  );
});

test("gateways drain while what they need is there, and the books close last", async () => {
  const order: string[] = [];
  const stops: Stops = {};
  for (const part of PARTS.toReversed()) stops[part] = () => order.push(part);
  await stopAll(manualClock(), stops, DRAIN_MS);
  expect(order).toEqual([
    "gateways",
    "traces",
    "control",
    "internal",
    "simulator",
    "upstream",
    "ledger",
    "projector",
    "store",
    "folder",
  ]);
});

test.each(PARTS)(
  "when %s hangs, all others are ended within ten seconds beyond the drain, and the folder stays locked",
  async (hanging) => {
    const clock = manualClock();
    const ended: string[] = [];
    const stops: Stops = {};
    for (const part of PARTS) stops[part] = () => void ended.push(part);
    stops[hanging] = () => new Promise(() => {});
    const stopping = stopAll(clock, stops, DRAIN_MS).catch((error: unknown) => String(error));
    await clock.advance(DRAIN_MS + 10_000);
    expect(await stopping).toMatch(new RegExp(`^Error: ${hanging} did not end within \\d+ ms$`));
    expect(ended).toEqual(PARTS.filter((part) => part !== hanging && part !== "folder"));
  },
);

test("a part that fails is told, and the others are ended", async () => {
  const ended: string[] = [];
  const stops: Stops = {
    control: () => Promise.reject(new Error("the first")),
    ledger: () => {
      throw new Error("the second");
    },
    store: () => ended.push("store"),
    folder: () => ended.push("folder"),
  };
  await expect(stopAll(manualClock(), stops, DRAIN_MS)).rejects.toThrow("the first");
  expect(ended).toEqual(["store"]);
});

test("what a part does not need of its time is there for those after it, the drain's is not", async () => {
  const clock = manualClock();
  let hasEnded = false;
  const stopping = stopAll(
    clock,
    {
      gateways: () => sleep(clock, DRAIN_MS / 2),
      store: () => sleep(clock, 8_000).then(() => (hasEnded = true)),
    },
    DRAIN_MS,
  );
  await clock.advance(DRAIN_MS / 2 + 8_000);
  await stopping;
  expect(hasEnded).toBe(true);
  const late = stopAll(clock, { store: () => sleep(clock, 10_000) }, DRAIN_MS).catch(String);
  await clock.advance(10_000);
  expect(await late).toMatch(/store did not end/);
});
