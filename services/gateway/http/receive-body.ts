import type { IncomingMessage } from "node:http";
import type { Clock } from "#services/ports.ts";
import type { InFlight } from "./in-flight.ts";
import type { Unread } from "#services/gateway/parts.ts";
import { createPieces } from "./collect.ts";

/** The slowest that a body may arrive, and for how long altogether its sender may be behind that. */
const BYTES_PER_SECOND_MIN = 16 * 1024;
const BEHIND_MS_MAX = 10_000;

/**
 * Reads the body of a request as it arrives. Each piece takes room; on failure all of it is given back, and what still
 * comes is dropped. `gone` when the sender has left, also when that was before anybody began to read.
 *
 * `too_slow` is a body that arrives slower than 16 KiB/s over 10 s, that is: its sender has 10 s in hand when reading
 * begins; time uses them up, each 16 KiB that arrive earn a second, and there are never more than 10. At none left it
 * is over. So silence ends it after 10 s and half the rate after 20 s; a pause of less than 10 s does not end one that
 * has kept the rate, and a small body may be sent in one go at any time before.
 */
export function receiveBody(
  clock: Clock,
  raw: IncomingMessage,
  bytesMax: number,
  room: InFlight,
): Promise<Buffer | Unread> {
  if (raw.destroyed) return Promise.resolve("gone");
  return new Promise((resolve) => {
    const pieces = createPieces(Number(raw.headers["content-length"] ?? 0));
    const pace = watchPace(clock, () => fail("too_slow"));
    let size = 0;
    let over = false;
    function fail(why: Unread): void {
      over = true;
      pace.cancel();
      room.give(size);
      pieces.clear();
      resolve(why);
    }
    raw.on("data", (piece: Buffer) => {
      if (over) return;
      if (size + piece.length > bytesMax) return fail("too_large");
      if (!room.take(piece.length, size + piece.length)) return fail("no_room");
      size += piece.length;
      pieces.add(piece);
      pace.arrived(piece.length);
    });
    raw.on("end", () => {
      if (over) return;
      over = true;
      pace.cancel();
      resolve(pieces.take());
    });
    raw.on("close", () => {
      if (!over) fail("gone");
    });
  });
}

/** Calls `tooSlow` once when what arrives has been behind the rate for too long. */
function watchPace(clock: Clock, tooSlow: () => void) {
  /** When the time in hand is used up. Elapsed milliseconds. */
  let dueMs = clock.elapsed() + BEHIND_MS_MAX;
  // What has arrived already is handled first: most bodies are whole then, and no timer is armed for them.
  let cancel = clock.timer(0, () => (cancel = arm()));
  /** The timer is armed anew when it fires too early, not with every piece. */
  function arm(): () => void {
    return clock.timer(Math.max(1, dueMs - clock.elapsed()), () => {
      if (dueMs > clock.elapsed()) cancel = arm();
      else tooSlow();
    });
  }
  return {
    arrived(bytes: number): void {
      const nowMs = clock.elapsed();
      const earnedMs = (bytes / BYTES_PER_SECOND_MIN) * 1000;
      // A process that has been stopped finds the time over, but it was itself that did not look.
      dueMs = Math.min(nowMs + BEHIND_MS_MAX, Math.max(dueMs, nowMs) + earnedMs);
    },
    cancel: () => cancel(),
  };
}
