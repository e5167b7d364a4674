import type { RebuildProgress } from "#services/ports.ts";
import { foldInto, openLaneAside, reaches, save, type Lane, type Place } from "./lane.ts";
import type { Running } from "./running.ts";

/**
 * Folds a lane's read model anew, from the first event, beside the one in use, and puts it in its place. Throws when
 * the store or the read model fails: the rebuild is then over, and the read model in use is as it was.
 */
export async function rebuildLane(
  running: Running,
  lane: Lane,
  onProgress: (progress: RebuildProgress) => void,
): Promise<RebuildProgress> {
  const { signal } = running;
  const { store, readModels, batchEventsMax, onAlarm } = running.parts;
  const { projection } = lane;
  // What was found wrong has been told when it was first folded.
  let silent = true;
  const aside = await openLaneAside(projection, readModels, store, (what, facts) => {
    if (!silent) onAlarm(what, facts);
  });
  let eventsDone = 0;
  let head: Place = "start";

  function progress(): RebuildProgress {
    return { projection: projection.name, eventsDone, position: aside.folded, head };
  }

  /** Folds and stores up to a place that the store has. */
  async function foldTo(goal: Place, onSaved: () => void): Promise<void> {
    let pending = 0;
    if (!reaches(aside.folded, goal)) {
      for await (const events of store.follow({ after: aside.folded, signal })) {
        foldInto(aside, events);
        eventsDone += events.length;
        pending += events.length;
        if (reaches(aside.folded, goal)) break;
        if (pending < batchEventsMax) continue;
        pending = 0;
        await save(aside);
        onSaved();
      }
    }
    if (!reaches(aside.folded, goal))
      throw new Error(`the rebuild of ${projection.name} was stopped before it was done`);
    await save(aside);
    onSaved();
  }

  // The store grows meanwhile; each round is shorter than the one before, and a short one is left to the end.
  let before: number;
  do {
    before = eventsDone;
    head = await store.head();
    await foldTo(head, () => onProgress(progress()));
  } while (eventsDone - before > batchEventsMax);

  // What moves no lane ran beside everything else; the last events and the swap take a turn.
  return running.turn(async () => {
    await foldTo(running.seen(), () => undefined);
    if (reaches(aside.folded, head)) head = aside.folded;
    if (signal.aborted) throw new Error("the projector was stopped");
    aside.model = await readModels.swapIn(projection.name).catch((error: unknown) => {
      running.fail(lane, new Error(`the rebuilt ${projection.name} was not put in place`));
      throw error;
    });
    silent = false;
    Object.assign(lane, aside);
    running.releaseIfSaved();
    await running.waiters.serve(lane);
    return progress();
  });
}
