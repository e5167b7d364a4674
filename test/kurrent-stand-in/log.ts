import { openKept } from "./kept.ts";

/** The stand-in server's events and its judgement of appends, as a real server's index writer judges them. */

export interface LogRecord {
  readonly id: string;
  readonly stream: string;
  readonly revision: bigint;
  /** The byte offset of the record: growing, with gaps. */
  readonly position: bigint;
  readonly createdMs: number;
  readonly type: string;
  readonly contentType: string;
  readonly data: Uint8Array;
  readonly metadata: Uint8Array;
}

export type Proposed = Pick<LogRecord, "id" | "type" | "contentType" | "data" | "metadata">;
export type Expected = bigint | "no_stream" | "any" | "stream_exists";
export type Judgement =
  | { readonly wrong: false; readonly revision: bigint; readonly position: bigint }
  | { readonly wrong: true; readonly actual: bigint | "no_stream" };

/** Far above 2^53, so that a position which passes through a JavaScript number does not come back. */
const FIRST_POSITION = 2n ** 60n + 1n;
/** Frame, ids and flags of a record. */
const RECORD_BYTES = 117;

export type KurrentLog = ReturnType<typeof createKurrentLog>;

/** `path` names a file in which the events are found again; without it they are in memory only. */
export function createKurrentLog(now: () => number, path?: string) {
  const all: LogRecord[] = [];
  const streams = new Map<string, LogRecord[]>();
  const listeners = new Set<() => void>();
  /** What makes a repeat at any revision known: in memory only, as at the real one. */
  const remembered = new Map<string, LogRecord>();
  let end = FIRST_POSITION;

  const kept = path === undefined ? undefined : openKept(path);
  for (const { stream, events, createdMs } of kept?.appends ?? []) place(stream, events, createdMs);
  // As after any restart.
  remembered.clear();

  function write(stream: string, events: readonly Proposed[]): Judgement {
    const createdMs = now();
    kept?.add({ stream, createdMs, events });
    const last = place(stream, events, createdMs);
    for (const listener of listeners) listener();
    return answer(last);
  }

  function place(
    stream: string,
    events: readonly Proposed[],
    createdMs: number,
  ): LogRecord | undefined {
    const records = streams.get(stream) ?? [];
    streams.set(stream, records);
    for (const event of events) {
      const revision = BigInt(records.length);
      const record = { ...event, stream, revision, position: end, createdMs };
      end += BigInt(RECORD_BYTES + event.data.length + event.metadata.length);
      records.push(record);
      all.push(record);
      remembered.set(`${stream} ${event.id}`, record);
    }
    return records.at(-1);
  }

  const answer = (last: LogRecord | undefined): Judgement => {
    if (!last) throw new Error("an append of nothing");
    return { wrong: false, revision: last.revision, position: last.position };
  };

  return {
    all: all as readonly LogRecord[],
    stream: (name: string): readonly LogRecord[] | undefined => streams.get(name),
    /** Ids at an expected revision tell a repeat; what the events hold is not compared. */
    append(stream: string, events: readonly Proposed[], expected: Expected): Judgement {
      const records = streams.get(stream) ?? [];
      const actual = records.at(-1)?.revision ?? "no_stream";
      if (expected === "any" || expected === "stream_exists") {
        const known = events.map(({ id }) => remembered.get(`${stream} ${id}`));
        if (known.every((record) => record !== undefined)) return answer(known.at(-1));
        return known[0] || (expected === "stream_exists" && actual === "no_stream")
          ? { wrong: true, actual }
          : write(stream, events);
      }
      if (expected === actual) return write(stream, events);
      const first = expected === "no_stream" ? 0 : Number(expected) + 1;
      const there = records.slice(first, first + events.length);
      const isRepeat = events.every(({ id }, at) => id === there[at]?.id);
      return isRepeat ? answer(there.at(-1)) : { wrong: true, actual };
    },
    /** Calls back after every write. The returned function ends that. */
    onWrite(listener: () => void): () => void {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    /** What a restart forgets. */
    forget(): void {
      remembered.clear();
    },
    close: () => kept?.close(),
  };
}
