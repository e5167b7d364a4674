import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { EventData } from "./events/schemas.ts";
import { limitsOf, storedLimits } from "./key-limits.ts";

const samples = new URL("../test/golden/events/KeyIssued.v1.json", import.meta.url);

test("limits come out of every KeyIssued that was ever written, and go in again as they stood", () => {
  const events = (JSON.parse(readFileSync(samples, "utf8")) as { data: string }[]).map(
    ({ data }) => JSON.parse(data) as EventData<"KeyIssued.v1">,
  );
  expect(events.map(limitsOf)).toEqual([
    { rpm: 600, budgetMicro: 5_000_000, expiresAtMs: 1_821_536_000_000 },
    {},
  ]);
  for (const event of events) {
    const again = JSON.stringify(storedLimits(limitsOf(event))).slice(1, -1);
    expect(JSON.stringify(event)).toContain(again);
  }
});
