import type { NewEvent, RecordedEvent } from "#domain/events/events.ts";
import {
  APPEND_BYTES_MAX,
  APPEND_EVENTS_MAX,
  type AppendOutcome,
  type ExpectedRevision,
} from "#services/ports.ts";

/**
 * An append on its way to the writer thread and its judgement on the way back: strings and plain numbers only, which
 * are cheap to hand to a thread. Positions and revisions stay far below 2^53; they are bigint only at the port.
 */

/** In the place of an expected revision: the stream must not exist. */
export const NO_STREAM = -1;
/** In the place of an expected revision: whatever it is. Only for fences. */
export const ANY_REVISION = -2;

/** One append as it travels to the writer: `rows` holds id, type, data and metadata of each event, one after the other. */
export interface AppendRequest {
  readonly stream: string;
  readonly expected: number;
  readonly rows: readonly string[];
}
export const ROW_FIELDS = 4;

/** How one append was judged. `fresh` is false for a repeat of what had been written before. */
export type Judged =
  | {
      readonly outcome: "appended";
      readonly revision: number;
      readonly position: number;
      readonly fresh: boolean;
    }
  | { readonly outcome: "conflict"; readonly actual: number }
  | { readonly outcome: "refused"; readonly reason: "disk_full" | "read_only" | "too_large" };

/** The outcome of one transaction: one judgement per request, and the time that its fresh events carry. */
export interface Written {
  readonly judged: readonly Judged[];
  readonly recordedAt: number;
}

/** The events as rows for a request. */
export function rowsOf(events: readonly NewEvent[]): string[] {
  const rows: string[] = [];
  for (const event of events) rows.push(event.id, event.type, event.dataJson, event.metadataJson);
  return rows;
}

/** The port's expected revision as the core's number. Throws for a revision below zero. */
export function expectedNumber(expected: ExpectedRevision): number {
  if (expected === "no_stream") return NO_STREAM;
  if (expected < 0n)
    throw new RangeError(
      `an expected revision of ${expected}: a stream that must not exist is "no_stream"`,
    );
  return Number(expected);
}

/** The bytes of an append's rows in UTF-8, or an upper bound of them where that is small enough to be of no matter. */
export function bytesOfRows(rows: readonly string[]): number {
  let units = 0;
  for (const row of rows) units += row.length;
  if (units * 3 <= APPEND_BYTES_MAX || units > APPEND_BYTES_MAX) return units;
  let bytes = 0;
  for (const row of rows) bytes += Buffer.byteLength(row);
  return bytes;
}

/** Whether an append is over the limits that every store keeps to. */
export function isTooLarge(rows: readonly string[]): boolean {
  return rows.length > APPEND_EVENTS_MAX * ROW_FIELDS || bytesOfRows(rows) > APPEND_BYTES_MAX;
}

/** The core's judgement as the port's outcome. */
export function toOutcome(judged: Judged): AppendOutcome {
  if (judged.outcome === "refused") return judged;
  if (judged.outcome === "conflict") {
    const { outcome, actual } = judged;
    return { outcome, actual: actual === NO_STREAM ? "no_stream" : BigInt(actual) };
  }
  const { outcome, revision, position } = judged;
  return { outcome, revision: BigInt(revision), position: BigInt(position) };
}

/** The events of an append as recorded, made of the very objects that were appended; none if it wrote nothing new. */
export function recordedFrom(
  stream: string,
  events: readonly NewEvent[],
  judged: Judged,
  recordedAt: number,
): RecordedEvent[] {
  if (judged.outcome !== "appended" || !judged.fresh) return [];
  const revision = BigInt(judged.revision - events.length + 1);
  const position = BigInt(judged.position - events.length + 1);
  return events.map((event, at) => {
    const { id, type, data, metadata } = event;
    const here = { revision: revision + BigInt(at), position: position + BigInt(at) };
    // The type and the data of a NewEvent belong together, which the compiler loses sight of here.
    return { id, type, data, metadata, stream, ...here, recordedAt } as RecordedEvent;
  });
}
