import { ID_RANDOM_BYTES, makeId } from "#domain/ids.ts";
import { errorHeaders, openaiErrorBody, statusOf, type ApiError } from "#services/errors.ts";
import type { Caller } from "#services/gateway/http/authenticate.ts";
import type { Gateway } from "#services/gateway/gateway.ts";
import type { GatewayRequest, Sink } from "#services/gateway/parts.ts";

const CLIENT_REQUEST_ID_MAX = 256;

/** One request on its way: its id, its start, where its answer goes and with which headers. */
export interface Run {
  readonly route: string;
  readonly requestId: string;
  readonly beganMs: number;
  readonly sink: Sink;
  readonly headers: Record<string, string>;
  /** Known once the body was read; for metrics and headers. */
  model: string;
  /** The head of an answer has gone out. */
  hasHead(): boolean;
}

/** Gives a request its id. The id is always ours; the caller's own is echoed. */
export function startRun(
  gateway: Gateway,
  route: string,
  request: GatewayRequest,
  sink: Sink,
): Run {
  const { clock, random, region } = gateway.parts;
  const requestId = makeId("req", clock.now(), random.bytes(ID_RANDOM_BYTES));
  const echoed = clientRequestId(request);
  let hasHead = false;
  return {
    route,
    requestId,
    beganMs: clock.elapsed(),
    sink: {
      head(status, headers) {
        hasHead = true;
        sink.head(status, headers);
      },
      write: (bytes) => sink.write(bytes),
      end: (bytes) => sink.end(bytes),
      destroy: () => sink.destroy(),
      listen: (events) => sink.listen(events),
      isGone: () => sink.isGone(),
    },
    hasHead: () => hasHead,
    headers: {
      "x-request-id": requestId,
      "x-relai-region": region,
      ...(echoed === undefined ? {} : { "x-client-request-id": echoed }),
    },
    model: "",
  };
}

/** The caller's own id for the request: carried along and echoed, never an identity of money. */
export function clientRequestId(request: GatewayRequest): string | undefined {
  const value = request.headers["x-client-request-id"];
  if (typeof value !== "string" || value.length === 0 || value.length > CLIENT_REQUEST_ID_MAX)
    return undefined;
  return value;
}

/** A failed login is counted per caller address. */
export function refuseLogin(
  gateway: Gateway,
  run: Run,
  request: GatewayRequest,
  error: ApiError,
): void {
  const capped = statusOf(error) === 401 ? gateway.capLogin(request.remoteAddress) : undefined;
  answerError(gateway, run, capped ?? error);
}

/** A refusal after the login is counted per key; a fault of the server (any 5xx) is nobody's doing and never counts. */
export function refuse(
  gateway: Gateway,
  run: Run,
  caller: Caller,
  error: ApiError,
  rpm?: number,
): void {
  const capped = statusOf(error) < 500 ? gateway.capRefusal(caller.keyId, rpm) : undefined;
  answerError(gateway, run, capped ?? error);
}

/**
 * Runs what answers a request. When it throws, the caller gets a 500 with the request's id and nothing else, or a broken
 * connection if the head of an answer has gone out already; the error goes on to whoever counts errors.
 */
export async function answering(
  gateway: Gateway,
  run: Run,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (run.hasHead()) run.sink.destroy();
    else answerError(gateway, run, { code: "internal_error" });
    throw error;
  }
}

/** Answers with an error and nothing else. */
export function answerError(gateway: Gateway, run: Run, error: ApiError): void {
  const status = statusOf(error);
  run.sink.head(status, { ...run.headers, ...errorHeaders(error) });
  run.sink.end(openaiErrorBody(error));
  gateway.count(run, { status, code: error.code });
}
