import type { NewEvent, RecordedEvent } from "#domain/events/events.ts";
import type {
  AdmitAsk,
  AdmitOutcome,
  ApplyOutcome,
  ExtendOutcome,
  Fenced,
  FiguresAsk,
  FiguresOutcome,
  OfOwner,
  OfRequest,
  Wanted,
} from "#domain/accounts/admission-types.ts";
import type { AccountsItem, OrgSnapshot } from "#domain/accounts/types.ts";
import type { ProjectionName, RowsOf, TableOf } from "#projections/all.ts";
import type { KeyEntry } from "#projections/key-directory.ts";
import type { PackedRows, ReadModelWrite, Slice } from "#projections/rows.ts";

/**
 * Every port: what the services need of the world, in the services' own words. No type of a client library shows.
 * Adapters stand in infra/ (and, for those of tests, in test/); only main.ts files, the start and
 * the command line bring the two together.
 */

/** Time. The only way in which services learn it. */
export interface Clock {
  /** Milliseconds since 1970, from the machine's clock: for `at`, windows and dates. */
  now(): number;
  /** Milliseconds on a clock that never goes back: for durations. Fractions are allowed. */
  elapsed(): number;
  /**
   * Calls back once, at the earliest after `delayMs`; with 0 as soon as what has arrived already was handled. The
   * returned function cancels.
   */
  timer(delayMs: number, callback: () => void): () => void;
}

/** Randomness fit for secrets. */
export interface Random {
  bytes(count: number): Uint8Array;
}

// ---------------------------------------------------------------------------------------------- event store

export type ExpectedRevision = bigint | "no_stream";

/**
 * `refused`: this call wrote nothing. `unknown`: it may or may not have; repeat the identical call. A repeat that is
 * refused with `queue_full` or `closed` was not looked at, so the first call stays unknown.
 */
export type AppendOutcome =
  | { readonly outcome: "appended"; readonly revision: bigint; readonly position: bigint }
  | { readonly outcome: "conflict"; readonly actual: ExpectedRevision }
  | { readonly outcome: "refused"; readonly reason: RefusedAppend }
  | { readonly outcome: "unknown"; readonly reason: string };
export type RefusedAppend = "disk_full" | "read_only" | "too_large" | "queue_full" | "closed";

/** One append carries at most this much; a larger one is `refused: too_large`. */
export const APPEND_EVENTS_MAX = 500;
export const APPEND_BYTES_MAX = 900 * 1024;

export interface EventStore {
  /**
   * Appends all events or none. Durable when it answers `appended`, which gives the last event's revision and
   * position. Repeating the identical call (same ids at the same expected revision) answers as the first time.
   */
  append(
    stream: string,
    events: readonly NewEvent[],
    expected: ExpectedRevision,
  ): Promise<AppendOutcome>;
  /** Reads a stream, `from` inclusive, at most `max` events; an unknown stream is empty. */
  read(
    stream: string,
    options: { from: bigint | "start" | "end"; direction: "forward" | "backward"; max: number },
  ): Promise<RecordedEvent[]>;
  /** Appends at whatever revision the stream has, also to one that does not exist yet; a repeat changes nothing. Only for fences. */
  fence(stream: string, event: NewEvent<"OwnerFenced.v1">): Promise<bigint>;
  /**
   * Everything after a position, in order, in batches (never empty), first what is stored and then what comes.
   * Ends when the signal aborts or the store closes; throws when the store cannot go on, and `UnreadableEvent` behind
   * everything that precedes an event that this version cannot read.
   */
  follow(options: { after: bigint | "start"; signal: AbortSignal }): AsyncIterable<RecordedEvent[]>;
  /** The position of the newest event, or `start` for an empty store. */
  head(): Promise<bigint | "start">;
  /** Names this history of events and no other: made with the store, and anew when a backup is put in its place. */
  identity(): Promise<string>;
  /** Which event stands at a position; undefined where none does yet. */
  eventAt(position: bigint): Promise<EventMark | undefined>;
}

/**
 * What tells the event at a position from any other that could stand there. The id alone does not: ids are computed
 * from their cause, so two histories that part may have the same one at the same position.
 */
export interface EventMark {
  readonly id: string;
  readonly recordedAt: number;
}

// ------------------------------------------------------------------------------------------ admission store

/**
 * Who may take money now. Every verb names the owner epoch it acts under. An organization that was never adopted is
 * `fenced: absent`, never a balance of zero. Verbs of money are keyed by request id and may be repeated.
 */
export interface AdmissionStore {
  /**
   * Gives the identity of the server's present life, which changes whenever it may have lost writes; of a cluster that of
   * each of its servers, with `meant` beside them while one is away, as it may be that one's. Where one of several may be
   * the region's, all are asked first, and from then on the one is spoken to that took the place of one of `meant` (what
   * the newest owner names; none before the first), else one of these, else the only one there is. Rejects where none of
   * it holds.
   */
  seek(meant: readonly string[]): Promise<readonly string[]>;
  admit(ask: AdmitAsk): Promise<AdmitOutcome>;
  /** Raises a hold towards a total, as far as the money goes. A total at or below the present one changes nothing. */
  extend(ask: OfRequest & { totalMicro: number }): Promise<ExtendOutcome>;
  /** Undoes an admission whose event was certainly not written. */
  drop(ask: OfRequest): Promise<{ outcome: "dropped" } | Fenced>;
  /** Ends a hold after its terminal event is durable: `chargedMicro` is spent, the rest is free again. */
  close(ask: OfRequest & { chargedMicro: number }): Promise<{ outcome: "closed" } | Fenced>;
  /** What admission knows of an organization and one of its keys, for people to read. */
  figures(ask: FiguresAsk): Promise<FiguresOutcome>;
  /** Says that an organization is needed here and was absent. May be lost. */
  want(orgId: string): Promise<void>;

  // The ledger process only:
  /**
   * The organizations that were wanted since the last call: by `want`, or because `admit` or `figures` came upon a
   * provisional hold older than 30 s by the store's own time; with the writers of such holds.
   */
  wanted(): Promise<Wanted[]>;
  /** Carries recorded events into the organization's state, each once. */
  apply(ask: OfOwner & { items: readonly AccountsItem[] }): Promise<ApplyOutcome>;
  /**
   * Replaces an organization's whole state, if the epoch stored for it is lower and this is one of `servers`. Fenced as
   * `away` it was certainly not sent.
   */
  adopt(ask: {
    ownerEpoch: number;
    servers: readonly string[];
    state: OrgSnapshot;
  }): Promise<{ outcome: "adopted" } | Fenced>;
  /** Frees what a dead writer had taken and never recorded. At any time after its sealed journal has been applied. */
  sweep(ask: OfOwner & { writerEpoch: number }): Promise<{ outcome: "swept" } | Fenced>;
}

// --------------------------------------------------------------------------------------------- key directory

export type { KeyEntry };

/** Token hash → key. Kept by the ledger process, read by gateways. */
export interface KeyDirectory {
  /**
   * Undefined where nobody has this key. Rejects where that cannot be said: the directory was not filled since it was
   * empty, or since a claim, and the key may only not be in yet.
   */
  lookup(tokenHash: string): Promise<KeyEntry | undefined>;

  // The ledger process only:
  /** What it consists of. Each part may be away, move, or lose what it had by itself. */
  readonly parts: readonly string[];
  partOf(tokenHash: string): string;
  /** Puts keys in, in this order, by their token hashes. A revocation is kept, whatever is put later. */
  put(keys: readonly (readonly [tokenHash: string, entry: KeyEntry])[]): Promise<void>;
  /**
   * An owner begins to put in every key of a part: until it has, and says so, a key that is missing there is not known to be
   * nobody's.
   */
  markFilling(part: string, ownerEpoch: number): Promise<void>;
  /**
   * Says that every key of a part was put in, under an owner epoch. False, and changes nothing, where a newer owner is
   * filling, or where it is not known that this one began: what it had put in was lost.
   */
  markFilled(part: string, ownerEpoch: number): Promise<boolean>;
  /**
   * What became of a part that was filled under an owner epoch. `kept`: it is whole, or a newer owner sees to it. `moved`:
   * it is there, on another server than it was filled on. `lost`: memory was lost.
   */
  stateOf(part: string, ownerEpoch: number): Promise<"kept" | "moved" | "lost">;
}

// --------------------------------------------------------------------------------------------------- progress

/** How far the ledger process has carried recorded events in, for those that wait for it in other processes. */
export interface Progress {
  /** May be lost. Changes nothing where a newer owner has told, or this one of a later position. */
  tell(ownerEpoch: number, position: bigint): Promise<void>;
  /**
   * By the newest owner that has told; undefined where none has, or its word was lost. An organization has all that was
   * recorded up to there once it is in place under that owner, which may be later.
   */
  told(): Promise<{ readonly ownerEpoch: number; readonly position: bigint } | undefined>;
}

// ----------------------------------------------------------------------------------------------- read models

/** Where a read model stands: the last event that it contains, and the identity of the store that it was folded from. */
export interface Checkpoint {
  readonly store: string;
  readonly position: bigint;
  readonly event: EventMark;
}

/** The rows of one projection, moved together with their checkpoint. */
export interface ReadModel {
  checkpoint(): Promise<Checkpoint | "start">;
  /** All rows, or those of some tables, or a slice of them, as of one moment; in the order of table and key. */
  rows(tables?: readonly string[], slice?: Slice): Promise<PackedRows>;
  /** The rows of some tables at a key, and all that belong to it, at once: a fold in the middle of an event asks for them. */
  rowsAt(tables: readonly string[], key: string): PackedRows;
  commit(writes: readonly ReadModelWrite[], checkpoint: Checkpoint): Promise<void>;
}

/** Where read models live. */
export interface ReadModels {
  /** Opens the read model of a projection; one that another version of the projection wrote is dropped and starts empty. */
  open(name: string, version: number): Promise<ReadModel>;
  /** An empty one beside it, for a rebuild; what an earlier rebuild left there is dropped. */
  openAside(name: string, version: number): Promise<ReadModel>;
  /** Puts the one made aside in the other's place and gives it back; the old one is gone. */
  swapIn(name: string): Promise<ReadModel>;
  close(): Promise<void>;
}

export interface RebuildProgress {
  readonly projection: string;
  readonly eventsDone: number;
  readonly position: bigint | "start";
  readonly head: bigint | "start";
}

/** How far a reader of the events is behind with what it was handed. */
export interface Lag {
  /** Handed over, and not done with. What waits behind it at the store is not known here. */
  readonly events: number;
  /** Since the oldest of them was recorded. Milliseconds. */
  readonly ms: number;
}

/** How a projector is getting on. */
export interface ProjectorState {
  readonly lag: Lag;
  /** The projections that stand still until they are rebuilt, or the process is started anew. */
  readonly stopped: readonly string[];
}

/** The read models of a region as the other services see them, wherever they are folded. */
export interface Projector {
  /**
   * The rows of one read model, or of some of its tables, or a slice of them, folded at least to a position; and the
   * position they stand at.
   */
  rows<Name extends ProjectionName>(
    projection: Name,
    atLeast: bigint | "start",
    tables?: readonly TableOf<Name>[],
    slice?: Slice,
  ): Promise<{ position: bigint | "start"; rows: RowsOf<Name> }>;
  /** Folds a read model anew from the first event, aside and silently, and swaps it in when it has caught up. */
  rebuild(
    projection: ProjectionName,
    onProgress: (progress: RebuildProgress) => void,
  ): Promise<RebuildProgress>;
  /** Rejects where nobody folds any more. */
  state(): Promise<ProjectorState>;
  close(): Promise<void>;
}

// -------------------------------------------------------------------------------------------------- upstream

export interface UpstreamCall {
  readonly requestId: string;
  /** Under whose name the call counts: no organization takes all connections to an upstream, or all places to wait. */
  readonly orgId: string;
  readonly baseUrl: string;
  /** Below the base URL, with its slash: `/chat/completions`. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/**
 * `overloaded`: no connection was free here, or none that this organization may have; no fault of the upstream's.
 * `connect`: the upstream took no connection. Both were certainly not sent; the others may have reached the upstream.
 */
export type UpstreamFailure =
  | "overloaded"
  | "connect"
  | "reset"
  | "first_byte_timeout"
  | "idle_timeout";

/** Called in order: head, data…, then exactly one of end and failed; nothing after `abort`. */
export interface UpstreamReceiver {
  head(status: number, headers: Readonly<Record<string, string>>): void;
  /** False asks the upstream to wait until `resume`. */
  data(bytes: Uint8Array): boolean;
  end(): void;
  failed(failure: UpstreamFailure): void;
}

export interface UpstreamExchange {
  abort(): void;
  resume(): void;
}

/** A client of upstream hosts, with keep-alive and the time-outs of the settings. */
export interface Upstream {
  send(call: UpstreamCall, receiver: UpstreamReceiver): UpstreamExchange;
}

// ------------------------------------------------------------------------------------------------------ rest

/** One data folder, one process. Throws `FolderLocked` when another process has it. */
export interface FolderLock {
  release(): void;
}

/** Counts and times, by the names of the metrics page. Never text of a caller. */
export interface Telemetry {
  requestDone(facts: {
    route: string;
    status: number;
    code: string;
    model: string;
    durationMs: number;
    firstByteMs: number | undefined;
    chargedMicro: number;
    inputTokens: number;
    outputTokens: number;
  }): void;
  /** Something that should never happen and that a person should look at. `what` is a fixed name; facts are ids and numbers. */
  alarm(what: string, facts: Readonly<Record<string, string | number | boolean>>): void;
  /** Takes a request that is over, for a trace. Undefined where nobody asked for traces: then nothing is gathered for it. */
  readonly requestTraced?: ((trace: RequestTrace) => void) | undefined;
}

/** A request as a trace tells it: ids, numbers, and names that the catalogue has. Never a prompt, an answer or a key's text. */
export interface RequestTrace {
  readonly requestId: string;
  readonly method: string;
  /** A route of the metrics; `unknown` is none. */
  readonly route: string;
  /** The caller's `traceparent` as it came: whoever uses it checks it. */
  readonly parent: string | undefined;
  /** Undefined while it was not known who asks. */
  readonly orgId: string | undefined;
  readonly keyId: string | undefined;
  /** Milliseconds since 1970. */
  readonly beganAt: number;
  /** To the end of the work on it, with the last byte handed over. */
  readonly durationMs: number;
  /** As the metrics count it. */
  readonly status: number;
  readonly code: string;
  /** In the order in which upstreams were called. */
  readonly calls: readonly CallTrace[];
}

/** One call of an upstream, as a part of the trace of its request. */
export interface CallTrace {
  readonly operation: "chat" | "embeddings";
  /** The host's name in the catalogue. */
  readonly host: string;
  readonly baseUrl: string;
  /** The name that was sent upstream. */
  readonly model: string;
  readonly isStream: boolean;
  /** Undefined where there is no output to cap. */
  readonly outputCapTokens: number | undefined;
  /** Counted from the request's arrival. */
  readonly beganMs: number;
  readonly durationMs: number;
  /** From the call's beginning; undefined where no byte of a body came. */
  readonly firstByteMs: number | undefined;
  /** What the upstream answered; undefined where it did not. */
  readonly status: number | undefined;
  /** One of a few fixed words, or the status of a refusal; undefined where the call came to its proper end. */
  readonly error: string | undefined;
  /** What the answer says of itself: a model that the catalogue knows, and the provider's own count. */
  readonly servedModel?: string | undefined;
  readonly inputTokens?: number;
  readonly outputTokens?: number;
}
