import type { Recorded } from "./events/events.ts";
import type { EventData, EventType } from "./events/schemas.ts";

/**
 * How a command becomes events: `decide` looks at the state and answers with new events or a refusal, `evolve` carries
 * one recorded event into the state, `initial` gives the state before the first. All three are pure and total; time,
 * ids and secrets' hashes come in with the command. Only `evolve` may use up the state that it is given, so that a
 * long stream is folded without a copy for every event.
 */
export interface Decider<Command, State, T extends EventType, Refusal extends string> {
  readonly initial: () => State;
  readonly decide: (command: Command, state: State) => Decision<T, Refusal>;
  readonly evolve: (state: State, event: Fact<T>) => State;
}

/**
 * The events to record, or the name of the refusal. No events: what the command asks for is recorded already, and it is
 * answered as it was the first time.
 */
export type Decision<T extends EventType, Refusal extends string> = readonly Draft<T>[] | Refusal;

/** An event that is to be recorded; `key` names the fact within its stream. */
export type Draft<T extends EventType> = {
  [K in T]: { readonly type: K; readonly data: EventData<K>; readonly key: string };
}[T];

/** What a state needs of a recorded event. */
export type Fact<T extends EventType> = {
  [K in T]: Pick<Recorded<K>, "type" | "data" | "recordedAt">;
}[T];
