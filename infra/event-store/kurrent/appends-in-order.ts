import type { NewEvent } from "#domain/events/events.ts";
import type { AppendOutcome, Clock, RefusedAppend } from "#services/ports.ts";
import { bytesOfRows, isTooLarge, rowsOf } from "#infra/event-store/append-request.ts";
import { within } from "./waits.ts";

const LATE: AppendOutcome = {
  outcome: "unknown",
  reason: "the event store did not answer in time",
};

/**
 * Appends on their way to a server: those to one stream go one after the other, in the order of the calls. A server
 * that gets a repeat while the first call is not indexed yet drops it without an answer, and two calls on one
 * connection may arrive in either order. What waits or is under way is bounded, in number and in time.
 */
export function createAppendsInOrder(options: {
  clock: Clock;
  eventsMax: number;
  bytesMax: number;
  /** From the call to its outcome, the wait for others included. */
  answerMsMax: number;
}) {
  const { clock, eventsMax, bytesMax, answerMsMax } = options;
  const last = new Map<string, Promise<unknown>>();
  let heldEvents = 0;
  let heldBytes = 0;
  let closed = false;

  /** Has `write` called when it is this append's turn, with the milliseconds that are left. */
  function add(
    stream: string,
    events: readonly NewEvent[],
    write: (leftMs: number) => Promise<AppendOutcome>,
  ): Promise<AppendOutcome> {
    const refused = (reason: RefusedAppend) =>
      Promise.resolve({ outcome: "refused" as const, reason });
    const rows = rowsOf(events);
    if (closed) return refused("closed");
    if (isTooLarge(rows)) return refused("too_large");
    const bytes = bytesOfRows(rows);
    if (heldEvents + events.length > eventsMax || heldBytes + bytes > bytesMax)
      return refused("queue_full");
    heldEvents += events.length;
    heldBytes += bytes;
    const dueMs = clock.elapsed() + answerMsMax;
    const mine = turn(last.get(stream), dueMs, write).finally(() => {
      heldEvents -= events.length;
      heldBytes -= bytes;
      if (last.get(stream) === mine) last.delete(stream);
    });
    last.set(stream, mine);
    return mine;
  }

  async function turn(
    before: Promise<unknown> | undefined,
    dueMs: number,
    write: (leftMs: number) => Promise<AppendOutcome>,
  ): Promise<AppendOutcome> {
    await before;
    const leftMs = dueMs - clock.elapsed();
    if (leftMs < 1) return LATE;
    try {
      return await within(clock, leftMs, write(leftMs), () => LATE);
    } catch (error) {
      return { outcome: "unknown", reason: error instanceof Error ? error.message : String(error) };
    }
  }

  return {
    add,
    /** Takes no more, and resolves when everything that was taken has its outcome. */
    async close(): Promise<void> {
      closed = true;
      await Promise.all(last.values());
    },
  };
}
