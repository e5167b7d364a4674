import type { PackedRows, Slice } from "#projections/rows.ts";
import type { Clock } from "#services/ports.ts";
import { reaches, type Lane, type Place } from "./lane.ts";

type Answer = { position: Place; rows: PackedRows };

interface Waiter {
  readonly lane: Lane;
  readonly atLeast: Place;
  readonly tables: readonly string[] | undefined;
  readonly slice: Slice | undefined;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

const WAITERS_MAX = 1_000;

/** Those who wait for the rows of a read model. A wait ends when the read model has not moved for `stillMsMax`. */
export function createWaiters(clock: Clock, stillMsMax: number) {
  const waiters = new Set<Waiter>();

  /** Resolves once the rows are committed up to a place; what calls it sees to it that `serve` comes. */
  async function wait(
    lane: Lane,
    atLeast: Place,
    tables?: readonly string[],
    slice?: Slice,
  ): Promise<Answer> {
    if (waiters.size >= WAITERS_MAX) throw new Error("too many wait for read models at once");
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const waiter: Waiter = { lane, atLeast, tables, slice, resolve, reject };
    let cancel: () => void;
    const watch = (before: Place) => {
      cancel = clock.timer(stillMsMax, () => {
        if (lane.committed === before) reject(stoodStill(lane, atLeast, stillMsMax));
        else watch(lane.committed);
      });
    };
    watch(lane.committed);
    waiters.add(waiter);
    return promise.finally(() => {
      cancel();
      waiters.delete(waiter);
    });
  }

  function of(lane: Lane, place: Place): Waiter[] {
    return [...waiters].filter((one) => one.lane === lane && reaches(place, one.atLeast));
  }

  return {
    wait,
    /** Whether somebody waits for what the lane has folded. */
    isDue: (lane: Lane): boolean => of(lane, lane.folded).length > 0,
    /** Answers those whose place is committed. Never throws. */
    async serve(lane: Lane): Promise<void> {
      const served = of(lane, lane.committed);
      if (served.length === 0) return;
      const position = lane.committed;
      try {
        // Those who want the same are given the same.
        const found = new Map<string, PackedRows>();
        for (const waiter of served) {
          const { tables, slice } = waiter;
          const wanted = JSON.stringify([tables, slice]);
          const rows = found.get(wanted) ?? (await lane.model.rows(tables, slice));
          found.set(wanted, rows);
          waiter.resolve({ position, rows });
        }
      } catch (error) {
        const { name } = lane.projection;
        const failure = new Error(`the rows of ${name} cannot be read`, { cause: error });
        for (const waiter of served) waiter.reject(failure);
      }
    },
    /** Turns everybody away who waits for a lane that stands still for good. */
    fail(lane: Lane, error: Error): void {
      for (const waiter of waiters) if (waiter.lane === lane) waiter.reject(error);
    },
  };
}

function stoodStill(lane: Lane, atLeast: Place, stillMsMax: number): Error {
  const { name } = lane.projection;
  return new Error(
    `the read model ${name} stands at ${lane.committed} and did not move towards ${atLeast} for ${stillMsMax} ms`,
  );
}
