import { EVENT_SCHEMAS } from "#domain/events/schemas.ts";
import type { Telemetry } from "#services/ports.ts";
import type { Log } from "./log.ts";
import { ALARMS, createMetrics } from "./metrics.ts";

/** A series costs memory here and in every store that scrapes; beyond this many all further ones are one. */
const SERIES_MAX = 5_000;
const OTHER = "other";
const EVENT_TYPES = Object.keys(EVENT_SCHEMAS);

type Gauges = ReturnType<typeof createMetrics>["gauges"];

/** What adapters and the start count, beside what the services do. Every text is one of a few fixed words. */
export interface ProcessTelemetry extends Telemetry {
  /** Counts spans of traces by what came of them. */
  spansCounted(outcome: string, count: number): void;
  /** A call of a store was answered, or given up; `failure` where it came to nothing. */
  storeCalled(store: string, call: string, durationMs: number, failure: string | undefined): void;
  /** An event of this type was recorded. */
  eventAppended(type: string): void;
  /** The admission store answered a verb. */
  admissionAnswered(verb: string, answer: string): void;
  /** Has gauges set whenever metrics are read. It must not reject. */
  onScrape(look: (gauges: Gauges) => void | Promise<void>): void;
  metricsText(): Promise<string>;
  readonly metricsContentType: string;
}

/**
 * Counts into the process's metrics, which the internal listener serves under `/metrics` in Prometheus' text format, and
 * writes alarms to the log as well. `model` is a label only for names that `models`, the catalogue, has: any other counts
 * as `other`, so that callers cannot make series. Costs well under a microsecond per request and figure: the labelled
 * counters are looked up once and kept.
 */
export function createTelemetry(options: {
  log: Log;
  models: { has(model: string): boolean };
}): ProcessTelemetry {
  const { log, models } = options;
  const metrics = createMetrics();
  const requestsOf = kept((...labels) => metrics.requests.labels(...labels));
  const durationOf = kept((...labels) => metrics.duration.labels(...labels));
  const firstByteOf = kept((...labels) => metrics.firstByte.labels(...labels));
  const alarmsOf = kept((...labels) => metrics.alarms.labels(...labels));
  const storeCallOf = kept((...labels) => metrics.storeCall.labels(...labels));
  const storeErrorOf = kept((...labels) => metrics.storeErrors.labels(...labels));
  const appendedOf = kept((...labels) => metrics.appended.labels(...labels));
  const answersOf = kept((...labels) => metrics.answers.labels(...labels));
  const looks: ((gauges: Gauges) => void | Promise<void>)[] = [];
  // A series that appears with 1 is no increase to Prometheus: what an alarm waits for stands at 0 from the beginning.
  for (const type of EVENT_TYPES) appendedOf(type).inc(0);
  for (const what of ALARMS) alarmsOf(what).inc(0);
  const inputTokens = metrics.tokens.labels("input");
  const outputTokens = metrics.tokens.labels("output");

  return {
    requestDone(facts) {
      const model = models.has(facts.model) ? facts.model : OTHER;
      requestsOf(facts.route, String(facts.status), facts.code, model).inc();
      durationOf(facts.route).observe(facts.durationMs / 1_000);
      if (facts.firstByteMs !== undefined)
        firstByteOf(facts.route).observe(facts.firstByteMs / 1_000);
      if (facts.chargedMicro > 0) metrics.charged.inc(facts.chargedMicro);
      if (facts.inputTokens > 0) inputTokens.inc(facts.inputTokens);
      if (facts.outputTokens > 0) outputTokens.inc(facts.outputTokens);
    },
    alarm(what, facts) {
      alarmsOf(what).inc();
      log.error({ ...facts, alarm: what }, "alarm");
    },
    spansCounted: (outcome, count) => metrics.spans.inc({ outcome }, count),
    storeCalled(store, call, durationMs, failure) {
      storeCallOf(store, call).observe(durationMs / 1_000);
      if (failure !== undefined) storeErrorOf(store, call, failure).inc();
    },
    eventAppended: (type) => appendedOf(type).inc(),
    admissionAnswered: (verb, answer) => answersOf(verb, answer).inc(),
    onScrape: (look) => void looks.push(look),
    async metricsText() {
      await Promise.all(looks.map(async (look) => look(metrics.gauges)));
      return metrics.text();
    },
    metricsContentType: metrics.contentType,
  };
}

/** Keeps what was made for each set of labels; past the limit a new set counts as `other` in every place. */
function kept<Child>(make: (...labels: string[]) => Child): (...labels: string[]) => Child {
  const children = new Map<string, Child>();
  return (...labels) => {
    let key = labels.join("\n");
    let child = children.get(key);
    if (child !== undefined) return child;
    let used = labels;
    if (children.size >= SERIES_MAX) {
      used = labels.map(() => OTHER);
      key = used.join("\n");
      child = children.get(key);
    }
    child ??= make(...used);
    children.set(key, child);
    return child;
  };
}
