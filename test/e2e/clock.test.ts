import { afterEach, expect, test, vi } from "vitest";
import { eventsIn } from "./money/books.ts";
import {
  leavesNothingRunning,
  newFolder,
  newOrganization,
  openHere,
  post,
  type Running,
} from "./relai.ts";

leavesNothingRunning();

const HOUR_MS = 3_600_000;
const realNow = Date.now.bind(Date);
afterEach(() => vi.restoreAllMocks());

/** Sets the machine's clock, as somebody might; durations go on. */
const setClock = (aheadMs: number) =>
  vi.spyOn(Date, "now").mockImplementation(() => realNow() + aheadMs);

/** The alarms that there were, with how often. */
async function alarmsOf(relai: Running): Promise<Record<string, number>> {
  const text = await (await fetch(`${relai.internal}/metrics`)).text();
  const alarms = text.matchAll(/^relai_alarms_total\{what="(\w+)"\} ([1-9]\d*)$/gm);
  return Object.fromEntries(
    [...alarms].map(([, what = "", count]): [string, number] => [what, Number(count)]),
  );
}

test("a clock that jumped ahead and back is an alarm at once, limits nobody, and dates nothing back", async () => {
  const dataDir = newFolder();
  const first = await openHere({ dataDir });
  const org = await newOrganization(first, { creditMicro: 1_000_000, key: { rpm: 1 } });
  expect(await alarmsOf(first)).toEqual({});
  setClock(HOUR_MS);
  expect((await post(org, "[sim output=1]", { max_tokens: 5 })).status).toBe(200);
  expect(await alarmsOf(first)).toEqual({ clock_jumped: 1 });
  setClock(0);
  expect((await post(org, "[sim output=1]", { max_tokens: 5 })).status).toBe(200);
  expect(await alarmsOf(first)).toEqual({ clock_jumped: 2 });
  await first.stop();
  const dates = (await eventsIn(first)).map(({ recordedAt }) => recordedAt);
  expect(dates).toEqual(dates.toSorted((one, other) => one - other));
  // The next start dates its events an hour ahead as well, and does not do so in silence.
  const second = await openHere({ dataDir });
  expect(await alarmsOf(second)).toEqual({ events_dated_ahead: 1 });
  await second.stop();
});
