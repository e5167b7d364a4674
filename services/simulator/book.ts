import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { z } from "zod";
import { TOKEN_CLASSES } from "#domain/prices.ts";

/**
 * The simulated upstream's own book of what it served, to hold a gateway's ledger against. Each call is two lines of
 * JSON in a file that only grows: one when the call has arrived and before anything is answered, one when it is over.
 * A line is in the hands of the operating system before the call goes on, so a killed simulator loses none of them
 * (a machine that loses power may). Nothing of a prompt or an answer is in it.
 */

const count = z.int().nonnegative();
const beginning = z.object({
  /** Counts calls from 1, on through restarts with the same file. */
  call: z.int().positive(),
  atMs: count,
  /** The `x-client-request-id` that came with the call: the caller's name for it. */
  requestId: z.string().nullable(),
  /** Last four characters of the key that was used; empty without a key. */
  keyLast4: z.string(),
  model: z.string(),
  stream: z.boolean(),
  /** HTTP status of the answer; 0 for a call that is hung up on. */
  status: count,
  /** What the call costs, by class, zeros left out; empty when nothing is charged. */
  tokens: z.object(Object.fromEntries(TOKEN_CLASSES.map((name) => [name, count.optional()]))),
});
const ending = z.object({
  call: z.int().positive(),
  endedAtMs: count,
  /** Every byte that belongs to the answer was sent, and the caller was there to take it. */
  finished: z.boolean(),
  /** The caller closed the connection before that. */
  clientGone: z.boolean(),
  /** The answer's usage was sent. */
  usageSent: z.boolean(),
});
const bookLine = z.union([ending, beginning]);

export type CallBeginning = z.infer<typeof beginning>;
export type CallEnding = z.infer<typeof ending>;
/** A call as a reader sees it. One that has not ended has no `endedAtMs` and is not finished. */
export type BookCall = CallBeginning &
  Omit<CallEnding, "endedAtMs"> & { readonly endedAtMs?: number };

export type Book = ReturnType<typeof openBook>;

/**
 * Opens the book and goes on where its file ends; a line that a kill left half written is cut off. Without a path the
 * book is in memory only. At most `callsMax` calls, the newest, are kept in memory; the file keeps all.
 */
export function openBook(options: { path?: string | undefined; callsMax: number }) {
  const calls = new Map<number, BookCall>();
  let lastCall = 0;
  const keep = (call: BookCall): void => {
    calls.set(call.call, call);
    if (calls.size <= options.callsMax) return;
    const [oldest] = calls.keys();
    if (oldest !== undefined) calls.delete(oldest);
  };
  let file: number | undefined;
  if (options.path !== undefined) {
    file = openSync(options.path, "a+", 0o600);
    const completeBytes = readLines(file, (line) => {
      lastCall = Math.max(lastCall, line.call);
      const call = calls.get(line.call);
      if (!("endedAtMs" in line)) keep(begun(line));
      else if (call) keep({ ...call, ...line });
    });
    ftruncateSync(file, completeBytes);
  }
  const append = (line: object): void => {
    if (file === undefined) return;
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
    for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
  };
  return {
    /** Writes down a call that arrived and gives it its number. Throws when the file cannot be written. */
    begin(facts: Omit<CallBeginning, "call">): number {
      const line = { call: lastCall + 1, ...facts };
      append(line);
      lastCall += 1;
      keep(begun(line));
      return line.call;
    },
    /** Writes down how a call ended. Throws when the file cannot be written. */
    end(outcome: CallEnding): void {
      append(outcome);
      const call = calls.get(outcome.call);
      if (call) keep({ ...call, ...outcome });
    },
    /** The newest calls, in the order in which they arrived, with a number above `afterCall`. */
    calls: (afterCall = 0) => [...calls.values()].filter(({ call }) => call > afterCall),
    close(): void {
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
  };
}

function begun(line: CallBeginning): BookCall {
  return { ...line, finished: false, clientGone: false, usageSent: false };
}

const READ_BYTES = 1024 * 1024;

/** Reads a file line by line; says how many bytes the complete lines take. */
function readLines(file: number, take: (line: CallBeginning | CallEnding) => void): number {
  const buffer = Buffer.alloc(READ_BYTES);
  let position = 0;
  let completeBytes = 0;
  let rest: Buffer = Buffer.alloc(0);
  for (;;) {
    const bytes = readSync(file, buffer, 0, READ_BYTES, position);
    if (bytes === 0) return completeBytes;
    position += bytes;
    const all = Buffer.concat([rest, buffer.subarray(0, bytes)]);
    let from = 0;
    for (let to = all.indexOf(10); to >= 0; to = all.indexOf(10, from)) {
      take(bookLine.parse(JSON.parse(all.toString("utf8", from, to))));
      from = to + 1;
    }
    completeBytes += from;
    rest = all.subarray(from);
  }
}
