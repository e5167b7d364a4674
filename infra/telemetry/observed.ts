import type { NewEvent, RecordedEvent } from "#domain/events/events.ts";
import type { RedisConnection } from "#infra/redis/connection.ts";
import type { AdmissionStore, AppendOutcome, Clock, EventStore, Lag } from "#services/ports.ts";
import type { ProcessTelemetry } from "./telemetry.ts";

/** Stores as the metrics see them: each call passes as it is, and what came of it is counted. */

/** Follows as the store does, and tells how far its one reader is behind: it is done with a batch when it asks for the next. */
function followLag(follow: EventStore["follow"], clock: Pick<Clock, "now">) {
  let held: readonly RecordedEvent[] = [];
  return {
    async *follow(options: Parameters<EventStore["follow"]>[0]): AsyncGenerator<RecordedEvent[]> {
      try {
        for await (const batch of follow(options)) {
          held = batch;
          yield batch;
          held = [];
        }
      } finally {
        held = [];
      }
    },
    lag(): Lag {
      const [oldest] = held;
      return {
        events: held.length,
        ms: oldest ? Math.max(0, clock.now() - oldest.recordedAt) : 0,
      };
    },
  };
}

interface Parts {
  readonly clock: Clock;
  readonly telemetry: Pick<
    ProcessTelemetry,
    "storeCalled" | "eventAppended" | "admissionAnswered" | "onScrape"
  >;
}

/** Has calls of one store timed, and counted as failed where they reject or `failureIn` their answer says so. */
function timing(store: "event_store" | "redis", { clock, telemetry }: Parts) {
  return async function timed<T>(
    call: string,
    work: () => Promise<T>,
    failureOf: (error: unknown) => string,
    failureIn?: (answer: T) => string | undefined,
  ): Promise<T> {
    const begunMs = clock.elapsed();
    let failure: string | undefined;
    try {
      const answer = await work();
      failure = failureIn?.(answer);
      return answer;
    } catch (error) {
      failure = failureOf(error);
      throw error;
    } finally {
      telemetry.storeCalled(store, call, clock.elapsed() - begunMs, failure);
    }
  };
}

const failed = () => "failed";

/** A conflict is no failure: of two who append one loses. */
function failureOfAppend(answer: AppendOutcome): string | undefined {
  if (answer.outcome === "refused") return answer.reason;
  return answer.outcome === "unknown" ? "unknown" : undefined;
}

/**
 * Counts what an event store is asked for, what is recorded there, and what waits to be. `lag` is that of the ledger, the
 * only one in its process that follows through here.
 */
export function observeEventStore(
  store: EventStore,
  parts: Parts,
): EventStore & { readonly lag: () => Lag } {
  const { clock, telemetry } = parts;
  const timed = timing("event_store", parts);
  const followed = followLag((options) => store.follow(options), clock);
  let waiting = 0;
  let ownerEpoch = 0;
  function recorded({ type, data }: NewEvent): void {
    telemetry.eventAppended(type);
    if ("ownerEpoch" in data && type === "OwnerChanged.v1") ({ ownerEpoch } = data);
  }
  telemetry.onScrape((gauges) => {
    gauges.appendWaiting.set(waiting);
    if (ownerEpoch > 0) gauges.ownerEpoch.set(ownerEpoch);
  });
  return {
    ...followed,
    async append(stream, events, expected) {
      waiting += events.length;
      try {
        const append = () => store.append(stream, events, expected);
        const answer = await timed("append", append, failed, failureOfAppend);
        if (answer.outcome === "appended") for (const event of events) recorded(event);
        return answer;
      } finally {
        waiting -= events.length;
      }
    },
    read: (...asked) => timed("read", () => store.read(...asked), failed),
    async fence(stream, event) {
      const position = await timed("fence", () => store.fence(stream, event), failed);
      recorded(event);
      return position;
    },
    head: () => timed("head", () => store.head(), failed),
    identity: () => store.identity(),
    eventAt: (position) => timed("event_at", () => store.eventAt(position), failed),
  };
}

/** Counts the answers of an admission store by what they say. */
export function observeAdmission(
  store: AdmissionStore,
  { telemetry }: Pick<Parts, "telemetry">,
): AdmissionStore {
  function counted<Ask, Answer extends { readonly outcome: string; readonly fenced?: string }>(
    verb: string,
    call: (ask: Ask) => Promise<Answer>,
  ): (ask: Ask) => Promise<Answer> {
    return async (ask) => {
      let answered = "failed";
      try {
        const answer = await call(ask);
        const { outcome, fenced } = answer;
        answered = fenced === undefined ? outcome : `fenced_${fenced}`;
        return answer;
      } finally {
        telemetry.admissionAnswered(verb, answered);
      }
    };
  }
  return {
    ...store,
    admit: counted("admit", store.admit),
    extend: counted("extend", store.extend),
    drop: counted("drop", store.drop),
    close: counted("close", store.close),
    figures: counted("figures", store.figures),
    apply: counted("apply", store.apply),
    adopt: counted("adopt", store.adopt),
    sweep: counted("sweep", store.sweep),
  };
}

/** Why a Redis server gave no answer, or none that is of use. */
function failureOfRedis(error: unknown): string {
  if (!(error instanceof Error)) return "failed";
  if (error.name === "ReplyError") return "refused";
  return error.message === "Command timed out" ? "timed_out" : "unreachable";
}

/** Counts the round trips to Redis by what was asked. */
export function observeRedis(redis: RedisConnection, parts: Parts): RedisConnection {
  const timed = timing("redis", parts);
  return {
    ...redis,
    run: (script, ...asked) =>
      timed(script.name, () => redis.run(script, ...asked), failureOfRedis),
    command: (name, ...asked) =>
      timed(name.toLowerCase(), () => redis.command(name, ...asked), failureOfRedis),
    seek: (meant) => timed("seek", () => redis.seek(meant), failureOfRedis),
  };
}
