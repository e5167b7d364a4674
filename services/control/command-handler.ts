import type { Decider, Fact } from "#domain/decider.ts";
import { newEvent, UnreadableEvent } from "#domain/events/events.ts";
import type { EventType } from "#domain/events/schemas.ts";
import type { Clock, EventStore, ExpectedRevision, Random } from "#services/ports.ts";
import { backOffMs, sleep } from "#services/waiting.ts";
import {
  appendOnce,
  eventsForward,
  metadataOf,
  StoreUnavailable,
  type Author,
} from "#services/writers.ts";

export interface CommandParts {
  readonly store: EventStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly author: Author;
}

/** A stream folded to its end. */
export interface Loaded<State> {
  readonly state: State;
  readonly revision: ExpectedRevision;
  /** Of its last event. */
  readonly position: bigint | "start";
}

export type Handled<State, Refusal> =
  /** `fresh` is false when the command had been carried out before and nothing was recorded now. */
  | (Loaded<State> & { readonly ok: true; readonly fresh: boolean })
  | { readonly ok: false; readonly refusal: Refusal };

/** Whoever finds others faster each time gives up after so long, or so many attempts. */
const CONFLICTS_MS_MAX = 5000;
const ATTEMPTS_MAX = 100;

/**
 * Carries out one command: load, decide, append at the revision that was decided on, and again when somebody else was
 * faster, after a random wait, so that those who met do not meet again. A command that says something about the state, which it must look up elsewhere, is made for each state that
 * was loaded. `commandId` is new for every call: it is part of the events' ids, so two callers who ask for the same thing
 * at once cannot both take the one event for theirs. Throws {@link StoreUnavailable}.
 */
export async function handleCommand<
  Command extends { readonly command: string },
  State,
  T extends EventType,
  R extends string,
>(
  parts: CommandParts,
  decider: Decider<Command, State, T, R>,
  stream: string,
  command: Command | ((loaded: Loaded<State>) => Promise<Command>),
  commandId: string,
): Promise<Handled<State, R>> {
  const { store, clock, random, author } = parts;
  const begunMs = clock.elapsed();
  let loaded: Loaded<State> | undefined;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    loaded = await load(parts, decider, stream, loaded);
    const now = typeof command === "function" ? await command(loaded) : command;
    const decision = decider.decide(now, loaded.state);
    if (typeof decision === "string") return { ok: false, refusal: decision };
    if (decision.length === 0) return { ok: true, fresh: false, ...loaded };
    const events = decision.map(({ type, data, key }) =>
      newEvent(stream, `${key}:${commandId}`, type, data, metadataOf(clock, author, commandId)),
    );
    const answer = await appendOnce(store, clock, stream, events, loaded.revision);
    if (answer.outcome === "appended")
      return { ok: true, fresh: true, ...(await load(parts, decider, stream, loaded)) };
    if (clock.elapsed() - begunMs >= CONFLICTS_MS_MAX) break;
    const [die = 0] = random.bytes(1);
    await sleep(clock, (backOffMs(attempt, 10, 200) * die) / 255);
  }
  throw new StoreUnavailable("others keep changing the same thing");
}

/** Folds a stream, from where an earlier load ended; that one's state is used up. Throws {@link StoreUnavailable}. */
export async function load<Command, State, T extends EventType, R extends string>(
  { store }: Pick<CommandParts, "store">,
  decider: Decider<Command, State, T, R>,
  stream: string,
  from: Loaded<State> = { state: decider.initial(), revision: "no_stream", position: "start" },
): Promise<Loaded<State>> {
  let { state, revision, position } = from;
  const next = revision === "no_stream" ? "start" : revision + 1n;
  const events = await Array.fromAsync(eventsForward(store, stream, next)).catch(
    (cause: unknown) => {
      const why = cause instanceof UnreadableEvent ? `: ${cause.message}` : "";
      throw new StoreUnavailable(`the event store cannot be read${why}`, { cause });
    },
  );
  for (const event of events) {
    // Only this decider writes to its streams, so every event in them is one of its types.
    state = decider.evolve(state, event as unknown as Fact<T>);
    revision = event.revision;
    position = event.position;
  }
  return { state, revision, position };
}
