import { expect, test } from "vitest";
import { sleep } from "#services/waiting.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { endOr, leftBy, NOT_SEALED, STOP_MS, stopAll, type Stops } from "./stopping.ts";

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
    "servers",
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
    // What is left of its time may have a fraction of a millisecond, which says nothing to anybody.
    const stopping = stopAll(clock, stops, DRAIN_MS + 0.25).catch((error: unknown) =>
      String(error),
    );
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

test("what is left undone is told once each, the folder stays locked, and the stop is clean all the same", async () => {
  const ended: string[] = [];
  const stops: Stops = {
    gateways: () => NOT_SEALED,
    ledger: () => Promise.resolve(NOT_SEALED),
    projector: () => "read models",
    store: () => ended.push("store"),
    folder: () => ended.push("folder"),
  };
  expect(await stopAll(manualClock(), stops, DRAIN_MS)).toEqual([NOT_SEALED, "read models"]);
  expect(ended).toEqual(["store"]);
});

test("an end that hangs on others leaves time to those behind it, and is told only where it did not come", async () => {
  const clock = manualClock();
  const limits: number[] = [];
  const stopping = stopAll(
    clock,
    {
      ledger: (limitMs) => endOr(clock, limitMs, new Promise(() => {}), () => NOT_SEALED),
      projector: (limitMs) => endOr(clock, limitMs, Promise.resolve(), () => "read models"),
      store: (limitMs) => limits.push(limitMs),
    },
    DRAIN_MS,
  );
  await clock.advance(3_000);
  expect(await stopping).toEqual([NOT_SEALED]);
  expect(limits[0]).toBeGreaterThan(3_000);
});

test("gateways leave journals unsealed, but an answer that nobody is charged for is a loss", () => {
  const [sealed, unsealed] = [
    { isSealed: true, unrecorded: 0 },
    { isSealed: false, unrecorded: 0 },
  ];
  expect(leftBy([sealed, sealed])).toBeUndefined();
  expect(leftBy([sealed, unsealed])).toBe(NOT_SEALED);
  const losing = { isSealed: false, unrecorded: 2 };
  expect(() => leftBy([losing, losing])).toThrow("answered requests that no journal has taken: 4;");
});
