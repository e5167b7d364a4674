import type { RecordedEvent } from "#domain/events/events.ts";
import type { Fold, OnFault, Projection } from "#projections/projection.ts";
import { unpackRows, type ReadModelWrite } from "#projections/rows.ts";
import type {
  Checkpoint,
  EventMark,
  EventStore,
  ReadModel,
  ReadModels,
  Telemetry,
} from "#services/ports.ts";

/** A place in the store: the position of an event, or before the first. */
export type Place = bigint | "start";

/** Whether one place is at or past another. */
export function reaches(place: Place, other: Place): boolean {
  if (other === "start") return true;
  return place !== "start" && place >= other;
}

/** The earlier of two places. */
export function earlier(one: Place, other: Place): Place {
  return reaches(one, other) ? other : one;
}

/**
 * One projection on its way through the store: its fold and its read model.
 * `committed` ≤ `folded`; what lies between them is in the fold or in `unsaved`, never lost and never stored twice.
 */
export interface Lane {
  readonly projection: Projection;
  model: ReadModel;
  fold: Fold;
  folded: Place;
  committed: Place;
  /** The identity of the store that is folded. */
  readonly store: string;
  /** The event at `folded`; undefined as long as nothing was folded here. */
  newest: EventMark | undefined;
  /** Writes that were taken from the fold and could not be stored yet. */
  unsaved:
    | { readonly writes: readonly ReadModelWrite[]; readonly checkpoint: Checkpoint }
    | undefined;
  /** Why this projection stands still for good; a rebuild or a new start may help. */
  failure: Error | undefined;
}

/** What a lane needs to know of the store beside its events. */
export type KnownStore = Pick<EventStore, "head" | "identity" | "eventAt">;

/**
 * Opens a projection where its read model stands. One that was folded from other events than those in the store, which
 * a position alone would never tell, starts anew, with an alarm.
 */
export async function openLane(
  projection: Projection,
  readModels: ReadModels,
  store: KnownStore,
  onAlarm: Telemetry["alarm"],
): Promise<Lane> {
  const { name, version } = projection;
  const identity = await store.identity();
  const model = await readModels.open(name, version);
  const checkpoint = await model.checkpoint();
  const place = checkpoint === "start" ? checkpoint : checkpoint.position;
  const facts = { projection: name, checkpoint: String(place), head: String(await store.head()) };
  const found = place === "start" ? undefined : await store.eventAt(place);
  if (checkpoint !== "start" && !found) {
    onAlarm("read_model_ahead_of_store", facts);
  } else if (checkpoint !== "start" && !isOf(checkpoint, identity, found)) {
    onAlarm("read_model_of_another_store", facts);
  } else {
    return laneFrom(projection, model, identity, onAlarm, place);
  }
  await readModels.openAside(name, version);
  return laneFrom(projection, await readModels.swapIn(name), identity, onAlarm);
}

/** Whether a checkpoint was set in this very history of events. */
function isOf(checkpoint: Checkpoint, identity: string, found: EventMark | undefined): boolean {
  const { store, event } = checkpoint;
  return store === identity && event.id === found?.id && event.recordedAt === found.recordedAt;
}

/** A projection that starts from nothing, on an empty read model beside the one in use. */
export async function openLaneAside(
  projection: Projection,
  readModels: ReadModels,
  store: KnownStore,
  onFault: OnFault,
): Promise<Lane> {
  const identity = await store.identity();
  const model = await readModels.openAside(projection.name, projection.version);
  return laneFrom(projection, model, identity, onFault);
}

function laneFrom(
  projection: Projection,
  model: ReadModel,
  store: string,
  onFault: OnFault,
  place: Place = "start",
): Lane {
  const state = { newest: undefined, unsaved: undefined, failure: undefined };
  const at = { folded: place, committed: place };
  const fold = projection.open((...asked) => {
    try {
      return unpackRows(lane.model.rowsAt(...asked));
    } catch (error) {
      throw new NotRead(`${projection.name} cannot be read`, { cause: error });
    }
  }, onFault);
  const lane: Lane = { projection, model, fold, store, ...at, ...state };
  return lane;
}

/** What is stored could not be read. Nothing was folded of the event that asked for it, which may be tried again. */
export class NotRead extends Error {
  override readonly name = "NotRead";
}

/**
 * Folds those events that the lane does not have yet. Throws {@link NotRead}; and what the fold throws: then the lane is of
 * no more use.
 */
export function foldInto(lane: Lane, events: readonly RecordedEvent[]): void {
  const { fold } = lane;
  const { handles } = lane.projection;
  for (const event of events) {
    const { id, position, recordedAt } = event;
    if (lane.folded !== "start" && position <= lane.folded) continue;
    if (handles.has(event.type)) fold.apply(event);
    lane.folded = position;
    lane.newest = { id, recordedAt };
  }
}

/**
 * Stores what was folded, and the position with it. Throws when the read model refuses; the writes are then kept and
 * a later call stores the same ones (rows are set, so a commit that was done although it failed does no harm).
 */
export async function save(lane: Lane): Promise<void> {
  while (lane.unsaved || (!lane.failure && lane.folded !== lane.committed)) {
    if (!lane.unsaved) {
      const { folded: position, newest: event, store } = lane;
      if (position === "start" || !event) return;
      lane.unsaved = { writes: lane.fold.takeWrites(), checkpoint: { store, position, event } };
    }
    const { writes, checkpoint } = lane.unsaved;
    await lane.model.commit(writes, checkpoint);
    lane.committed = checkpoint.position;
    lane.unsaved = undefined;
  }
}
