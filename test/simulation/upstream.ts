import { planAnswer, type AnswerPlan } from "#services/simulator/answer.ts";
import { readRequest } from "#services/simulator/request.ts";
import type { Tokens } from "#domain/prices.ts";
import type { Upstream, UpstreamCall, UpstreamFailure, UpstreamReceiver } from "#services/ports.ts";
import type { Faults } from "./faults.ts";
import type { SimProcess } from "./process.ts";
import type { Dice } from "./random.ts";
import type { Timeline } from "./timeline.ts";

/** A call that reached the upstream, as the upstream wrote it down. */
export interface BookEntry {
  readonly requestId: string;
  readonly model: string;
  readonly atMs: number;
  /** What the upstream charges for it; empty for an error or garbage. */
  readonly tokens: Tokens;
  /** The whole right answer went out and somebody was there to take it. */
  finished: boolean;
  clientGone: boolean;
  usageSent: boolean;
}

const CONNECT_MS_MAX = 20;
const IDLE_MS = 60_000;

export interface UpstreamWorld {
  readonly timeline: Timeline;
  readonly faults: Faults;
  readonly dice: Dice;
  readonly book: BookEntry[];
  /** Called when a process sends a call, before anything else happens. */
  readonly onSend: (call: UpstreamCall) => void;
  /** While it gives a promise, answers are held back until that is kept. */
  readonly heldBack?: (requestId: string) => Promise<void> | undefined;
}

/** The upstream as one gateway process reaches it: the simulated host's own answers, with delays. */
export function simulatedUpstream(world: UpstreamWorld, process: SimProcess): Upstream {
  return {
    send(call, receiver) {
      const idle = { abort: () => {}, resume: () => {} };
      if (!process.isAlive()) return idle;
      world.onSend(call);
      if (world.faults.crashesAt(`${process.kind} upstream.send before`)) {
        process.end();
        return idle;
      }
      const exchange = createExchange(world, process, call, receiver);
      if (world.faults.crashesAt(`${process.kind} upstream.send after`)) process.end();
      return exchange;
    },
  };
}

/** Sends one planned answer, piece by piece; every pause and failure is one of the plan's or of the network's. */
function createExchange(
  world: UpstreamWorld,
  process: SimProcess,
  call: UpstreamCall,
  receiver: UpstreamReceiver,
) {
  const { timeline, dice } = world;
  let over = false;
  let waiting = false;
  let goOn: (() => void) | undefined;
  let cancelIdle = () => {};
  let entry: BookEntry | undefined;

  /** The caller's end of the connection is closed. */
  function gone(): void {
    if (over) return;
    over = true;
    cancelIdle();
    if (entry) entry.clientGone = true;
  }
  process.onEnd(gone);

  const tell = (run: () => void) =>
    process.deliver(() => {
      if (!over) run();
    });
  function fail(failure: UpstreamFailure): void {
    tell(() => {
      over = true;
      cancelIdle();
      receiver.failed(failure);
    });
  }
  function armIdle(failure: UpstreamFailure): void {
    cancelIdle();
    cancelIdle = process.clock.timer(IDLE_MS, () => fail(failure));
  }

  function arrive(): void {
    if (over) return;
    if (world.faults.strikes("connect_failed")) return fail("connect");
    const request = readRequest(JSON.parse(Buffer.from(call.body).toString("utf8")));
    const stamp = { id: `chatcmpl-${call.requestId}`, createdUnix: 0 };
    const plan = planAnswer(request, stamp);
    entry = {
      requestId: call.requestId,
      model: request.model,
      atMs: timeline.nowMs(),
      tokens: plan.tokens,
      finished: false,
      clientGone: false,
      usageSent: false,
    };
    world.book.push(entry);
    armIdle("first_byte_timeout");
    const { first = 0, delay = 0 } = request.directives;
    const begin = () => {
      timeline.after(first + dice.next() * CONNECT_MS_MAX, () => answer(plan, delay));
    };
    const held = world.heldBack?.(call.requestId);
    if (held) void held.then(begin);
    else begin();
  }

  function answer(plan: AnswerPlan, delayMs: number): void {
    if (over) return;
    if (plan.cut?.how === "hang-up") return fail("reset");
    tell(() => {
      const headers: Record<string, string> = { "content-type": plan.contentType };
      if (plan.retryAfterSeconds !== undefined)
        headers["retry-after"] = String(plan.retryAfterSeconds);
      receiver.head(plan.status, headers);
    });
    const pieces = piecesOf(plan);
    const after = plan.cut ? plan.cut.after : Infinity;
    let sent = 0;
    function next(): void {
      if (over) return;
      if (waiting) {
        goOn = next;
        return;
      }
      const piece = sent < after ? pieces.next() : undefined;
      if (!piece || piece.done) return finish();
      sent += 1;
      tell(() => {
        armIdle("idle_timeout");
        if (entry && piece.value.tellsUsage) entry.usageSent = true;
        if (!receiver.data(Buffer.from(piece.value.text)) && !over) waiting = true;
      });
      timeline.after(delayMs + dice.next() * 5, next);
    }
    function finish(): void {
      if (plan.cut?.how === "stall") return;
      if (plan.cut?.how === "reset") return fail("reset");
      tell(() => {
        over = true;
        cancelIdle();
        if (entry && plan.complete) entry.finished = true;
        // A whole body tells its usage only when it has come to its end.
        if (entry && plan.tellsUsage && !plan.cut) entry.usageSent = true;
        receiver.end();
      });
    }
    next();
  }

  timeline.after(dice.next() * CONNECT_MS_MAX, arrive);
  return {
    abort: gone,
    resume() {
      waiting = false;
      const run = goOn;
      goOn = undefined;
      if (run) timeline.after(0, run);
    },
  };
}

/** A whole body comes in two halves, a stream event by event. */
function* piecesOf(plan: AnswerPlan): Generator<{ text: string; tellsUsage: boolean }> {
  const { body } = plan;
  if (typeof body !== "string") {
    yield* body;
    return;
  }
  const middle = body.length >> 1;
  yield { text: body.slice(0, middle), tellsUsage: false };
  yield { text: body.slice(middle), tellsUsage: false };
}
