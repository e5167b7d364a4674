import { writeSync } from "node:fs";
import { openSqliteEventStore } from "#infra/event-store/sqlite.ts";
import { admissions } from "./event-samples.ts";

/**
 * Appends to the store at argv[2] until it is killed, on four streams at once, and prints a line for each append that
 * was acknowledged: stream, revision, position. The number in argv[3] makes the streams of this run its own.
 * With argv[4] it stops by itself at the first outcome that is no success, which it prints instead.
 */
const [, , path = "", run = "0", until] = process.argv;
const clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  timer(delayMs: number, callback: () => void) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
const store = await openSqliteEventStore({ path, clock });
let stopped = false;

await Promise.all(
  [1, 2, 3, 4].map(async (writer) => {
    const stream = `journal-us-${Number(run) * 10 + writer}`;
    for (let count = 0; !stopped; count += 3) {
      const expected = count === 0 ? "no_stream" : BigInt(count - 1);
      const outcome = await store.append(stream, admissions(stream, count, 3), expected);
      if (outcome.outcome === "appended") {
        writeSync(1, `appended ${stream} ${outcome.revision} ${outcome.position}\n`);
      } else {
        writeSync(1, `${outcome.outcome} ${stream} ${"reason" in outcome ? outcome.reason : ""}\n`);
        if (until !== undefined) stopped = true;
      }
    }
  }),
);
await store.close();
