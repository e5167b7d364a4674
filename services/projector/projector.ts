import type { ProjectionName, RowsOf, TableOf } from "#projections/all.ts";
import type { Slice } from "#projections/rows.ts";
import type { Projector } from "#services/ports.ts";
import { reaches, type Lane, type Place } from "./lane.ts";
import { rebuildLane } from "./rebuild.ts";
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
  let rebuilding: string | undefined;
  return {
    rows: (...asked) => rows(running, ...asked),
    async rebuild(projection, onProgress) {
      const lane = laneOf(running, projection);
      if (rebuilding !== undefined)
        throw new Error(`the read model ${rebuilding} is being rebuilt; one at a time`);
      rebuilding = projection;
      try {
        return await rebuildLane(running, lane, onProgress);
      } finally {
        rebuilding = undefined;
      }
    },
    state: () => Promise.resolve(running.state()),
    async close() {
      if (!running.signal.aborted) await running.turn(() => running.commitAll());
      running.stop();
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
  slice?: Slice,
): Promise<{ position: Place; rows: RowsOf<Name> }> {
  const lane = laneOf(running, projection);
  if (lane.failure) throw lane.failure;
  // What this projection wrote under its name and version is of its shape.
  const answer = running.waiters.wait(lane, atLeast, tables, slice) as ReturnType<
    typeof rows<Name>
  >;
  void running.turn(async () => {
    if (reaches(lane.folded, atLeast)) await running.commitAll();
  });
  return answer;
}
