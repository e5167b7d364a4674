import type { Telemetry } from "#services/ports.ts";
import type { Log } from "./log.ts";
import { createMetrics } from "./telemetry-metrics.ts";

/** Telemetry that can be read: what the internal listener serves under `/metrics`. */
export interface ReadableTelemetry extends Telemetry {
  metricsText(): Promise<string>;
  readonly metricsContentType: string;
}

/**
 * Counts into the process's metrics and writes alarms to the log as well. `models` are the names of the catalogue:
 * any other name counts as `other`, so that callers cannot make series.
 */
export function createTelemetry(options: {
  log: Log;
  models: { has(model: string): boolean };
}): ReadableTelemetry {
  const metrics = createMetrics(options.models);
  return {
    requestDone: (facts) => metrics.requestDone(facts),
    alarm(what, facts) {
      metrics.alarm(what);
      options.log.error({ ...facts, alarm: what }, "alarm");
    },
    metricsText: () => metrics.text(),
    metricsContentType: metrics.contentType,
  };
}
