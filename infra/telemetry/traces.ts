import { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace as otel } from "@opentelemetry/api";
import type { Attributes, Context } from "@opentelemetry/api";
import {
  ExportResultCode,
  getNumberFromEnv,
  getStringFromEnv,
  getStringListFromEnv,
  parseTraceParent,
} from "@opentelemetry/core";
import type { ExportResult } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import {
  defaultResource,
  detectResources,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceNameEnvDetector,
} from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import type { Sampler } from "@opentelemetry/sdk-trace";
import type { CallTrace, RequestTrace, Telemetry } from "#services/ports.ts";

/** What becomes of spans. `dropped`: the queue was full. `failed`: the collector did not take them. */
export type SpansOutcome = "exported" | "failed" | "dropped";

const QUEUE_SPANS_MAX = 2_048;
const BATCH_SPANS_MAX = 512;
const DELAY_MS = 5_000;
const EXPORT_MS_MAX = 30_000;
/** The methods that the conventions know; any other is a caller's text. */
const METHODS: ReadonlySet<string> = new Set(
  "CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split(" "),
);

/**
 * Sends traces to a collector, by OTLP over HTTP as protobuf: a server span for each request, and below it a client span for
 * each call of an upstream, in the names of OpenTelemetry's conventions for HTTP and `gen_ai`. A request becomes spans only
 * when it is over, so nothing of it waits here meanwhile. At most `OTEL_BSP_MAX_QUEUE_SIZE` spans wait or are on their way; a
 * request beyond that is dropped whole. What else the variables `OTEL_…` say is read from the process's environment, a value
 * that makes no sense as its default. Loads what it needs with this file: import it only where there is a collector.
 */
export function openTraces(options: {
  /** Where spans are posted to, as it stands. */
  url: string;
  /** This start of the process, and its region. */
  instance: string;
  region: string;
  alarm: Telemetry["alarm"];
  /** Told how many spans came to what. */
  counted: (outcome: SpansOutcome, count: number) => void;
}): {
  readonly requestTraced: NonNullable<Telemetry["requestTraced"]>;
  /** Sends what waits, and takes nothing more. Never rejects; how long it may take is the caller's business. */
  close(): Promise<void>;
} {
  const { alarm, counted } = options;
  const queueSpansMax = sizeFromEnv("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS_MAX);
  /** Spans that wait or are on their way. */
  let pending = 0;
  let isFailing = false;

  function exported(count: number, { code, error }: ExportResult): void {
    pending -= count;
    const hasFailed = code !== ExportResultCode.SUCCESS;
    counted(hasFailed ? "failed" : "exported", count);
    // Told once, until it has worked again: a collector that is away would be told of every few seconds.
    if (hasFailed && !isFailing)
      alarm("traces_not_exported", { spans: count, error: reason(error) });
    isFailing = hasFailed;
  }

  const otlp = new OTLPTraceExporter({ url: options.url });
  const processor = new BatchSpanProcessor({
    exporter: {
      export: (spans, done) =>
        otlp.export(spans, (result) => {
          exported(spans.length, result);
          done(result);
        }),
      shutdown: () => otlp.shutdown(),
      forceFlush: () => otlp.forceFlush(),
    },
    maxQueueSize: queueSpansMax,
    maxExportBatchSize: sizeFromEnv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS_MAX),
    scheduledDelayMillis: sizeFromEnv("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS),
    exportTimeoutMillis: sizeFromEnv("OTEL_BSP_EXPORT_TIMEOUT", EXPORT_MS_MAX),
  });
  const detectors = [resourceAttributesEnvDetector, serviceNameEnvDetector];
  const ours = { "service.name": "relai", "service.instance.id": options.instance };
  const tracer = new TracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes({ ...ours, "relai.region": options.region }))
      .merge(detectResources({ detectors })),
    sampler: samplerFromEnv(),
    spanProcessors: [processor],
  }).getTracer("relai");
  // Without this propagator a caller has no say in where its request is shown, or whether.
  const joins = (getStringListFromEnv("OTEL_PROPAGATORS") ?? [TRACE_CONTEXT]).includes(
    TRACE_CONTEXT,
  );

  return {
    requestTraced(request) {
      const { beganAt } = request;
      const parent = joins ? parentOf(request.parent) : ROOT_CONTEXT;
      const kind = SpanKind.SERVER;
      const server = tracer.startSpan(
        nameOf(request),
        { kind, startTime: beganAt, attributes: requestAttributes(request) },
        parent,
      );
      if (!server.isRecording()) return;
      const count = 1 + request.calls.length;
      if (pending + count > queueSpansMax) return counted("dropped", count);
      pending += count;
      const within = otel.setSpan(parent, server);
      for (const call of request.calls) {
        const name = `${call.operation} ${call.model}`;
        const startTime = beganAt + call.beganMs;
        const attributes = callAttributes(call);
        const client = tracer.startSpan(
          name,
          { kind: SpanKind.CLIENT, startTime, attributes },
          within,
        );
        if (call.error !== undefined) client.setStatus({ code: SpanStatusCode.ERROR });
        client.end(startTime + call.durationMs);
      }
      // A refusal is the caller's affair; what failed here, or broke off behind its head, is an error.
      const isOurs = request.status >= 500 || (request.status < 400 && request.code !== "ok");
      if (isOurs) server.setStatus({ code: SpanStatusCode.ERROR });
      server.end(beganAt + request.durationMs);
    },
    // What fails in it was counted where it failed.
    close: () => processor.shutdown().catch(() => {}),
  };
}

const TRACE_CONTEXT = "tracecontext";

/** The caller's span, if it named one properly; else this request begins a trace. */
function parentOf(traceparent: string | undefined): Context {
  const caller = traceparent === undefined ? null : parseTraceParent(traceparent);
  return caller ? otel.setSpanContext(ROOT_CONTEXT, { ...caller, isRemote: true }) : ROOT_CONTEXT;
}

const hasRoute = ({ route }: RequestTrace) => route.startsWith("/");

function nameOf(request: RequestTrace): string {
  const method = METHODS.has(request.method) ? request.method : "HTTP";
  return hasRoute(request) ? `${method} ${request.route}` : method;
}

function requestAttributes(request: RequestTrace): Attributes {
  const { requestId, method, route, status, code, orgId, keyId } = request;
  return {
    "http.request.method": METHODS.has(method) ? method : "_OTHER",
    ...(hasRoute(request) && { "http.route": route }),
    "http.response.status_code": status,
    ...(code !== "ok" && { "error.type": code }),
    "relai.request.id": requestId,
    ...(orgId !== undefined && { "relai.organization.id": orgId }),
    ...(keyId !== undefined && { "relai.key.id": keyId }),
  };
}

function callAttributes(call: CallTrace): Attributes {
  const { protocol, hostname, port } = new URL(call.baseUrl);
  const { outputCapTokens, firstByteMs, status, error, servedModel } = call;
  const { inputTokens, outputTokens } = call;
  const isChat = call.operation === "chat";
  return {
    "gen_ai.operation.name": call.operation,
    "gen_ai.provider.name": call.host,
    "gen_ai.request.model": call.model,
    ...(isChat && { "gen_ai.request.stream": call.isStream }),
    ...(outputCapTokens !== undefined && { "gen_ai.request.max_tokens": outputCapTokens }),
    ...(servedModel !== undefined && { "gen_ai.response.model": servedModel }),
    ...(call.isStream &&
      firstByteMs !== undefined && {
        "gen_ai.response.time_to_first_chunk": firstByteMs / 1_000,
      }),
    ...(inputTokens !== undefined && { "gen_ai.usage.input_tokens": inputTokens }),
    ...(isChat && outputTokens !== undefined && { "gen_ai.usage.output_tokens": outputTokens }),
    // An IPv6 address has brackets in a URL only.
    "server.address": hostname.replaceAll(/[[\]]/gu, ""),
    "server.port": port === "" ? (protocol === "https:" ? 443 : 80) : Number(port),
    ...(status !== undefined && { "http.response.status_code": status }),
    ...(error !== undefined && { "error.type": error }),
  };
}

/** `OTEL_TRACES_SAMPLER`, and its argument. By default a caller's decision holds, and what begins here is taken. */
function samplerFromEnv(): Sampler {
  const on = new AlwaysOnSampler();
  const off = new AlwaysOffSampler();
  const some = new TraceIdRatioBasedSampler(getNumberFromEnv("OTEL_TRACES_SAMPLER_ARG") ?? 1);
  const samplers: Readonly<Record<string, Sampler>> = {
    always_on: on,
    always_off: off,
    traceidratio: some,
    parentbased_always_on: new ParentBasedSampler({ root: on }),
    parentbased_always_off: new ParentBasedSampler({ root: off }),
    parentbased_traceidratio: new ParentBasedSampler({ root: some }),
  };
  const name = getStringFromEnv("OTEL_TRACES_SAMPLER")?.toLowerCase() ?? "";
  return samplers[name] ?? new ParentBasedSampler({ root: on });
}

/** A size of the environment, or a number of milliseconds. */
function sizeFromEnv(name: string, otherwise: number): number {
  const value = getNumberFromEnv(name);
  return value !== undefined && Number.isSafeInteger(value) && value > 0 ? value : otherwise;
}

/** A status, a code of the system or a name; a message could quote an address with a credential, or the collector. */
function reason(error: Error | undefined): string {
  const code = error && "code" in error ? error.code : undefined;
  return typeof code === "string" || typeof code === "number" ? String(code) : (error?.name ?? "");
}
