import { expect, test } from "vitest";
import { busyTicks, othersBetween } from "#test/bench/measure.ts";

/** Ten seconds in which the machine and the bench used so much, in seconds of one core. */
const between = (machine: number, ours: number) =>
  othersBetween(
    { atMs: 1_000, machineUs: 50e6, oursUs: 7e6 },
    { atMs: 11_000, machineUs: 50e6 + machine * 1e6, oursUs: 7e6 + ours * 1e6 },
  );

test("the benchmark is not believed when other programs had more than a twentieth of a core", () => {
  expect(between(18, 17.6)).toEqual({ share: 0.04 });
  expect(between(18, 17.4)).toMatchObject({
    problem: "other programs used 6 % of one core meanwhile",
  });
});

test("nor when its two counts contradict each other; within their grain that is nothing, and never less", () => {
  expect(between(18, 18.1)).toEqual({ share: 0 });
  expect(between(17.3, 18).problem).toMatch(/more CPU than the whole machine/);
});

test("what the kernel does for packets and what a hypervisor takes are not idle", () => {
  const stat = "cpu  100 20 3000 40000 50000 600 7000 80 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
  expect(busyTicks(stat)).toBe(100 + 20 + 3000 + 600 + 7000 + 80);
});
