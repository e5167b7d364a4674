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

test("a clock that is set back by up to a window frees nothing: never more than the limit in any real minute", () => {
  const part = fc.record({ stepMs, backMs: fc.integer({ min: 0, max: 20_000 }) });
  fc.assert(
    fc.property(
      fc.array(part, { maxLength: 200 }),
      fc.integer({ min: 1, max: 6 }),
      (parts, limit) => {
        const window = emptyWindow();
        let [realMs, backMs, newestMs] = [START_MS, 0, 0];
        const passed: number[] = [];
        for (const { stepMs: step, backMs: back } of parts) {
          realMs += step;
          // Set back now and then, but never further behind the newest time than a window reaches.
          if (newestMs - (realMs - backMs - back) <= 60_000) backMs += back;
          const nowMs = realMs - backMs;
          newestMs = Math.max(newestMs, nowMs);
          advance(window, nowMs);
          expect(window.counts.reduce((sum, bucket) => sum + bucket, 0)).toBe(window.total);
          if (window.total >= limit) continue;
          count(window);
          passed.push(realMs);
        }
        passed.forEach((at, index) => {
          const before = passed[index - limit];
          if (before !== undefined) expect(at - before).toBeGreaterThanOrEqual(60_000);
        });
      },
    ),
    { numRuns: 400 },
  );
});

test("a clock that jumped ahead and back leaves nobody limited until time catches up", () => {
  const window = emptyWindow();
  const askAt = (nowMs: number) => {
    advance(window, nowMs);
    const passes = window.total < 1;
    if (passes) count(window);
    return passes;
  };
  const begin = Math.ceil(START_MS / 1_000) * 1_000;
  const YEAR_MS = 365 * 86_400_000;
  expect(askAt(begin + YEAR_MS)).toBe(true);
  expect(askAt(begin + YEAR_MS + 1)).toBe(false);
  expect(askAt(begin)).toBe(true);
  expect([askAt(begin + 60_999), askAt(begin + 61_000)]).toEqual([false, true]);
  // By a window, and no further, it stays: the next second back begins a new one.
  expect([askAt(begin), askAt(begin - 1)]).toEqual([false, true]);
});

test("whatever the clock did, a key waits for two windows at the most, and total and buckets stay one sum", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: -10_000_000, max: 10_000_000 }), { maxLength: 100 }),
      fc.array(fc.integer({ min: -62_000, max: 62_000 }), { maxLength: 100 }),
      (far, near) => {
        const window = emptyWindow();
        let nowMs = START_MS;
        for (const step of [...far, ...near]) {
          nowMs += step;
          advance(window, nowMs);
          count(window);
          expect(window.counts.reduce((sum, bucket) => sum + bucket, 0)).toBe(window.total);
          expect(freeInMs(window, 1, nowMs)).toBeLessThanOrEqual(2 * 61_000);
        }
      },
    ),
  );
});
