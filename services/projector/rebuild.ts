import type { OnFault, Projection } from "#projections/projection.ts";
import type { EventStore, ReadModels, RebuildProgress } from "#services/ports.ts";
import { foldInto, openLaneAside, reaches, save, type KnownStore, type Place } from "./lane.ts";

/**
 * Starts to fold a read model anew, from the first event, beside the one in use. What the fold finds wrong is told to `onFault`. Every step throws when the
 * store or the read model fails: the rebuild is then over, and the read model in use is as it was.
 */
export async function startRebuild(parts: {
  store: Pick<EventStore, "follow"> & KnownStore;
  readModels: ReadModels;
  projection: Projection;
  batchEventsMax: number;
  signal: AbortSignal;
  onFault: OnFault;
}) {
  const { store, projection, batchEventsMax, signal } = parts;
  const lane = await openLaneAside(projection, parts.readModels, store, parts.onFault);
  let eventsDone = 0;
  let head: Place = "start";

  function progress(): RebuildProgress {
    return { projection: projection.name, eventsDone, position: lane.folded, head };
  }

  /** Returns how many events it folded. */
  async function foldTo(goal: Place, onSaved: () => void): Promise<number> {
    const before = eventsDone;
    let pending = 0;
    if (!reaches(lane.folded, goal)) {
      for await (const events of store.follow({ after: lane.folded, signal })) {
        foldInto(lane, events);
        eventsDone += events.length;
        pending += events.length;
        if (reaches(lane.folded, goal)) break;
        if (pending < batchEventsMax) continue;
        pending = 0;
        await save(lane);
        onSaved();
      }
    }
    if (!reaches(lane.folded, goal))
      throw new Error(`the rebuild of ${projection.name} was stopped before it was done`);
    await save(lane);
    onSaved();
    return eventsDone - before;
  }

  return {
    lane,
    /** Folds and stores until little is left to fold; tells of each batch that it stored. */
    async catchUp(onProgress: (progress: RebuildProgress) => void): Promise<void> {
      // The store grows meanwhile; each round is shorter than the one before, and a short one is left to `finish`.
      let folded: number;
      do {
        head = await store.head();
        folded = await foldTo(head, () => onProgress(progress()));
      } while (folded > batchEventsMax);
    },
    /** Folds and stores the rest, up to a position that the store has. */
    async finish(position: Place): Promise<RebuildProgress> {
      await foldTo(position, () => undefined);
      if (reaches(lane.folded, head)) head = lane.folded;
      return progress();
    },
  };
}
