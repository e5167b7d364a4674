import { expect, test } from "vitest";
import { createPlaces } from "./places.ts";

interface Call {
  readonly orgId: string;
  readonly name: string;
}

/** Places whose calls are named by their organization and a number: `a0`, `a1`. */
function setUp(runningMax: number, waitingMax: number) {
  const started: string[] = [];
  const known = new Map<string, Call>();
  const places = createPlaces<Call>({
    runningMax,
    waitingMax,
    start: ({ name }) => started.push(name),
  });
  const of = (name: string): Call => {
    const call = known.get(name) ?? { orgId: name.charAt(0), name };
    known.set(name, call);
    return call;
  };
  return {
    started,
    places,
    /** Those that found no place. */
    take: (...names: string[]) => names.filter((name) => !places.take(of(name))),
    release: (...names: string[]) => names.forEach((name) => places.release(of(name))),
    leave: (...names: string[]) => names.forEach((name) => places.leave(of(name))),
  };
}

const named = (orgId: string, count: number) =>
  Array.from({ length: count }, (_, at) => `${orgId}${at}`);

test("one organization has half the connections while nobody else asks, and a quarter beside others", () => {
  const { started, take, release } = setUp(8, 100);
  expect(take(...named("a", 8), ...named("b", 4), ...named("c", 3))).toEqual([]);
  expect(started).toEqual(["a0", "a1", "a2", "a3", "b0", "b1", "c0", "c1"]);
  // All are taken. What becomes free is for whoever has less than a quarter.
  take("d0");
  release("a0");
  expect(started.at(-1)).toBe("d0");
  release("b0");
  expect(started.at(-1)).toBe("b2");
  // Less than half are taken again: any may have more.
  release("b1", "b2", "b3", "c0", "c1", "c2");
  expect(started.slice(10)).toEqual(["b3", "c2"]);
  release("d0");
  expect(started.at(-1)).toBe("a4");
});

test("of the places to wait, too, one organization takes no more than its share", () => {
  const { take, leave } = setUp(1, 8);
  expect(take(...named("a", 6))).toEqual(["a5"]);
  expect(take(...named("b", 3))).toEqual(["b2"]);
  expect(take("c0", "c1", "d0")).toEqual(["d0"]);
  leave("c0", "c0", "a0");
  expect(take("a6", "d1")).toEqual(["a6"]);
});

test("organizations that wait take turns; one that was given up has none", () => {
  const { started, places, take, release, leave } = setUp(1, 8);
  take("a0", "a1", "a2", "a3", "a4", "b0", "b1", "c0");
  leave("a2");
  for (const name of ["a0", "a1", "b0", "c0", "a3"]) release(name);
  expect(started).toEqual(["a0", "a1", "b0", "c0", "a3", "b1"]);
  expect(places.clear().map(({ name }) => name)).toEqual(["a4"]);
  release("b1");
  expect(started).toHaveLength(6);
});

test("in random lives nobody passes a share, nobody waits who may run, and at the end nobody is known", () => {
  let seed = 1;
  const dice = (sides: number) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % sides;
  };
  for (const [runningMax, waitingMax] of [
    [1, 1],
    [2, 0],
    [3, 5],
    [8, 8],
    [40, 7],
  ] as const) {
    const running = new Set<Call>();
    const waiting = new Set<Call>();
    const places = createPlaces<Call>({
      runningMax,
      waitingMax,
      start(one) {
        const own = [...running].filter(({ orgId }) => orgId === one.orgId).length;
        expect(running.size < runningMax / 2 || own < Math.max(1, runningMax / 4)).toBe(true);
        waiting.delete(one);
        running.add(one);
      },
    });
    const anyOf = (calls: Set<Call>) => [...calls][dice(calls.size)];
    for (let step = 0; step < 2_000; step++) {
      const call = { orgId: "abcdef".charAt(dice(6)), name: String(step) };
      const act = dice(3);
      if (act === 0 && places.take(call) && !running.has(call)) waiting.add(call);
      const ended = act === 1 ? anyOf(running) : undefined;
      if (ended && running.delete(ended)) places.release(ended);
      const givenUp = act === 2 ? anyOf(waiting) : undefined;
      if (givenUp && waiting.delete(givenUp)) places.leave(givenUp);
      expect(running.size).toBeLessThanOrEqual(runningMax);
      expect(waiting.size).toBeLessThanOrEqual(waitingMax);
      // Whoever waits does so for a reason.
      for (const { orgId } of waiting) {
        const own = [...running].filter((one) => one.orgId === orgId).length;
        expect(running.size * 2 >= runningMax).toBe(true);
        expect(running.size === runningMax || own >= Math.max(1, Math.floor(runningMax / 4))).toBe(
          true,
        );
      }
    }
    for (const one of places.clear()) waiting.delete(one);
    expect(waiting.size).toBe(0);
    for (const one of running) if (running.delete(one)) places.release(one);
    expect(running.size).toBe(0);
    // All are free again, to one organization up to a half.
    for (const at of Array.from({ length: runningMax }).keys())
      places.take({ orgId: "z", name: `z${at}` });
    expect(running.size).toBe(Math.ceil(runningMax / 2));
  }
});
