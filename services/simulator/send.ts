import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { Clock } from "#services/ports.ts";
import type { AnswerPlan } from "./answer.ts";
import type { CallEnding } from "./book.ts";
import { firstHalf } from "./chunks.ts";
import type { Directives } from "./directives.ts";
import type { Gates } from "./gates.ts";

/** No answer is held back and no stream stalls for longer: 10 minutes. */
const PATIENCE_MS = 600_000;

/** An answer and everything that its sending depends on. */
export interface Sending {
  readonly plan: AnswerPlan;
  readonly waits: Pick<Directives, "hold" | "first" | "delay">;
  readonly headers: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly gates: Gates;
}

export type SendOutcome = Pick<CallEnding, "finished" | "clientGone" | "usageSent">;

/**
 * Sends an answer as planned, with its waits and failures, no faster than the caller takes it. Comes back when the
 * answer has gone out or the connection is closed. A name that nobody releases lets its answers go after 10 minutes.
 */
export async function sendAnswer(sending: Sending, res: ServerResponse): Promise<SendOutcome> {
  const { plan, clock } = sending;
  const { hold, first } = sending.waits;
  const cut = plan.cut?.how;
  if (hold !== undefined) {
    await waitFor(res, (wake) => {
      const cancels = [clock.timer(PATIENCE_MS, wake), sending.gates.wait(hold, wake)];
      return () => cancels.forEach((cancel) => cancel());
    });
  }
  if (first) await waitFor(res, (wake) => clock.timer(first, wake));
  if (res.closed) return { finished: false, clientGone: true, usageSent: false };
  if (cut === "hang-up") {
    res.socket?.resetAndDestroy();
    return { finished: false, clientGone: false, usageSent: false };
  }
  writeHead(sending, res);
  const whole = typeof plan.body === "string" && cut === undefined ? plan.body : undefined;
  const usageSent = whole === undefined ? await sendEvents(sending, res) : plan.tellsUsage;
  if (cut === "stall") await waitFor(res, (wake) => clock.timer(PATIENCE_MS, wake));
  // What was sent before is to arrive: the connection is closed behind it and not reset over it.
  if (cut === "reset")
    await waitFor(res, (wake) => {
      res.socket?.write("", () => wake());
      return () => undefined;
    });
  if (!res.closed && (cut === "stall" || cut === "reset")) {
    res.socket?.destroy();
    return { finished: false, clientGone: false, usageSent };
  }
  if (!res.closed) await once(res.end(whole), "close");
  return {
    finished: plan.complete && res.writableFinished,
    clientGone: !res.writableFinished,
    usageSent,
  };
}

function writeHead({ plan, headers }: Sending, res: ServerResponse): void {
  const all: Record<string, string | number> = { ...headers, "content-type": plan.contentType };
  if (plan.retryAfterSeconds !== undefined) all["retry-after"] = plan.retryAfterSeconds;
  // A body that is to end too early must look whole to HTTP, so its full length is not announced.
  if (typeof plan.body === "string" && plan.cut?.how !== "end")
    all["content-length"] = Buffer.byteLength(plan.body);
  res.writeHead(plan.status, all);
}

/** Sends the events up to the cut; says whether usage was among them. Of a whole body the first half is the only one. */
async function sendEvents({ plan, waits, clock }: Sending, res: ServerResponse): Promise<boolean> {
  const { body, cut } = plan;
  const events = typeof body === "string" ? [{ text: firstHalf(body), tellsUsage: false }] : body;
  const sentMax = cut && "after" in cut ? cut.after : Infinity;
  const { delay = 0 } = waits;
  let sent = 0;
  let usageSent = false;
  res.flushHeaders();
  for (const event of events) {
    if (sent >= sentMax) break;
    if (delay > 0 && sent > 0) await waitFor(res, (wake) => clock.timer(delay, wake));
    if (res.closed) break;
    const room = res.write(event.text);
    sent += 1;
    usageSent ||= event.tellsUsage;
    if (!room) {
      await waitFor(res, (wake) => {
        res.once("drain", wake);
        return () => res.off("drain", wake);
      });
    }
  }
  return usageSent;
}

/** Waits until the callback is called that `arm` gets, or until the caller leaves; `arm` returns how to give up. */
async function waitFor(res: ServerResponse, arm: (wake: () => void) => () => void): Promise<void> {
  if (res.closed) return;
  const { promise, resolve: wake } = Promise.withResolvers<void>();
  res.once("close", wake);
  const giveUp = arm(wake);
  await promise;
  giveUp();
  res.off("close", wake);
}
