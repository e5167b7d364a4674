import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import streamMessages from "@eventstore/db-client/generated/streams_pb.js";
import { status, type ServerWritableStream } from "@grpc/grpc-js";
import type { ReadReq, ReadResp } from "@eventstore/db-client/generated/streams_pb.js";
import type { KurrentLog, LogRecord } from "./log.ts";
import {
  caughtUp,
  checkpoint,
  confirmation,
  eventAnswer,
  nameOf,
  notFoundAnswer,
} from "./messages.ts";
import type { Faults } from "./server.ts";

/** Reads and subscriptions of the stand-in. */

const { ReadDirection } = streamMessages.ReadReq.Options;
type ReadCall = ServerWritableStream<ReadReq, ReadResp>;

/** A read of a place where no record begins. The real server has no error of its own for it either. */
const NO_SUCH_PLACE = {
  code: status.UNKNOWN,
  details: "Unexpected ReadAllResult: InvalidPosition",
};

/** The index of the first record at or after a position; undefined where it stands within a record. */
function indexAt(all: readonly LogRecord[], position: bigint): number | undefined {
  let [at, end] = [0, all.length];
  while (at < end) {
    const middle = (at + end) >> 1;
    if ((all[middle]?.position ?? position) < position) at = middle + 1;
    else end = middle;
  }
  return at === all.length || all[at]?.position === position ? at : undefined;
}

/** From an index on, or none: a long log is not copied for a short answer. */
function* up(records: readonly LogRecord[], first = records.length) {
  for (let at = first, end = records.length; at < end; at++) yield records[at] as LogRecord;
}

/** From an index down to the first. */
function* down(records: readonly LogRecord[], last: number) {
  for (let at = Math.min(last, records.length - 1); at >= 0; at--) yield records[at] as LogRecord;
}

/** Sends one answer, waits for room, and says whether the caller is still there. */
async function send(call: ReadCall, answer: ReadResp): Promise<boolean> {
  if (call.cancelled) return false;
  if (!call.write(answer)) {
    const over = new AbortController();
    const { signal } = over;
    const room = Promise.race([
      once(call, "drain", { signal }),
      once(call, "cancelled", { signal }),
    ]);
    // It rejects with the error that ends the call.
    await room.catch(() => undefined);
    over.abort();
  }
  return !call.cancelled;
}

export function createReading(log: KurrentLog, faults: Faults) {
  const subscriptions = new Set<ReadCall>();
  let sent = 0;

  async function sendEvent(call: ReadCall, record: LogRecord): Promise<boolean> {
    if (faults.readPauseMs > 0) await delay(faults.readPauseMs);
    sent += 1;
    return send(call, eventAnswer(record));
  }

  /** Ends a read, in a packet of its own where there is a pause before it. */
  async function end(call: ReadCall): Promise<void> {
    if (faults.endPauseMs > 0) await delay(faults.endPauseMs);
    call.end();
  }

  async function sendEach(call: ReadCall, range: Iterable<LogRecord>, max: number): Promise<void> {
    let left = max;
    for (const record of range) if (left-- <= 0 || !(await sendEvent(call, record))) break;
    if (!call.cancelled) await end(call);
  }

  async function readStream(call: ReadCall, options: ReadReq.Options): Promise<void> {
    const from = options.getStream();
    const records = log.stream(nameOf(from?.getStreamIdentifier()));
    if (!from || !records) {
      if (from) await send(call, notFoundAnswer(from));
      return end(call);
    }
    const max = Number(options.getCount());
    const isBackward = options.getReadDirection() === ReadDirection.BACKWARDS;
    const first = from.hasEnd() ? records.length - 1 : Number(from.getRevision());
    const range = isBackward
      ? down(records, first)
      : up(records, from.hasEnd() ? undefined : first);
    await sendEach(call, range, max);
  }

  async function readAll(call: ReadCall, options: ReadReq.Options): Promise<void> {
    const from = options.getAll();
    const position = from?.getPosition()?.getCommitPosition();
    const at = position === undefined ? undefined : indexAt(log.all, BigInt(position));
    if (position !== undefined && at === undefined) return void call.emit("error", NO_SUCH_PLACE);
    const first = at ?? (from?.hasEnd() ? log.all.length : 0);
    const isBackward = options.getReadDirection() === ReadDirection.BACKWARDS;
    // Backward a position is where a record ends, so the one that begins there is not read.
    const range = isBackward ? down(log.all, first - 1) : up(log.all, first);
    await sendEach(call, range, Number(options.getCount()));
  }

  async function subscribe(call: ReadCall, options: ReadReq.Options): Promise<void> {
    const filter = options.getFilter();
    const prefixes = filter?.getStreamIdentifier()?.getPrefixList() ?? [""];
    const window = filter?.getMax() ?? 32;
    const position = options.getAll()?.getPosition()?.getCommitPosition();
    await send(call, confirmation());
    let at = position === undefined ? 0 : indexAt(log.all, BigInt(position));
    if (at === undefined) return void call.emit("error", NO_SUCH_PLACE);
    if (String(log.all[at]?.position) === position) at += 1;
    let wake: () => void = () => undefined;
    const stopListening = log.onWrite(() => wake());
    const leave = () => {
      subscriptions.delete(call);
      wake();
    };
    subscriptions.add(call);
    call.once("cancelled", leave);
    call.once("error", leave);
    let isLive = false;
    for (let passedOver = 0; subscriptions.has(call);) {
      const record = log.all[at];
      if (record) {
        at += 1;
        const isWanted = prefixes.some((prefix) => record.stream.startsWith(prefix));
        if (isWanted) await sendEvent(call, record);
        else if (++passedOver % window === 0) await send(call, checkpoint(record.position));
      } else {
        if (!isLive) await send(call, caughtUp());
        isLive = true;
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (log.all[at ?? 0] || !subscriptions.has(call)) resolve();
        });
      }
    }
    stopListening();
  }

  return {
    async read(call: ReadCall): Promise<void> {
      const options = call.request.getOptions();
      if (!options) return void call.emit("error", { code: status.INVALID_ARGUMENT });
      if (options.hasSubscription()) return subscribe(call, options);
      return options.hasAll() ? readAll(call, options) : readStream(call, options);
    },
    /** How many events were given to calls so far: what a slow reader has not taken yet was mostly not sent. */
    sentEvents: () => sent,
    openSubscriptions: () => subscriptions.size,
    /** Ends every subscription with an error, as a server does that is shutting down. */
    dropSubscriptions(): void {
      for (const call of subscriptions) {
        subscriptions.delete(call);
        call.emit("error", { code: status.UNAVAILABLE, details: "Server Is Not Ready" });
      }
    },
  };
}
