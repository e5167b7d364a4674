import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock } from "#services/ports.ts";
import { createFollowers } from "./followers.ts";
import { openSqliteReadOnly } from "./sqlite-file.ts";
import { openReads } from "./sqlite-reads.ts";

/**
 * Reads an event store's file beside the process or thread that writes it. Following looks for new events every
 * `pollMs`. Everything runs on the calling thread, with a turn for others after each slice.
 * @throws when there is no such file, or it is no event store of this version.
 */
export function openSqliteEventReader(options: { path: string; clock: Clock; pollMs: number }) {
  const { path, clock, pollMs } = options;
  const db = openSqliteReadOnly(path);
  const { reads, after } = openReads(db, nextTurn);
  const { follow, lookAgain, end } = createFollowers({ after, pause: nextTurn });
  let cancel = clock.timer(pollMs, look);

  function look(): void {
    lookAgain();
    cancel = clock.timer(pollMs, look);
  }

  return {
    ...reads,
    follow,
    /** Has those who follow look for new events now, and not only when it is time again. */
    lookNow: lookAgain,
    async close(): Promise<void> {
      cancel();
      end();
      if (db.isOpen) db.close();
    },
  };
}
