import { expect, test } from "vitest";
import { organization, type OrganizationCommand } from "#domain/organization.ts";
import { streams } from "#domain/events/events.ts";
import type { AppendOutcome, EventStore } from "#services/ports.ts";
import { StoreUnavailable } from "#services/writers.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { diceOf, randomFrom } from "#test/simulation/random.ts";
import { handleCommand, load } from "./command-handler.ts";

const ORG = `org_${"0".repeat(26)}`;
const stream = streams.org(ORG);
const bodySha256 = "0".repeat(64);

const topUp = (at: number): OrganizationCommand => ({
  command: "top_up",
  orgId: ORG,
  topUpId: `lot_${String(at).padStart(26, "0")}`,
  amountMicro: 10_000,
  source: "manual",
  pot: "paid",
  bodySha256,
  unspentLots: 0,
});

/** An organization on a store whose appends take a while. */
async function handling(appendMs: number, judge?: () => AppendOutcome) {
  const clock = manualClock();
  const inner = createMemoryEventStore({ clock });
  let appends = 0;
  const store: EventStore = {
    ...inner,
    async append(...asked) {
      appends += 1;
      await new Promise<void>((resolve) => clock.timer(appendMs, resolve));
      return judge?.() ?? inner.append(...asked);
    },
  };
  const random = randomFrom(diceOf(7, "command"));
  const parts = { clock, random, author: { region: "us", actor: "control" } };
  const created = { command: "create", orgId: ORG, name: "Acme", homeRegion: "us" } as const;
  const command = { ...created, bodySha256 };
  await handleCommand({ ...parts, store: inner }, organization, stream, command, "created");
  return {
    clock,
    inner,
    appends: () => appends,
    add: (at: number) =>
      handleCommand({ ...parts, store }, organization, stream, topUp(at), `command-${at}`),
  };
}

test("however many change one thing at once, each gets its turn", async () => {
  const { clock, inner, add } = await handling(5);
  const all = Promise.allSettled(Array.from({ length: 40 }, (_, at) => add(at)));
  await clock.advance(5_000);
  const outcomes = await all;
  expect(outcomes.map((each) => each.status)).toEqual(outcomes.map(() => "fulfilled"));
  const { state } = await load({ store: inner }, organization, stream);
  expect(state.topUps.size).toBe(40);
});

test("whoever is never first gives up after some seconds, and has asked a bounded number of times", async () => {
  const { clock, appends, add } = await handling(1, () => ({ outcome: "conflict", actual: 0n }));
  const gaveUp = add(1).catch((error: unknown) => error);
  await clock.advance(6_000);
  expect(await gaveUp).toBeInstanceOf(StoreUnavailable);
  expect(appends()).toBeGreaterThan(20);
  expect(appends()).toBeLessThanOrEqual(100);
  const slow = await handling(3_000, () => ({ outcome: "conflict", actual: 0n }));
  const late = slow.add(1).catch((error: unknown) => error);
  await slow.clock.advance(7_000);
  expect(await late).toBeInstanceOf(StoreUnavailable);
  expect(slow.appends()).toBe(2);
});
