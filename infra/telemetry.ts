import type { Telemetry } from "#services/ports.ts";
import type { Log } from "./log.ts";
import { ALARMS, createMetrics } from "./metrics.ts";

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
  const metrics = createMetrics();
  const requestsOf = kept((...labels) => metrics.requests.labels(...labels));
  const durationOf = kept((...labels) => metrics.duration.labels(...labels));
  const firstByteOf = kept((...labels) => metrics.firstByte.labels(...labels));
  const alarmsOf = kept((...labels) => metrics.alarms.labels(...labels));
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
    metricsText: metrics.text,
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
