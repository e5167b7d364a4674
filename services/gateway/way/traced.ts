import { knownServed } from "#domain/catalogue/lookup.ts";
import { totalInput, totalOutput } from "#domain/prices.ts";
import type { Catalogue } from "#domain/catalogue/types.ts";
import type { AnswerFault, Said } from "#services/gateway/shapes/shape.ts";
import type { CallTrace } from "#services/ports.ts";
import type { Answer } from "./answer.ts";
import type { Broken, Ended, Forwarded } from "./forward.ts";

/** What is known of a call before it is sent. */
type Called = Pick<
  CallTrace,
  "operation" | "host" | "baseUrl" | "model" | "isStream" | "outputCapTokens"
>;

/** Adds a call that has just ended to the trace of its request; only where somebody asked for traces. */
export function traceCall(
  { calls, beganMs: arrivedMs }: Answer,
  called: Called,
  forwarded: Forwarded,
  ended: Ended,
  nowMs: number,
): void {
  const { beganMs } = forwarded;
  const firstByteAtMs = forwarded.firstByteAtMs();
  calls?.push({
    ...called,
    beganMs: beganMs - arrivedMs,
    durationMs: nowMs - beganMs,
    firstByteMs: firstByteAtMs === undefined ? undefined : firstByteAtMs - beganMs,
    status: forwarded.status() || undefined,
    error: errorOf(ended),
  });
}

/** The answer of the last call came whole and was of no use. */
export function traceFault({ calls }: Answer, error: AnswerFault): void {
  const last = calls?.pop();
  if (last) calls?.push({ ...last, error });
}

/** What the answer of the last call says of itself. An estimate of its tokens is ours and stays out. */
export function traceSaid({ calls }: Answer, catalogue: Catalogue, said: Said): void {
  const last = calls?.pop();
  const tokens = said.usage?.tokens;
  const used = tokens && { inputTokens: totalInput(tokens), outputTokens: totalOutput(tokens) };
  const servedModel = knownServed(catalogue, said.servedModel);
  if (last) calls?.push({ ...last, servedModel, ...used });
}

function errorOf(ended: Ended): string | undefined {
  switch (ended.how) {
    case "whole":
      return ended.status >= 200 && ended.status < 300 ? undefined : String(ended.status);
    case "stream_done":
      return undefined;
    case "client_left":
      return "client_gone";
    case "plain_cut":
      return "read_on_over" satisfies Broken;
    case "failed":
    case "stream_broke":
      return ended.why;
  }
}
