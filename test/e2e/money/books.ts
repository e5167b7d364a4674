import { join } from "node:path";
import { vi } from "vitest";
import type { RecordedEvent } from "#domain/events/events.ts";
import type { EventData, EventType } from "#domain/events/schemas.ts";
import { systemClock } from "#infra/clock.ts";
import { openSqliteEventReader } from "#infra/event-store/sqlite-reader.ts";
import type { BookCall } from "#services/simulator/book.ts";
import { readBook } from "#test/doubles/simulator-book.ts";
import type { Running } from "#test/e2e/relai.ts";

/** What relai and its upstream wrote down: the events in the store's file, and the simulator's own book beside it. */

type Written = Pick<Running, "dataDir" | "books">;

/** Every event that was recorded, also while relai runs. */
export async function eventsIn(relai: Written): Promise<RecordedEvent[]> {
  if (relai.books) return relai.books.events();
  const path = join(relai.dataDir, "us", "events.sqlite");
  const reader = openSqliteEventReader({ path, clock: systemClock(), pollMs: 10 });
  const events: RecordedEvent[] = [];
  try {
    const head = await reader.head();
    const { signal } = new AbortController();
    if (head === "start") return events;
    for await (const batch of reader.follow({ after: "start", signal })) {
      events.push(...batch);
      if ((batch.at(-1)?.position ?? 0n) >= head) break;
    }
    return events;
  } finally {
    await reader.close();
  }
}

const TERMINAL = new Set(["UsageRecorded.v1", "RequestReleased.v1", "RequestExpired.v1"]);

/** The events of one request in their order, once it has ended. */
export function eventsOf(relai: Written, requestId: string): Promise<RecordedEvent[]> {
  return vi.waitFor(
    async () => {
      const events = (await eventsIn(relai)).filter(
        ({ data }) => "requestId" in data && data.requestId === requestId,
      );
      if (!events.some(({ type }) => TERMINAL.has(type)))
        throw new Error(`request ${requestId} has not ended: ${typesIn(events)}`);
      return events;
    },
    { timeout: 30_000, interval: 20 },
  );
}

/** The data of the only event of a type among these. */
export function only<T extends EventType>(events: readonly RecordedEvent[], type: T): EventData<T> {
  const [first, second] = events.filter((event) => event.type === type);
  if (first === undefined || second !== undefined)
    throw new Error(`there is not one event ${type} among ${typesIn(events)}`);
  // The type's schema was checked when the event was written.
  return first.data as EventData<T>;
}

const typesIn = (events: readonly RecordedEvent[]): string =>
  events.map(({ type }) => type).join(", ");

/** What the simulator's book says of a request, once the call has ended. */
export function bookOf(relai: Written, requestId: string): Promise<BookCall> {
  return vi.waitFor(
    () => {
      const call = bookIn(relai).find((one) => one.requestId === requestId);
      if (call?.endedAtMs === undefined) throw new Error(`call ${requestId} has not ended`);
      return call;
    },
    { timeout: 30_000, interval: 20 },
  );
}

export const bookIn = ({ dataDir, books }: Written): BookCall[] =>
  books?.calls() ?? readBook(join(dataDir, "simulator-book.jsonl"));
