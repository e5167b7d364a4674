import { Readable } from "node:stream";
import { finished } from "node:stream/promises";
import { describe, expect, it } from "vitest";
import { arrivalsIn } from "./arrivals.ts";

const never = new AbortController().signal;

/** A stream of the numbers below `count` that buffers `buffered` of them. */
function numbers(count: number, buffered = 4): Readable {
  const values = Array.from({ length: count }, (_, at) => ({ at }));
  return Readable.from(values, { highWaterMark: buffered });
}

async function all(batches: AsyncIterable<{ at: number }[]>): Promise<number[][]> {
  const found: number[][] = [];
  for await (const batch of batches) found.push(batch.map(({ at }) => at));
  return found;
}

describe("what arrives in a stream", () => {
  it("comes whole and in order, in batches of at most so many", async () => {
    const batches = await all(arrivalsIn(numbers(100, 50), 7, never));
    expect(batches.flat()).toEqual(Array.from({ length: 100 }, (_, at) => at));
    expect(Math.max(...batches.map(({ length }) => length))).toBeLessThanOrEqual(7);
    expect(batches.every(({ length }) => length > 0)).toBe(true);
  });

  it("is given out before the error that ended it", async () => {
    async function* broken() {
      yield { at: 0 };
      yield { at: 1 };
      await Promise.reject(new Error("cut"));
    }
    const found: number[] = [];
    const batches = arrivalsIn<{ at: number }>(Readable.from(broken()), 1, never);
    const reading = (async () => {
      for await (const batch of batches) found.push(...batch.map(({ at }) => at));
    })();
    await expect(reading).rejects.toThrow("cut");
    expect(found).toEqual([0, 1]);
  });

  it("ends with the reason of the signal, also while nothing comes", async () => {
    const stop = new AbortController();
    const silent = new Readable({ objectMode: true, read: () => undefined });
    const reading = all(arrivalsIn(silent, 5, stop.signal));
    setImmediate(() => stop.abort(new Error("no longer")));
    await expect(reading).rejects.toThrow("no longer");
  });

  it("runs off where it is not read to its end, and an error that comes later ends nothing", async () => {
    const stream = numbers(100);
    for await (const _ of arrivalsIn(stream, 1, never)) break;
    await finished(stream);
    stream.emit("error", new Error("late"));
  });
});
