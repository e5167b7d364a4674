import type { ServerResponse } from "node:http";
import type { AnswerPlan } from "./answer.ts";
import type { StreamEvent } from "./chunks.ts";
import type { Directives } from "./directives.ts";
import type { Gates } from "./gates.ts";
import type { CallEnding } from "./book.ts";
import type { Clock } from "#services/ports.ts";

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
  const caller = watch(res);
  if (hold !== undefined) {
    await caller.waitFor((wake) => {
      const cancels = [clock.timer(PATIENCE_MS, wake), sending.gates.wait(hold, wake)];
      return () => cancels.forEach((cancel) => cancel());
    });
  }
  if (first) await caller.waitFor((wake) => clock.timer(first, wake));
  if (caller.gone()) return { finished: false, clientGone: true, usageSent: false };
  if (plan.cut?.how === "hang-up") {
    res.socket?.resetAndDestroy();
    return { finished: false, clientGone: false, usageSent: false };
  }
  writeHead(sending, res);
  let usageSent = false;
  if (typeof plan.body === "string" && plan.cut === undefined) {
    usageSent = plan.tellsUsage;
    res.end(plan.body);
  } else {
    usageSent = await sendEvents(sending, res, caller);
    if (await cutOff(sending, res, caller))
      return { finished: false, clientGone: false, usageSent };
  }
  if (!caller.gone()) await caller.closed;
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

/** Sends the events up to the cut; says whether usage was among them. The halves of a whole body count as two events. */
async function sendEvents(
  { plan, waits, clock }: Sending,
  res: ServerResponse,
  caller: Caller,
): Promise<boolean> {
  const { body } = plan;
  const whole = typeof body === "string";
  const events = whole ? halves(body, plan.tellsUsage) : body;
  const after = plan.cut === undefined || plan.cut.how === "hang-up" ? Infinity : plan.cut.after;
  const delay = whole ? 0 : (waits.delay ?? 0);
  const sentMax = whole ? Math.min(after, 1) : after;
  let sent = 0;
  let usageSent = false;
  res.flushHeaders();
  for (const event of events) {
    if (sent >= sentMax) break;
    if (delay > 0 && sent > 0) await caller.waitFor((wake) => clock.timer(delay, wake));
    if (caller.gone()) break;
    const room = res.write(event.text);
    sent += 1;
    usageSent ||= event.tellsUsage;
    if (!room) {
      await caller.waitFor((wake) => {
        res.once("drain", wake);
        return () => res.off("drain", wake);
      });
    }
  }
  return usageSent;
}

function halves(body: string, tellsUsage: boolean): StreamEvent[] {
  const middle = body.length >> 1;
  return [
    { text: body.slice(0, middle), tellsUsage: false },
    { text: body.slice(middle), tellsUsage },
  ];
}

/** Ends the answer, by its failure if it has one. True when the connection was closed from this side. */
async function cutOff(
  { plan, clock }: Sending,
  res: ServerResponse,
  caller: Caller,
): Promise<boolean> {
  const { socket } = res;
  if (plan.cut?.how === "stall") await caller.waitFor((wake) => clock.timer(PATIENCE_MS, wake));
  // What was sent before is to arrive: the connection is closed behind it and not reset over it.
  if (plan.cut?.how === "reset")
    await caller.waitFor((wake) => {
      socket?.write("", () => wake());
      return () => undefined;
    });
  if (caller.gone()) return false;
  if (plan.cut === undefined || plan.cut.how === "end") {
    res.end();
    return false;
  }
  socket?.destroy();
  return true;
}

/** The caller's end of the connection. */
interface Caller {
  gone(): boolean;
  /** Settles when the answer has gone out or the connection is closed. */
  readonly closed: Promise<void>;
  /** Waits until the callback is called that `arm` gets, or until the caller leaves; `arm` returns how to give up. */
  waitFor(arm: (wake: () => void) => () => void): Promise<void>;
}

function watch(res: ServerResponse): Caller {
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  let wakeUp: (() => void) | undefined;
  res.once("close", () => {
    resolve();
    wakeUp?.();
  });
  return {
    closed,
    gone: () => res.closed,
    waitFor(arm) {
      if (res.closed) return Promise.resolve();
      return new Promise((resume) => {
        let awake = false;
        let giveUp = (): void => undefined;
        wakeUp = () => {
          if (awake) return;
          awake = true;
          wakeUp = undefined;
          giveUp();
          resume();
        };
        const cancel = arm(wakeUp);
        // It may be time at once, before there was anything to give up.
        if (awake) cancel();
        else giveUp = cancel;
      });
    },
  };
}
