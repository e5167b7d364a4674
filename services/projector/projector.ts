import type { ProjectionName, RowsOf, TableOf } from "#projections/all.ts";
import type { Projector, RebuildProgress } from "#services/ports.ts";
import { reaches, type Lane, type Place } from "./lane.ts";
import { startRebuild } from "./rebuild.ts";
import { createRunning, feed, type ProjectorParts, type Running } from "./running.ts";

/**
 * Folds the store's events into read models: one reading of the store feeds all projections, from the lowest
 * checkpoint on; each skips what it has. Rows and checkpoint of a projection move together, in batches, and only
 * positions of events that were folded are stored.
 *
 * A read model that cannot be stored is tried again until it can, and nothing new is read meanwhile. An event that
 * cannot be read, or that a fold refuses, stops what it concerns, with an alarm: no event is ever skipped. The read
 * models stay the caller's to close.
 */
export async function startProjector(parts: ProjectorParts): Promise<Projector> {
  const running = await createRunning(parts);
  const fed = feed(running);
  const stop = () => running.stop(new Error("the projector was stopped"));
  if (parts.signal.aborted) stop();
  else parts.signal.addEventListener("abort", stop, { once: true });

  return {
    rows: (...asked) => rows(running, ...asked),
    rebuild: (projection, onProgress) => rebuild(running, projection, onProgress),
    async close() {
      if (!running.stopped.signal.aborted) await running.turn(() => running.commitAll());
      stop();
      parts.signal.removeEventListener("abort", stop);
      await fed;
    },
  };
}

function laneOf(running: Running, projection: ProjectionName): Lane {
  const lane = running.lanes.find((candidate) => candidate.projection.name === projection);
  if (!lane) throw new Error(`there is no projection ${projection}`);
  return lane;
}

async function rows<Name extends ProjectionName>(
  running: Running,
  projection: Name,
  atLeast: Place,
  tables?: readonly TableOf<Name>[],
): Promise<{ position: Place; rows: RowsOf<Name> }> {
  const lane = laneOf(running, projection);
  if (lane.failure) throw lane.failure;
  // What this projection wrote under its name and version is of its shape.
  const answer = running.waiters.wait(lane, atLeast, tables) as ReturnType<typeof rows<Name>>;
  void running.turn(async () => {
    if (reaches(lane.folded, atLeast)) await running.commitAll();
  });
  return answer;
}

async function rebuild(
  running: Running,
  projection: ProjectionName,
  onProgress: (progress: RebuildProgress) => void,
): Promise<RebuildProgress> {
  const lane = laneOf(running, projection);
  if (running.rebuilding !== undefined)
    throw new Error(`the read model ${running.rebuilding} is being rebuilt; one at a time`);
  running.rebuilding = projection;
  try {
    return await rebuildLane(running, lane, onProgress);
  } finally {
    running.rebuilding = undefined;
  }
}

/** The part that moves no lane runs beside everything else; only the last events and the swap take a turn. */
async function rebuildLane(
  running: Running,
  lane: Lane,
  onProgress: (progress: RebuildProgress) => void,
): Promise<RebuildProgress> {
  const { parts, signal } = running;
  const { projection } = lane;
  // What was found wrong has been told when it was first folded.
  let silent = true;
  const aside = await startRebuild({
    ...parts,
    signal,
    projection,
    onFault: (what, facts) => {
      if (!silent) parts.onAlarm(what, facts);
    },
  });
  await aside.catchUp(onProgress);
  return running.turn(async () => {
    const done = await aside.finish(running.seen());
    if (signal.aborted) throw new Error("the projector was stopped");
    try {
      lane.model = await parts.readModels.swapIn(projection.name);
    } catch (error) {
      running.fail(lane, new Error(`the rebuilt ${projection.name} was not put in place`));
      throw error;
    }
    silent = false;
    const { fold, folded, newest, committed } = aside.lane;
    Object.assign(lane, {
      fold,
      folded,
      newest,
      committed,
      unsaved: undefined,
      failure: undefined,
    });
    running.releaseIfSaved();
    await running.waiters.serve(lane);
    return done;
  });
}
