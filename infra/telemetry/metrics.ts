import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";

/** From a local refusal to the longest answer that the time-outs allow. */
const SECONDS_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
];

/** One round trip to a store, or one commit of a disk. */
const CALL_SECONDS_BUCKETS = [
  0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

/** Everything that `relai_alarms_total` counts, each from zero on: the first one of a kind is an increase like any other. */
export const ALARMS = [
  "accounts_fault",
  "background_work_failed",
  "clock_jumped",
  "control_request_failed",
  "entry_too_large",
  "event_store_not_followed",
  "event_store_put_back",
  "event_unreadable",
  "events_dated_ahead",
  "host_outside_area",
  "journal_sealed_under_us",
  "ledger_claim_failed",
  "ledger_fill_failed",
  "ledger_follow_failed",
  "ledger_seal_failed",
  "ledger_start_failed",
  "ledger_superseded",
  "note_not_written",
  "organization_closed",
  "projection_stopped",
  "projector_thread_gone",
  "read_model_ahead_of_store",
  "read_model_dropped",
  "read_model_not_read",
  "read_model_not_stored",
  "read_model_of_another_store",
  "redis_trouble",
  "redis_unfit",
  "replay_failed",
  "request_failed",
  "traces_not_exported",
  "usage_parts_exceed_total",
  "writer_registration_failed",
] as const;

/**
 * Every metric of the process, declared here and nowhere else; docs/metrics.md explains each and says which alarm to set,
 * and a test holds the two together. Their labels are fixed words, and names that the catalogue has: never what a caller
 * sent, never the id of an organization or a key, of which there is no end.
 */
export function createMetrics() {
  const registry = new Registry();
  const registers = [registry];
  // The default looks at the event loop's delay a hundred times a second, also when nothing happens.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 });
  return {
    requests: new Counter({
      name: "relai_requests_total",
      help: "Requests that were answered; code is the code of the refusal or error, or ok.",
      labelNames: ["route", "status", "code", "model"],
      registers,
    }),
    duration: new Histogram({
      name: "relai_request_duration_seconds",
      help: "From the request's arrival to the last byte of its answer.",
      labelNames: ["route"],
      buckets: SECONDS_BUCKETS,
      registers,
    }),
    firstByte: new Histogram({
      name: "relai_first_byte_seconds",
      help: "From the request's arrival to the first body byte of the upstream.",
      labelNames: ["route"],
      buckets: SECONDS_BUCKETS,
      registers,
    }),
    charged: new Counter({
      name: "relai_charged_micro_total",
      help: "What was charged, in micro-dollars.",
      registers,
    }),
    tokens: new Counter({
      name: "relai_tokens_total",
      help: "Tokens of the requests that were charged.",
      labelNames: ["direction"],
      registers,
    }),
    alarms: new Counter({
      name: "relai_alarms_total",
      help: "Things that should never happen and that a person should look at.",
      labelNames: ["what"],
      registers,
    }),
    spans: new Counter({
      name: "relai_trace_spans_total",
      help: "Spans of traces: exported, failed (the collector did not take them) or dropped (too many waited).",
      labelNames: ["outcome"],
      registers,
    }),
    storeCall: new Histogram({
      name: "relai_store_call_seconds",
      help: "Calls of the event store and of Redis, from the call to its answer, whatever that is.",
      labelNames: ["store", "call"],
      buckets: CALL_SECONDS_BUCKETS,
      registers,
    }),
    storeErrors: new Counter({
      name: "relai_store_errors_total",
      help: "Such calls that were refused, or whose outcome is unknown.",
      labelNames: ["store", "call", "reason"],
      registers,
    }),
    appended: new Counter({
      name: "relai_events_appended_total",
      help: "Events that this process has recorded.",
      labelNames: ["type"],
      registers,
    }),
    answers: new Counter({
      name: "relai_admission_answers_total",
      help: "What the admission store answered; fenced_… is no answer about money.",
      labelNames: ["verb", "answer"],
      registers,
    }),
    gauges: {
      appendWaiting: new Gauge({
        name: "relai_append_waiting_events",
        help: "Events that were given to the event store and have no outcome yet.",
        registers,
      }),
      journalRequests: new Gauge({
        name: "relai_journal_requests",
        help: "Requests that have a place in the journals of this process.",
        registers,
      }),
      lagEvents: new Gauge({
        name: "relai_lag_events",
        help: "Events that were handed to a reader and are not carried or folded yet.",
        labelNames: ["reader"],
        registers,
      }),
      lagSeconds: new Gauge({
        name: "relai_lag_seconds",
        help: "The age of the oldest of these.",
        labelNames: ["reader"],
        registers,
      }),
      carryWaiting: new Gauge({
        name: "relai_carry_waiting_events",
        help: "Recorded events that the ledger keeps for a server of a Redis Cluster that is away.",
        registers,
      }),
      ledgerServing: new Gauge({
        name: "relai_ledger_serving",
        help: "1 where this process serves as the region's ledger.",
        registers,
      }),
      ownerEpoch: new Gauge({
        name: "relai_owner_epoch",
        help: "The newest owner epoch that this process works under, 0 where it knows of none.",
        registers,
      }),
      dependencyState: new Gauge({
        name: "relai_dependency_state",
        help: "What /readyz says of each dependency: 2 up, 1 in part, 0 down.",
        labelNames: ["dependency"],
        registers,
      }),
    },
    /** All of them in Prometheus' text format. */
    text: () => registry.metrics(),
    contentType: registry.contentType,
    /** What is declared, for whoever compares it with what is written of it. */
    declared: () => registry.getMetricsAsArray(),
  };
}
