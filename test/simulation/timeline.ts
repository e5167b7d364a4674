/** The virtual time of a simulated world: callbacks in the order in which they are due. No real time passes. */
export interface Timeline {
  /** Milliseconds since the world began; fractions are allowed. */
  nowMs(): number;
  /** Calls back after a delay; the returned function cancels. Callbacks due at the same time keep their order. */
  after(delayMs: number, run: () => void): () => void;
  /** Runs the next callback and everything that follows from it at once. False when nothing is due any more. */
  step(): Promise<boolean>;
  /** When the next callback is due, or undefined when there is none. */
  nextMs(): number | undefined;
}

/** Parts of a millisecond: a power of two, so that sums of delays are exact and a wait is over when it is over. */
const TICKS = 1024;

interface Due {
  readonly atMs: number;
  readonly number: number;
  run: (() => void) | undefined;
}

/** Node runs every microtask, and those they make, before an immediate: after one, nothing is left to do at this moment. */
export function settled(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

export function createTimeline(): Timeline {
  const heap: Due[] = [];
  let now = 0;
  let made = 0;

  const isBefore = (one: Due, other: Due) =>
    one.atMs < other.atMs || (one.atMs === other.atMs && one.number < other.number);

  function push(due: Due): void {
    heap.push(due);
    for (let at = heap.length - 1; at > 0;) {
      const above = (at - 1) >> 1;
      const [child, parent] = [heap[at], heap[above]];
      if (!child || !parent || !isBefore(child, parent)) return;
      heap[at] = parent;
      heap[above] = child;
      at = above;
    }
  }

  function pop(): Due | undefined {
    const top = heap[0];
    const last = heap.pop();
    if (!top || !last || top === last) return top;
    heap[0] = last;
    for (let at = 0; ;) {
      let least = at;
      for (const below of [2 * at + 1, 2 * at + 2]) {
        const [child, chosen] = [heap[below], heap[least]];
        if (child && chosen && isBefore(child, chosen)) least = below;
      }
      if (least === at) return top;
      const [parent, child] = [heap[at], heap[least]];
      if (!parent || !child) return top;
      heap[at] = child;
      heap[least] = parent;
      at = least;
    }
  }

  function forgetCancelled(): void {
    while (heap.length > 0 && !heap[0]?.run) pop();
  }

  return {
    nowMs: () => now,
    after(delayMs, run) {
      if (!(delayMs >= 0)) throw new RangeError(`nothing can be due after ${delayMs} ms`);
      const due: Due = { atMs: now + Math.ceil(delayMs * TICKS) / TICKS, number: made++, run };
      push(due);
      return () => {
        due.run = undefined;
      };
    },
    nextMs() {
      forgetCancelled();
      return heap[0]?.atMs;
    },
    async step() {
      forgetCancelled();
      const due = pop();
      if (!due) return false;
      now = due.atMs;
      due.run?.();
      await settled();
      return true;
    },
  };
}
