import type { Transform } from "node:stream";
import {
  AccessDeniedError,
  EventStoreDBClient,
  MaxAppendSizeExceededError,
  streamNameFilter,
  UnknownError,
  WrongExpectedVersionError,
  type AllStreamResolvedEvent,
  type Position,
  type ResolvedEvent,
  type StreamingRead,
} from "@eventstore/db-client";
import { convertToCommandError } from "@eventstore/db-client/dist/utils/CommandError.js";
import sharedMessages from "@eventstore/db-client/generated/shared_pb.js";
import streamServices from "@eventstore/db-client/generated/streams_grpc_pb.js";
import streamMessages, { type AppendResp } from "@eventstore/db-client/generated/streams_pb.js";
import type { AppendOutcome, Clock, ExpectedRevision } from "#services/ports.ts";
import { arrivalsIn } from "./arrivals.ts";
import type { KurrentAddress } from "./url.ts";
import { within } from "./waits.ts";

/** An event on its way to the server, its data and metadata as JSON text. */
export interface OutgoingEvent {
  readonly id: string;
  readonly type: string;
  readonly dataJson: string;
  readonly metadataJson: string;
}

/** An event as the server has it. */
export interface ServerEvent {
  readonly id: string;
  readonly type: string;
  readonly stream: string;
  readonly revision: bigint;
  /** Undefined where the server gives none (before 22.6), or one of two numbers (written by a client of old). */
  readonly position: bigint | undefined;
  /** When it was recorded: of one that was put back from a backup, when that was first. */
  readonly createdMs: number;
  /** Undefined for what is no JSON object. */
  readonly data: object | undefined;
  readonly metadata: unknown;
}

export interface ReadRange {
  readonly from: bigint | "start" | "end";
  readonly direction: "forward" | "backward";
  readonly max: number;
}

/** Takes an event that was read. */
export type Take = (event: ServerEvent) => void;

/** How a server says that it has no position at all. */
const NO_POSITION = 2n ** 64n - 1n;
const READ_BUFFER_EVENTS = 512;
/** The server looks at so many events of others before it says how far it has come. */
const SEARCH_WINDOW_EVENTS = 500;
const CLOSE_MS_MAX = 1_000;

const nothing = () => undefined;

/**
 * A connection to a server, with the client's traps stepped around: this is the only file that knows the client.
 * Whatever fails is an outcome or a rejection of the call that failed. Nothing is sent before the first call.
 */
export function connectKurrent(options: {
  address: KurrentAddress;
  clock: Clock;
  /** The longest wait for the whole answer to a read, and for a subscription to be taken. */
  answerMsMax: number;
  /** Ends reads, with its reason. */
  closing: AbortSignal;
}) {
  const { address, clock, answerMsMax, closing } = options;
  const { credentials } = address;
  const client = EventStoreDBClient.connectionString(address.connection);
  keepFromThrowing(client);
  const always = { credentials, requiresLeader: true };

  /** Aborts with the signal, and after the longest wait unless that is cancelled before. */
  function limited(signal: AbortSignal) {
    const late = new AbortController();
    const cancelLimit = clock.timer(answerMsMax, () =>
      late.abort(new Error("the event store did not answer in time")),
    );
    return { signal: AbortSignal.any([signal, late.signal]), cancelLimit };
  }

  /**
   * Reads to the end, however little of it is wanted: to end a call before that resets its HTTP/2 stream, and a server that
   * sees some thousands of resets in a short time closes the connection, with every other call on it.
   */
  async function readEach(
    start: () => StreamingRead<ResolvedEvent> | StreamingRead<AllStreamResolvedEvent>,
    take: Take,
  ): Promise<void> {
    closing.throwIfAborted();
    const reading = start();
    keepFromResetting(reading);
    const { signal, cancelLimit } = limited(closing);
    try {
      for await (const batch of arrivalsIn<ResolvedEvent>(reading, READ_BUFFER_EVENTS, signal))
        for (const resolved of batch) take(serverEvent(resolved));
    } catch (error) {
      // Rejects where the call was never made.
      reading.cancel().catch(nothing);
      throw error;
    } finally {
      cancelLimit();
    }
  }

  return {
    /**
     * Appends all events or none. The outcome is unknown for whatever is not certain, at the latest after `deadlineMs`.
     * A unary call, as the client makes it for whoever gives it credentials, with its channel and its errors; only the
     * messages are made here, of bytes. It would make data and metadata into text once more and that into base64, and
     * decode it again, which costs as much as all the rest.
     */
    async append(
      stream: string,
      events: readonly OutgoingEvent[],
      expected: ExpectedRevision | "any",
      deadlineMs: number,
    ): Promise<AppendOutcome> {
      const { StreamsClient } = streamServices;
      const [metadata, options] = client["callArguments"]({ ...always, deadline: deadlineMs });
      try {
        const answer = await client["execute"](StreamsClient, "appendToStream", (streams) => {
          const { promise, resolve, reject } = Promise.withResolvers<AppendResp>();
          const call = streams.append(metadata, options, (error, response) =>
            error ? reject(convertToCommandError(error)) : resolve(response),
          );
          call.on("error", reject);
          call.write(appendHeader(stream, expected));
          for (const event of events) call.write(proposedMessage(event));
          call.end();
          return promise;
        });
        return outcomeOf(answer);
      } catch (error) {
        return outcomeOfError(error);
      }
    },
    /** Reads a stream, `from` inclusive; one that is not there is empty. */
    readStream(stream: string, { from, direction, max }: ReadRange, take: Take): Promise<void> {
      const way = `${direction}s` as const;
      const range = { fromRevision: from, direction: way, maxCount: max };
      const buffer = { highWaterMark: READ_BUFFER_EVENTS };
      return readEach(() => client.readStream(stream, { ...always, ...range }, buffer), take);
    },
    /** Reads the whole store, others' events included: forward `from` inclusive, backward exclusive. */
    readAll({ from, direction, max }: ReadRange, take: Take): Promise<void> {
      const way = `${direction}s` as const;
      const range = { fromPosition: bothNumbers(from), direction: way, maxCount: max };
      const buffer = { highWaterMark: READ_BUFFER_EVENTS };
      return readEach(() => client.readAll({ ...always, ...range }, buffer), take);
    },
    /**
     * One subscription to the streams with these prefixes, in batches of at most `eventsMax`; as many wait here and the
     * server keeps the others. Calls `joined` once the server has taken it; ends or throws when it is lost.
     */
    async *subscribe(
      place: {
        after: bigint | "start";
        prefixes: readonly string[];
        eventsMax: number;
        signal: AbortSignal;
      },
      joined: () => void,
    ): AsyncGenerator<ServerEvent[]> {
      const { after, prefixes, eventsMax } = place;
      const filter = streamNameFilter({
        prefixes: [...prefixes],
        maxSearchWindow: SEARCH_WINDOW_EVENTS,
      });
      const subscription = client.subscribeToAll(
        { ...always, fromPosition: bothNumbers(after), filter },
        { highWaterMark: eventsMax },
      );
      const { signal, cancelLimit } = limited(place.signal);
      subscription.on("confirmation", () => {
        cancelLimit();
        joined();
      });
      try {
        const batches = arrivalsIn<AllStreamResolvedEvent>(subscription, eventsMax, signal);
        for await (const batch of batches) yield batch.map(serverEvent);
      } finally {
        cancelLimit();
        subscription.unsubscribe().catch(nothing);
      }
    },
    /** Ends every call and lets the connection go. */
    async close(): Promise<void> {
      await within(clock, CLOSE_MS_MAX, client.dispose(), nothing).catch(nothing);
      // The client has no way of closing its channel, which would stay connected as long as the process runs.
      const closed = client["getChannel"]().then((channel) => channel.close());
      await within(clock, CLOSE_MS_MAX, closed, nothing).catch(nothing);
    },
  };
}

/** Whether the server does not let this user do it. */
export const isDenied = (error: unknown): boolean => error instanceof AccessDeniedError;

/** Whether the server says that a position is none where a record begins: it has no error of its own for that. */
export function isNoPosition(error: unknown): boolean {
  return error instanceof UnknownError && /ReadAllResult|position/iu.test(error.message);
}

/**
 * The client looks at each error a second time to see whether it must connect again, in a promise that nobody holds.
 * That one rejects when a cluster's members cannot be asked just then, which would end the process.
 */
function keepFromThrowing(client: EventStoreDBClient): void {
  const handleError = client["handleError"];
  client["handleError"] = (...failed) => handleError(...failed).catch(nothing);
}

/** Of a stream that is not there the client would destroy the call, which the server is about to end by itself. */
function keepFromResetting(reading: object): void {
  // It is one, though its type does not say so.
  const transform = reading as Transform;
  const { _transform: pass } = transform;
  transform._transform = (answer: { hasStreamNotFound?(): boolean }, encoding, next) =>
    answer.hasStreamNotFound?.() ? next() : pass.call(transform, answer, encoding, next);
}

function appendHeader(stream: string, expected: ExpectedRevision | "any") {
  const options = new streamMessages.AppendReq.Options().setStreamIdentifier(
    new sharedMessages.StreamIdentifier().setStreamName(Buffer.from(stream)),
  );
  if (expected === "no_stream") options.setNoStream(new sharedMessages.Empty());
  else if (expected === "any") options.setAny(new sharedMessages.Empty());
  else options.setRevision(String(expected));
  return new streamMessages.AppendReq().setOptions(options);
}

function proposedMessage({ id, type, dataJson, metadataJson }: OutgoingEvent) {
  const message = new streamMessages.AppendReq.ProposedMessage()
    .setId(new sharedMessages.UUID().setString(id))
    .setData(Buffer.from(dataJson))
    .setCustomMetadata(Buffer.from(metadataJson));
  message.getMetadataMap().set("type", type).set("content-type", "application/json");
  return new streamMessages.AppendReq().setProposedMessage(message);
}

function outcomeOf(answer: AppendResp): AppendOutcome {
  const conflict = answer.getWrongExpectedVersion();
  if (conflict) {
    const actual = conflict.hasCurrentRevision()
      ? BigInt(conflict.getCurrentRevision())
      : "no_stream";
    return { outcome: "conflict", actual };
  }
  const success = answer.getSuccess();
  const told = success?.getPosition();
  const position =
    told &&
    oneNumber({
      commit: BigInt(told.getCommitPosition()),
      prepare: BigInt(told.getPreparePosition()),
    });
  if (!success || position === undefined)
    return { outcome: "unknown", reason: "no position was told" };
  return { outcome: "appended", revision: BigInt(success.getCurrentRevision()), position };
}

/** What a call that failed says for certain; a server may name a conflict in its trailers instead of in its answer. */
function outcomeOfError(error: unknown): AppendOutcome {
  if (error instanceof WrongExpectedVersionError) {
    const { actualVersion: actual } = error;
    if (typeof actual === "bigint" || actual === "no_stream")
      return { outcome: "conflict", actual };
  }
  if (error instanceof MaxAppendSizeExceededError)
    return { outcome: "refused", reason: "too_large" };
  return { outcome: "unknown", reason: error instanceof Error ? error.message : String(error) };
}

/** A position of two equal numbers as one: so it is for everything that was appended over gRPC. */
function oneNumber(position: Position | undefined): bigint | undefined {
  const { commit, prepare } = position ?? {};
  return commit === prepare && commit !== NO_POSITION ? commit : undefined;
}

function bothNumbers(position: bigint | "start" | "end"): Position | "start" | "end" {
  return typeof position === "bigint" ? { commit: position, prepare: position } : position;
}

function serverEvent({ event }: ResolvedEvent | AllStreamResolvedEvent): ServerEvent {
  if (!event) throw new Error("the event store gave a link whose event is gone");
  const { id, type, streamId: stream, revision, created, isJson, data, metadata } = event;
  const place = { stream, revision, position: oneNumber(event.position) };
  const createdMs = restoredMs(metadata) ?? created.getTime();
  const parsed = isJson && typeof data === "object" && data !== null ? data : undefined;
  return { id, type, ...place, createdMs, data: parsed, metadata };
}

/** Beside the data of an event that was put back from a backup stands when it was recorded. */
function restoredMs(metadata: unknown): number | undefined {
  if (typeof metadata !== "object" || metadata === null || !("recordedAt" in metadata))
    return undefined;
  const { recordedAt } = metadata;
  return typeof recordedAt === "number" && Number.isSafeInteger(recordedAt)
    ? recordedAt
    : undefined;
}
