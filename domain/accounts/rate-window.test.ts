import * as fc from "fast-check";
import { expect, test } from "vitest";
import { advance, count, emptyWindow, freeInMs } from "./rate-window.ts";

/** The longest that a slot may come back after a full minute. Milliseconds. */
const LATE_MS_MAX = 1_000;
const START_MS = 1_790_000_000_123;

/** Asks at each time and counts what the limit lets through. */
function passedAt(times: readonly number[], limit: number): number[] {
  const window = emptyWindow();
  return times.filter((nowMs) => {
    advance(window, nowMs);
    if (window.total >= limit) return false;
    count(window);
    return true;
  });
}

const stepMs = fc.oneof(
  fc.integer({ min: 0, max: 40 }),
  fc.integer({ min: 0, max: 3_000 }),
  fc.integer({ min: 55_000, max: 65_000 }),
);

test("there are never more than the limit in any 60,000 ms, and a slot comes back at most a second late", () => {
  fc.assert(
    fc.property(
      fc.array(stepMs, { maxLength: 300 }),
      fc.integer({ min: 1, max: 12 }),
      (steps, limit) => {
        let nowMs = START_MS;
        const times = steps.map((step) => (nowMs += step));
        const passed = passedAt(times, limit);
        passed.forEach((at, index) => {
          const before = passed[index - limit];
          if (before !== undefined) expect(at - before).toBeGreaterThanOrEqual(60_000);
        });
        // Whatever was refused had a full minute's worth within the last 61 seconds.
        for (const at of times) {
          if (passed.includes(at)) continue;
          const recent = passed.filter((one) => one <= at && one > at - 60_000 - LATE_MS_MAX);
          expect(recent.length).toBeGreaterThanOrEqual(limit);
        }
      },
    ),
    { numRuns: 400 },
  );
});

test("a slot that is taken late in its second is gone for all of a minute, though 60 later seconds have begun", () => {
  const begin = Math.ceil(START_MS / 1_000) * 1_000;
  expect(passedAt([begin + 999, begin + 60_000, begin + 60_998], 1)).toEqual([begin + 999]);
  expect(passedAt([begin + 999, begin + 61_000], 1)).toHaveLength(2);
});

test("freeInMs is the first millisecond at which one more passes", () => {
  fc.assert(
    fc.property(
      fc.array(stepMs, { minLength: 1, maxLength: 60 }),
      fc.integer({ min: 1, max: 6 }),
      (steps, limit) => {
        const window = emptyWindow();
        let nowMs = START_MS;
        for (const step of steps) {
          nowMs += step;
          advance(window, nowMs);
          if (window.total < limit) count(window);
        }
        const waitMs = freeInMs(window, limit, nowMs);
        if (window.total < limit) {
          expect(waitMs).toBe(0);
          return;
        }
        expect(waitMs).toBeGreaterThan(0);
        advance(window, nowMs + waitMs - 1);
        expect(window.total).toBe(limit);
        advance(window, nowMs + waitMs);
        expect(window.total).toBeLessThan(limit);
      },
    ),
    { numRuns: 400 },
  );
});

test("a clock that goes back frees nothing, and total and buckets stay one sum", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: -200_000, max: 200_000 }), { maxLength: 200 }),
      (steps) => {
        const window = emptyWindow();
        let nowMs = START_MS;
        let newest = 0;
        for (const step of steps) {
          nowMs += step;
          const before = window.total;
          advance(window, nowMs);
          if (Math.floor(nowMs / 1000) <= newest) expect(window.total).toBe(before);
          newest = Math.max(newest, Math.floor(nowMs / 1000));
          count(window);
          expect(window.counts.reduce((sum, bucket) => sum + bucket, 0)).toBe(window.total);
          expect(window.second).toBe(newest);
        }
      },
    ),
  );
});
