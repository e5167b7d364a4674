import { buildCatalogue } from "#domain/catalogue/build.ts";
import type { GatewayRequest, Sink } from "#services/gateway/parts.ts";
import type { Faults } from "./faults.ts";
import type { SimProcess } from "./process.ts";
import type { Dice } from "./random.ts";
import type { Timeline } from "./timeline.ts";

/** What a client asks. */
export interface Asking {
  readonly keyText: string;
  readonly model: string;
  readonly stream: boolean;
  readonly outputTokensMax: number;
  /** Words for the simulated upstream, with their brackets; may be empty. */
  readonly directives: string;
  /** Leaves after this long; undefined stays to the end. Milliseconds. */
  readonly leavesAfterMs?: number;
  /** Takes this long for each piece; 0 takes everything at once. Milliseconds. */
  readonly slowMs: number;
}

/** What a client has seen so far. */
export interface Seen {
  readonly asking: Asking;
  readonly askedAtMs: number;
  requestId: string | undefined;
  status: number | undefined;
  code: string | undefined;
  /** The answer came whole: a body with its end, or a stream with `[DONE]`. */
  complete: boolean;
  /** Nothing more will come: the answer ended, the connection broke, or the client left. */
  over: boolean;
  left: boolean;
}

const LEFT_OVER = "data: [DONE]";

/** The request as the gateway's listener hands it on. */
export function requestOf(asking: Asking): GatewayRequest {
  const bytes = Buffer.from(
    JSON.stringify({
      model: asking.model,
      messages: [{ role: "user", content: `Please say something. ${asking.directives}` }],
      max_tokens: asking.outputTokensMax,
      ...(asking.stream ? { stream: true } : {}),
    }),
  );
  return {
    method: "POST",
    headers: {
      authorization: `Bearer ${asking.keyText}`,
      "content-type": "application/json",
      "content-length": String(bytes.length),
    },
    remoteAddress: "127.0.0.1",
    body: (_bytesMax, room) => Promise.resolve(room.take(bytes.length) ? bytes : "no_room"),
  };
}

/** A client's end of one request: what it sees, and the sink that the gateway writes into. */
export function createClient(
  timeline: Timeline,
  process: SimProcess,
  asking: Asking,
): { seen: Seen; sink: Sink; leave: () => void } {
  const seen: Seen = {
    asking,
    askedAtMs: timeline.nowMs(),
    requestId: undefined,
    status: undefined,
    code: undefined,
    complete: false,
    over: false,
    left: false,
  };
  let told = { drained: () => {}, gone: () => {} };
  let isGone = false;
  let text = "";

  /** The connection is closed from either side before the answer ended. */
  function breakOff(): void {
    if (seen.over) return;
    seen.over = true;
    process.deliver(() => {
      if (isGone) return;
      isGone = true;
      told.gone();
    });
  }
  process.onEnd(() => {
    seen.over = true;
  });
  function take(bytes: Uint8Array | string): void {
    if (seen.over || !process.isAlive()) return;
    text += typeof bytes === "string" ? bytes : Buffer.from(bytes).toString("utf8");
  }
  if (asking.leavesAfterMs !== undefined)
    timeline.after(asking.leavesAfterMs, () => {
      if (seen.over) return;
      seen.left = true;
      breakOff();
    });

  return {
    seen,
    leave: breakOff,
    sink: {
      head(status, headers) {
        if (seen.over || !process.isAlive()) return;
        seen.status = status;
        seen.requestId = headers["x-request-id"];
      },
      write(bytes) {
        take(bytes);
        if (asking.slowMs === 0 || isGone || seen.over) return true;
        timeline.after(asking.slowMs, () => process.deliver(() => told.drained()));
        return false;
      },
      end(bytes) {
        if (bytes !== undefined) take(bytes);
        if (seen.over || !process.isAlive()) return;
        seen.over = true;
        seen.complete = seen.status === 200 && (!asking.stream || text.includes(LEFT_OVER));
        seen.code = /"code":"([a-z_]+)"/.exec(text)?.[1];
      },
      destroy: breakOff,
      listen(events) {
        told = events;
      },
      isGone: () => isGone,
    },
  };
}

/** The ways in which the simulated upstream fails, by directive. */
const FAILURES = [
  "hang-up",
  "garbage",
  "no-done",
  "no-usage",
  "status=400",
  "status=401",
  "status=429 retry-after=3",
  "status=500",
  "status=503",
  "reset-after=0",
  "reset-after=1",
  "reset-after=4",
  "end-after=0",
  "end-after=3",
  "stall-after=0",
  "stall-after=2",
  "error-after=0",
  "error-after=3",
] as const;

/** What can be asked for in every simulated world. */
export const CATALOGUE = buildCatalogue({
  openai: false,
  simulator: true,
  processingArea: "us",
});

const MODELS = ["sim-flat", "sim-small", "sim-large", "sim-tiers"] as const;

/** Draws what a client asks: most are ordinary, some leave, some are slow, some meet a failing upstream. */
export function drawAsking(dice: Dice, faults: Faults, keyText: string): Asking {
  const outputTokensMax = dice.between(5, 120);
  const stream = dice.chance(0.6);
  const words = [`output=${dice.between(1, outputTokensMax)}`];
  if (dice.chance(0.5)) words.push(`first=${dice.between(1, 800)}`);
  if (stream) words.push(`chunks=${dice.between(1, 5)}`);
  if (stream && dice.chance(0.5)) words.push(`delay=${dice.between(1, 200)}`);
  if (dice.chance(0.2))
    words.push(`input=${dice.between(100, 400)} cached=${dice.between(0, 100)}`);
  if (faults.strikes("upstream_failed")) {
    // Usage above the hold is one of the failures: the excess must be taken, or be the company's expense.
    if (dice.chance(0.4)) words[0] = `output=${outputTokensMax * dice.between(2, 6)}`;
    else words.push(dice.pick(FAILURES));
  }
  return {
    keyText,
    model: dice.pick(MODELS),
    stream,
    outputTokensMax,
    directives: `[sim ${words.join(" ")}]`,
    ...(faults.strikes("client_left") ? { leavesAfterMs: dice.between(0, 2_000) } : {}),
    slowMs: faults.strikes("client_slow") ? dice.between(1, 400) : 0,
  };
}
