import {
  readParsedEvent,
  STREAM_PREFIXES,
  UnreadableEvent,
  type NewEvent,
  type RecordedEvent,
} from "#domain/events/events.ts";
import type { EventMetadata } from "#domain/events/schemas.ts";
import type {
  AppendOutcome,
  Clock,
  EventStore,
  ExpectedRevision,
  Random,
} from "#services/ports.ts";
import { createAppendsInOrder } from "./appends-in-order.ts";
import { connectKurrent, isDenied, isNoPosition, type ServerEvent } from "./client.ts";
import { identityOf, renewIdentity } from "./identity.ts";
import { readKurrentUrl } from "./url.ts";
import { resuming, type Followed } from "./resuming.ts";

export interface KurrentEventStoreOptions {
  /** Such as `esdb://user:password@host:2113`; see {@link readKurrentUrl}. */
  readonly url: string;
  /** Whether the URL may say tls=false: everything then travels in plain text. */
  readonly insecure?: boolean;
  readonly clock: Clock;
  readonly random: Random;
  /** Appends that wait or are under way hold at most this much; what is more is `refused: queue_full`. */
  readonly queueEventsMax?: number;
  readonly queueBytesMax?: number;
  /** The longest wait for an append's outcome, which is `unknown` after it, and for a read, which then throws. */
  readonly answerMsMax?: number;
  /** The most events that a follower is given at once. As many wait for it here, and the server keeps the others. */
  readonly followEventsMax?: number;
  /** How long a follower tries to subscribe again before it throws. */
  readonly troubleMsMax?: number;
}

export interface KurrentEventStore extends EventStore {
  /**
   * Gives the store another identity, unless it is not `before` any more, and answers what it is then. For a store whose
   * events were put back by the server's own means: such a backup has the identity of what went on from there.
   */
  renewIdentity(before: string): Promise<string>;
  /** Takes no more appends, waits for the outcomes of those it has, ends all followers and lets the server go. */
  close(): Promise<void>;
}

/** Among so many newest events of a stream a repeated fence is looked for. */
const FENCE_LOOK_EVENTS = 500;
/** A server's clock is taken to go back by less than this; see `timeUpTo`. */
const CLOCK_BACK_MS_MAX = 60_000;
const CLOCK_BACK_EVENTS_MAX = 10_000;

const isOurs = (stream: string) => STREAM_PREFIXES.some((prefix) => stream.startsWith(prefix));

/**
 * Opens an event store on an EventStoreDB or KurrentDB server, from 22.6 on. Its user needs the right to read `$all`.
 *
 * Appends name their revision, carry a deadline and take the client's unary path
 * (docs/decisions/0029-appends-to-a-server-take-the-unary-path.md). Positions are the server's byte offsets.
 * `recordedAt` is the server's time; along `follow`, and in `eventAt`, it never goes back.
 * @throws when the URL cannot be used, and when the server does not say which store it is.
 */
export async function openKurrentEventStore(
  options: KurrentEventStoreOptions,
): Promise<KurrentEventStore> {
  const { url, insecure = false, clock, random } = options;
  const { queueEventsMax: eventsMax = 20_000, queueBytesMax: bytesMax = 64 * 1024 * 1024 } =
    options;
  const { answerMsMax = 10_000, followEventsMax = 1_000, troubleMsMax = 30_000 } = options;
  const address = readKurrentUrl(url, insecure);
  const appends = createAppendsInOrder({ clock, eventsMax, bytesMax, answerMsMax });
  const closing = new AbortController();
  const server = connectKurrent({ address, clock, answerMsMax, closing: closing.signal });
  const itself = { server, random, answerMsMax };
  let closed: Promise<void> | undefined;

  async function append(
    stream: string,
    events: readonly NewEvent[],
    expected: ExpectedRevision | "any",
  ): Promise<AppendOutcome> {
    if (!isOurs(stream)) throw new TypeError(`no follower would be given a stream ${stream}`);
    return appends.add(stream, events, (leftMs) => server.append(stream, events, expected, leftMs));
  }

  /**
   * The recording time at a position: the latest of all times up to it. It is looked for among the events that are less
   * than a minute older, at most 10,000, so that whoever follows from there is told the times that others were told.
   */
  async function timeUpTo(position: bigint | "start"): Promise<number> {
    let latestMs = 0;
    let left = CLOCK_BACK_EVENTS_MAX;
    const isEnough = ({ stream, createdMs }: ServerEvent) => {
      if (isOurs(stream)) latestMs = Math.max(latestMs, createdMs);
      return createdMs + CLOCK_BACK_MS_MAX <= latestMs || --left < 0;
    };
    if (position === "start") return latestMs;
    await server.readAll({ from: position, direction: "forward", max: 1 }, isEnough);
    await lookBack(server, position, isEnough);
    return latestMs;
  }

  async function* subscribe(
    from: Followed,
    signal: AbortSignal,
    joined: () => void,
  ): AsyncGenerator<RecordedEvent[]> {
    let recordedAt = from.recordedAt ?? (await timeUpTo(from.position));
    const place = { after: from.position, prefixes: STREAM_PREFIXES, eventsMax: followEventsMax };
    for await (const batch of server.subscribe({ ...place, signal }, joined)) {
      const events: RecordedEvent[] = [];
      try {
        for (const event of batch) {
          recordedAt = Math.max(recordedAt, event.createdMs);
          events.push(recorded(event, recordedAt));
        }
      } catch (error) {
        // What precedes an event that cannot be read is given first.
        if (events.length > 0) yield events;
        throw error;
      }
      yield events;
    }
  }

  const store: KurrentEventStore = {
    async append(stream, events, expected) {
      if (events.length === 0) throw new TypeError("an append needs at least one event");
      return append(stream, events, expected);
    },
    async read(stream, { from, direction, max }) {
      // The end lies behind the last event: nothing is forward of it.
      if (max <= 0 || (from === "end" && direction === "forward")) return [];
      const found: RecordedEvent[] = [];
      const range = { from: from === "start" ? 0n : from, direction, max };
      await server.readStream(stream, range, (event) => {
        found.push(recorded(event, event.createdMs));
      });
      return found;
    },
    /** The server remembers only its newest appends at any revision, and none over a restart; so the stream is looked at first. */
    async fence(stream, event) {
      const range = { from: "end", direction: "backward", max: FENCE_LOOK_EVENTS } as const;
      const newest = await store.read(stream, range);
      const before = newest.find(({ id, type }) => id === event.id && type === event.type);
      if (before) return before.position;
      const cause = await append(stream, [event], "any");
      if (cause.outcome === "appended") return cause.position;
      throw new Error(`the fence of ${stream} was not written: ${cause.outcome}`, { cause });
    },
    follow: ({ after, signal }) =>
      resuming({
        clock,
        after,
        signal: AbortSignal.any([signal, closing.signal]),
        subscribe,
        isFinal: (error) => error instanceof UnreadableEvent || isDenied(error),
        troubleMsMax,
      }),
    async head() {
      const newest = await newestOfOurs(server);
      return newest ? positionOf(newest) : "start";
    },
    identity: () => identityOf(itself),
    renewIdentity: (before) => renewIdentity(itself, before),
    async eventAt(position) {
      let id: string | undefined;
      try {
        await server.readAll({ from: position, direction: "forward", max: 1 }, (event) => {
          if (event.position === position) ({ id } = event);
        });
      } catch (error) {
        if (!isNoPosition(error)) throw error;
      }
      return id === undefined ? undefined : { id, recordedAt: await timeUpTo(position) };
    },
    close: () => (closed ??= shut()),
  };

  async function shut(): Promise<void> {
    closing.abort(new Error("the event store is closed"));
    await appends.close();
    await server.close();
  }

  try {
    await identityOf(itself);
  } catch (error) {
    await shut();
    throw error;
  }
  return store;
}

/** The events of one look back: mostly the newest is the one, and on a server others write as well. */
const LOOK_EVENTS_FIRST = 16;
const LOOK_EVENTS_MAX = 2_048;

/** The newest event before a position that `isIt`, among those of everybody; each is looked at, newest first. */
async function lookBack(
  server: Pick<ReturnType<typeof connectKurrent>, "readAll">,
  from: bigint | "end",
  isIt: (event: ServerEvent) => boolean,
): Promise<ServerEvent | undefined> {
  for (let max = LOOK_EVENTS_FIRST; ; max = Math.min(4 * max, LOOK_EVENTS_MAX)) {
    const page: ServerEvent[] = [];
    await server.readAll({ from, direction: "backward", max }, (event) => void page.push(event));
    const found = page.find(isIt);
    const oldest = page.at(-1);
    if (found || !oldest || page.length < max) return found;
    from = positionOf(oldest);
  }
}

/** The newest event of relai's in a store; undefined where there is none. */
export const newestOfOurs = (server: Pick<ReturnType<typeof connectKurrent>, "readAll">) =>
  lookBack(server, "end", ({ stream }) => isOurs(stream));

function positionOf({ stream, revision, position }: ServerEvent): bigint {
  if (position !== undefined) return position;
  throw new Error(`the event store gives no position for event ${revision} of ${stream}`);
}

function recorded(event: ServerEvent, recordedAt: number): RecordedEvent {
  const { id, type, stream, revision, data } = event;
  const position = positionOf(event);
  if (data === undefined)
    throw new UnreadableEvent(`event ${type} at position ${position} is no JSON object`);
  const metadata = event.metadata as EventMetadata;
  return readParsedEvent({ id, type, stream, revision, position, recordedAt }, data, metadata);
}
