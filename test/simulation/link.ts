import type { Dice } from "./random.ts";
import type { FaultKind, Faults } from "./faults.ts";
import type { SimProcess } from "./process.ts";
import type { Timeline } from "./timeline.ts";

/** A caller's patience with a server that does not answer. Milliseconds. */
const PATIENCE_MS = { low: 200, high: 1_500 };
const SLOW_MS = { low: 50, high: 4_000 };

export interface LinkParts {
  readonly timeline: Timeline;
  readonly faults: Faults;
  /** Delays of one process's calls to one server. */
  readonly dice: Dice;
  readonly process: SimProcess;
  readonly server: "store" | "admission" | "directory" | "disk";
  /** The server is a part of the process itself: what had not arrived when it ended never does. */
  readonly inProcess: boolean;
  /** The usual longest way there, or back. Milliseconds. */
  readonly usualMs: number;
}

export interface Call<T> {
  readonly method: string;
  /** What the call does on the server. */
  effect(): Promise<T>;
  /** What the caller is given when no answer came in time; throws where the port rejects. */
  unanswered(): T;
  /** The kinds of fault that this call may meet. */
  readonly lost?: FaultKind;
  readonly replyLost?: FaultKind;
  readonly late?: FaultKind;
  /** Called when the request has arrived: a network that repeats it may do so from then on. */
  arrived?(): void;
}

/** One process's connection to one server: calls arrive in their order, each after a delay; crashes strike here. */
export interface Link {
  call<T>(call: Call<T>): Promise<T>;
  /** Resolves after a delay in which the process may end; then it never does. */
  wait(method: string): Promise<void>;
}

export function createLink(parts: LinkParts): Link {
  const { timeline, faults, dice, process, server, usualMs, inProcess } = parts;
  let lastArrivalMs = 0;

  function delayMs(): number {
    if (faults.strikes("slow")) return dice.between(SLOW_MS.low, SLOW_MS.high);
    return dice.next() * dice.next() * usualMs;
  }

  function crashesAt(method: string, when: "before" | "after"): boolean {
    if (!process.isAlive()) return true;
    if (!faults.crashesAt(`${process.kind} ${server}.${method} ${when}`)) return false;
    process.end();
    return true;
  }

  return {
    call: (call) =>
      new Promise((resolve, reject) => {
        if (crashesAt(call.method, "before")) return;
        const back = (afterMs: number, run: () => void) => {
          timeline.after(afterMs, () => process.deliver(run));
        };
        const giveUp = (afterMs: number) => {
          back(afterMs, () => {
            try {
              resolve(call.unanswered());
            } catch (error) {
              reject(error instanceof Error ? error : new Error(String(error)));
            }
          });
        };
        const patienceMs = dice.between(PATIENCE_MS.low, PATIENCE_MS.high);
        if (call.lost && faults.strikes(call.lost)) return giveUp(patienceMs);
        if (call.late && faults.strikes(call.late)) {
          giveUp(patienceMs);
          timeline.after(
            patienceMs + dice.between(1, 3_000),
            () => void call.effect().catch(() => {}),
          );
          return;
        }
        const replyIsLost = call.replyLost !== undefined && faults.strikes(call.replyLost);
        const arrivalMs = Math.max(lastArrivalMs, timeline.nowMs() + delayMs());
        lastArrivalMs = arrivalMs;
        timeline.after(arrivalMs - timeline.nowMs(), () => {
          // What was sent to a server arrives although its sender has ended.
          if (inProcess && !process.isAlive()) return;
          call.effect().then(
            (value) => {
              call.arrived?.();
              if (crashesAt(call.method, "after")) return;
              if (replyIsLost) giveUp(patienceMs);
              else back(delayMs(), () => resolve(value));
            },
            (error: unknown) =>
              back(delayMs(), () =>
                reject(error instanceof Error ? error : new Error(String(error))),
              ),
          );
        });
      }),
    wait: (method) =>
      new Promise((resolve) => {
        if (crashesAt(method, "before")) return;
        timeline.after(delayMs(), () =>
          process.deliver(() => {
            if (!crashesAt(method, "after")) resolve();
          }),
        );
      }),
  };
}
