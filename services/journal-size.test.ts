import { expect, test } from "vitest";
import { SHARES_MAX } from "#domain/accounts/holds.ts";
import { newEvent } from "#domain/events/events.ts";
import { MICRO_MAX } from "#domain/money.ts";
import { TOKEN_CLASSES } from "#domain/prices.ts";
import { admitted, largeEvent, usage } from "#test/conformance/event-store/event-samples.ts";
import { ending, scripted, STREAM, watcher } from "#test/worlds/journal-world.ts";
import { settled } from "#test/doubles/manual-clock.ts";
import { APPEND_BYTES_MAX } from "./ports.ts";
import { bytesOf } from "./writers.ts";

/** Entries that are refused for their size, and why none of a request's ends is. */

test("an entry that is too large by itself ends at once with an alarm, and those beside and behind it are recorded", async () => {
  const world = scripted();
  const journal = await world.open();
  const { told, give } = watcher(journal);
  const large = (number: number) => largeEvent(STREAM, number, APPEND_BYTES_MAX + 1);
  void give("1", ending(1));
  void give("large end", { events: [large(2)] });
  void give("large taking", { events: [large(3)], takingUnder: 1 });
  void give("4", ending(4));
  await settled();
  expect(told.toSorted()).toEqual([
    "1 recorded",
    "4 recorded",
    "large end too_large",
    "large taking too_large",
  ]);
  expect(await world.ids()).toEqual([1, 4].map((number) => usage(STREAM, number).id));
  const facts = (number: number) => ({
    stream: STREAM,
    requestId: admitted(STREAM, number).data.requestId,
    bytes: bytesOf(large(number)),
  });
  expect(world.alarms).toEqual([
    ["entry_too_large", facts(2)],
    ["entry_too_large", facts(3)],
  ]);
  // It is not asked for again, and nothing waits.
  const asked = world.appends.length;
  await world.clock.advance(60_000);
  expect(world.appends.length).toBe(asked);
  expect(journal.reserve()).toBe(true);
  expect(await journal.record(ending(5))).toMatchObject({ outcome: "recorded" });
});

test("entries that are only together more than the store takes go one by one, in their order", async () => {
  const world = scripted();
  const journal = await world.open();
  const { told, give } = watcher(journal);
  world.scripts.push({ outcome: "refused", reason: "too_large" });
  for (const number of [1, 2, 3]) void give(String(number), ending(number));
  await settled();
  expect(told).toEqual(["1 recorded", "2 recorded", "3 recorded"]);
  expect(world.appends.map((append) => append.ids.length)).toEqual([3, 1, 1, 1]);
  expect(world.alarms).toEqual([]);
  await Promise.all([give("4", ending(4)), give("5", ending(5))]);
  expect(world.appends.at(-1)?.ids).toHaveLength(2);
});

test("the largest end of a request that there can be is far from too large", () => {
  const pico = Object.fromEntries(TOKEN_CLASSES.map((name) => [name, MICRO_MAX]));
  const long = "x".repeat(256);
  const { data, metadata } = usage(STREAM, 1);
  const [budget, balance] = data.accounts;
  const lots = Array.from({ length: SHARES_MAX }, (_, at) => ({
    lotId: `lot_${String(at).padStart(26, "0")}`,
    pot: "paid" as const,
    micro: MICRO_MAX,
  }));
  if (!budget || !balance) throw new Error("the sample has a budget and a balance");
  const accounts = [budget, { ...balance, account: long, micro: MICRO_MAX, lots }];
  const attempt = { host: long, hostKey: long, outcome: "rate_limited", status: 429 } as const;
  const raised = { ...data, accounts, holdTotalMicro: MICRO_MAX, holdCostTotalMicro: MICRO_MAX };
  const used = {
    ...data,
    accounts,
    model: long,
    bindingId: long,
    priceVersion: long,
    finish: long,
    tokens: pico,
    salePico: pico,
    costPico: pico,
    holdMicro: MICRO_MAX,
    chargedMicro: MICRO_MAX,
    overHoldMicro: MICRO_MAX,
    providerCostMicro: MICRO_MAX,
    attempts: Array.from({ length: 10 }, () => attempt),
  };
  const bytes =
    bytesOf(newEvent(STREAM, "raised", "HoldExtended.v1", raised, metadata)) +
    bytesOf(newEvent(STREAM, "used", "UsageRecorded.v1", used, metadata));
  expect(bytes).toBeLessThan(APPEND_BYTES_MAX / 2);
});
