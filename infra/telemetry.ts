import { collectDefaultMetrics, Counter, Histogram, Registry } from "prom-client";
import type { Telemetry } from "#services/ports.ts";
import type { Log } from "./log.ts";

/** From a local refusal to the longest answer that the time-outs allow. */
const SECONDS_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
];
/** A series costs memory here and in every store that scrapes; beyond this many all further ones are one. */
const SERIES_MAX = 5_000;
const OTHER = "other";

/**
 * Counts into the process's metrics, which the internal listener serves under `/metrics` in Prometheus' text format, and
 * writes alarms to the log as well. `model` is a label only for names that `models`, the catalogue, has: any other counts
 * as `other`, so that callers cannot make series. Costs well under a microsecond per request and figure: the labelled
 * counters are looked up once and kept.
 */
export function createTelemetry(options: {
  log: Log;
  models: { has(model: string): boolean };
}): Telemetry & {
  /** Counts spans of traces by what came of them: a fixed word. */
  spansCounted(outcome: string, count: number): void;
  metricsText(): Promise<string>;
  readonly metricsContentType: string;
} {
  const { log, models } = options;
  const registry = new Registry();
  const registers = [registry];
  // The default looks at the event loop's delay a hundred times a second, also when nothing happens.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 });

  const requests = new Counter({
    name: "relai_requests_total",
    help: "Requests that were answered; code is the code of the refusal or error, or ok.",
    labelNames: ["route", "status", "code", "model"],
    registers,
  });
  const duration = new Histogram({
    name: "relai_request_duration_seconds",
    help: "From the request's arrival to the last byte of its answer.",
    labelNames: ["route"],
    buckets: SECONDS_BUCKETS,
    registers,
  });
  const firstByte = new Histogram({
    name: "relai_first_byte_seconds",
    help: "From the request's arrival to the first body byte of the upstream.",
    labelNames: ["route"],
    buckets: SECONDS_BUCKETS,
    registers,
  });
  const charged = new Counter({
    name: "relai_charged_micro_total",
    help: "What was charged, in micro-dollars.",
    registers,
  });
  const tokens = new Counter({
    name: "relai_tokens_total",
    help: "Tokens of the requests that were charged.",
    labelNames: ["direction"],
    registers,
  });
  const alarms = new Counter({
    name: "relai_alarms_total",
    help: "Things that should never happen and that a person should look at.",
    labelNames: ["what"],
    registers,
  });

  const spans = new Counter({
    name: "relai_trace_spans_total",
    help: "Spans of traces: exported, failed (the collector did not take them) or dropped (too many waited).",
    labelNames: ["outcome"],
    registers,
  });

  const requestsOf = kept((...labels) => requests.labels(...labels));
  const durationOf = kept((...labels) => duration.labels(...labels));
  const firstByteOf = kept((...labels) => firstByte.labels(...labels));
  const alarmsOf = kept((...labels) => alarms.labels(...labels));
  const inputTokens = tokens.labels("input");
  const outputTokens = tokens.labels("output");

  return {
    requestDone(facts) {
      const model = models.has(facts.model) ? facts.model : OTHER;
      requestsOf(facts.route, String(facts.status), facts.code, model).inc();
      durationOf(facts.route).observe(facts.durationMs / 1_000);
      if (facts.firstByteMs !== undefined)
        firstByteOf(facts.route).observe(facts.firstByteMs / 1_000);
      if (facts.chargedMicro > 0) charged.inc(facts.chargedMicro);
      if (facts.inputTokens > 0) inputTokens.inc(facts.inputTokens);
      if (facts.outputTokens > 0) outputTokens.inc(facts.outputTokens);
    },
    alarm(what, facts) {
      alarmsOf(what).inc();
      log.error({ ...facts, alarm: what }, "alarm");
    },
    spansCounted: (outcome, count) => spans.inc({ outcome }, count),
    metricsText: () => registry.metrics(),
    metricsContentType: registry.contentType,
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
