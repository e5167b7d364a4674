import type { NewEvent, RecordedEvent } from "#domain/events/events.ts";
import type {
  AdmissionStore,
  AppendOutcome,
  EventStore,
  ExpectedRevision,
  KeyDirectory,
  ReadModel,
  ReadModels,
} from "#services/ports.ts";
import type { Faults } from "./faults.ts";
import type { Link } from "./link.ts";
import type { Dice } from "./random.ts";
import type { SimProcess } from "./process.ts";
import type { Connection } from "./servers.ts";
import type { Timeline } from "./timeline.ts";

/** A call that was given up: the port rejects. */
export class NoAnswer extends Error {
  override readonly name = "NoAnswer";
}

function noAnswer(): never {
  throw new NoAnswer("no answer came in time");
}

export interface StoreParts {
  /** The one event store of the region, which itself never fails. */
  readonly store: EventStore;
  readonly link: Link;
  readonly process: SimProcess;
  readonly faults: Faults;
  readonly dice: Dice;
  /** True while the store's disk is full: nothing is written. */
  readonly isFull: () => boolean;
}

/** The event store as one process sees it: with delays, lost replies, refusals and dropped subscriptions. */
export function simulatedStore(parts: StoreParts): EventStore {
  const { store, link, process, faults, dice } = parts;
  return {
    append: (stream, events, expected) =>
      link.call<AppendOutcome>({
        method: "append",
        lost: "store_lost",
        replyLost: "store_reply_lost",
        async effect() {
          // A full disk refuses what is new; a repeat of what is written needs no room.
          if (parts.isFull() && !(await isWritten(store, stream, events, expected)))
            return { outcome: "refused", reason: "disk_full" };
          return store.append(stream, events, expected);
        },
        unanswered: () => ({ outcome: "unknown", reason: "no answer came in time" }),
      }),
    read: (stream, options) =>
      link.call({
        method: "read",
        lost: "store_read_failed",
        effect: () => store.read(stream, options),
        unanswered: noAnswer,
      }),
    fence: (stream, event) =>
      link.call({
        method: "fence",
        lost: "store_lost",
        replyLost: "store_reply_lost",
        async effect() {
          if (parts.isFull()) throw new Error("the store refuses to write: disk_full");
          return store.fence(stream, event);
        },
        unanswered: noAnswer,
      }),
    head: () =>
      link.call({
        method: "head",
        lost: "store_read_failed",
        effect: () => store.head(),
        unanswered: noAnswer,
      }),
    identity: () =>
      link.call({
        method: "identity",
        lost: "store_read_failed",
        effect: () => store.identity(),
        unanswered: noAnswer,
      }),
    eventAt: (position) =>
      link.call({
        method: "eventAt",
        lost: "store_read_failed",
        effect: () => store.eventAt(position),
        unanswered: noAnswer,
      }),
    async *follow(options) {
      // A process that has ended must not stay subscribed: its end of the connection is gone.
      const ended = new AbortController();
      process.onEnd(() => ended.abort());
      const signal = AbortSignal.any([options.signal, ended.signal]);
      for await (const batch of store.follow({ ...options, signal })) {
        for (const piece of cutAtRandom(batch, dice)) {
          await link.wait("follow");
          if (options.signal.aborted) return;
          if (faults.strikes("follow_dropped")) throw new NoAnswer("the subscription was dropped");
          yield piece;
        }
      }
      if (!process.isAlive()) await new Promise(() => {});
    },
  };
}

async function isWritten(
  store: EventStore,
  stream: string,
  events: readonly NewEvent[],
  expected: ExpectedRevision,
): Promise<boolean> {
  const from = expected === "no_stream" ? 0n : expected + 1n;
  const found = await store.read(stream, { from, direction: "forward", max: 1 });
  return found[0]?.id === events[0]?.id;
}

/** The same events in the same order, in batches of another size now and then. */
function cutAtRandom(batch: readonly RecordedEvent[], dice: Dice): RecordedEvent[][] {
  if (batch.length < 2 || dice.chance(0.5)) return [[...batch]];
  const at = dice.between(1, batch.length - 1);
  return [batch.slice(0, at), batch.slice(at)];
}

export interface AdmissionParts {
  readonly connection: Connection;
  readonly link: Link;
  readonly timeline: Timeline;
  readonly faults: Faults;
  readonly dice: Dice;
  /** Whether the server of an organization does not answer this process, which knows it. */
  readonly isAway: (orgId: string) => boolean;
  /** Told of each adoption that a process asks for. */
  readonly onAdopt: (ownerEpoch: number, orgId: string) => void;
}

const AWAY = { outcome: "fenced", fenced: "away" } as const;

/** The admission store as one process sees it. */
export function simulatedAdmission(parts: AdmissionParts): AdmissionStore {
  const { link, faults, timeline, dice, connection } = parts;

  /** What cannot be sent is not. */
  const toServer = <Answer>(orgId: string, send: () => Promise<Answer>) =>
    parts.isAway(orgId) ? Promise.resolve(AWAY) : send();

  /** A verb that is keyed by request id: a network may repeat it, as long as the server still knows the hold. */
  function verb<T>(
    method: string,
    ask: { readonly orgId: string; readonly requestId: string },
    run: (port: AdmissionStore) => Promise<T>,
    late: boolean,
  ): Promise<T> {
    const at = connection.present();
    const effect = async () => run(at().port);
    return link.call({
      method,
      effect,
      unanswered: noAnswer,
      lost: "admission_lost",
      replyLost: "admission_reply_lost",
      ...(late ? { late: "admission_late" as const } : {}),
      arrived() {
        if (method === "extend" || method === "drop") return;
        if (!faults.strikes("admission_repeated")) return;
        const { port, state } = at();
        timeline.after(dice.next() * dice.between(1, 400), () => {
          if (state.orgs.get(ask.orgId)?.accounts.holds.has(ask.requestId)) void run(port);
        });
      },
    });
  }

  /** A verb of the ledger process, or one that may be lost. */
  function plain<T>(method: string, run: (port: AdmissionStore) => Promise<T>): Promise<T> {
    const at = connection.present();
    return link.call({
      method,
      effect: async () => run(at().port),
      unanswered: noAnswer,
      lost: "admission_lost",
      replyLost: "admission_reply_lost",
    });
  }

  return {
    // Only an admission may come after the drop that undoes it: that is what tombstones are for.
    admit: (ask) => toServer(ask.orgId, () => verb("admit", ask, (port) => port.admit(ask), true)),
    extend: (ask) =>
      toServer(ask.orgId, () => verb("extend", ask, (port) => port.extend(ask), false)),
    drop: (ask) => toServer(ask.orgId, () => verb("drop", ask, (port) => port.drop(ask), false)),
    close: (ask) => toServer(ask.orgId, () => verb("close", ask, (port) => port.close(ask), true)),
    figures: (ask) => toServer(ask.orgId, () => plain("figures", (port) => port.figures(ask))),
    want: (orgId) => plain("want", (port) => port.want(orgId)),
    wanted: () => plain("wanted", (port) => port.wanted()),
    seek: (meant) =>
      link.call({
        method: "seek",
        async effect() {
          const reachable = faults.strikes("address_unreachable")
            ? dice.pick(["first", "second"] as const)
            : "both";
          return connection.seek(meant, reachable);
        },
        unanswered: noAnswer,
        lost: "admission_lost",
        replyLost: "admission_reply_lost",
      }),
    apply: (ask) => toServer(ask.orgId, () => plain("apply", (port) => port.apply(ask))),
    adopt: (ask) =>
      toServer(ask.state.orgId, () => {
        parts.onAdopt(ask.ownerEpoch, ask.state.orgId);
        return plain("adopt", (port) => port.adopt(ask));
      }),
    sweep: (ask) => toServer(ask.orgId, () => plain("sweep", (port) => port.sweep(ask))),
  };
}

/** The key directory as one process sees it: `present` gives where what is sent now arrives. */
export function simulatedDirectory(present: () => () => KeyDirectory, link: Link): KeyDirectory {
  /** Of the ledger process. */
  function plain<T>(method: string, run: (directory: KeyDirectory) => Promise<T>): Promise<T> {
    const at = present();
    return link.call({
      method,
      effect: async () => run(at()),
      unanswered: noAnswer,
      lost: "admission_lost",
      replyLost: "admission_reply_lost",
    });
  }
  return {
    lookup(tokenHash) {
      const at = present();
      return link.call({
        method: "lookup",
        effect: async () => at().lookup(tokenHash),
        unanswered: noAnswer,
      });
    },
    parts: [""],
    partOf: () => "",
    put: (keys) => plain("put", (directory) => directory.put(keys)),
    markFilling: (...of) => plain("markFilling", (directory) => directory.markFilling(...of)),
    markFilled: (...of) => plain("markFilled", (directory) => directory.markFilled(...of)),
    stateOf: (...of) => plain("stateOf", (directory) => directory.stateOf(...of)),
  };
}

/** Read models on the disk of the process's machine. */
export function simulatedReadModels(readModels: ReadModels, link: Link): ReadModels {
  const call = <T>(method: string, effect: () => Promise<T>) =>
    link.call({ method, effect, unanswered: noAnswer });
  const modelOf = (model: ReadModel): ReadModel => ({
    checkpoint: () => call("checkpoint", () => model.checkpoint()),
    rows: (tables, slice) => call("rows", () => model.rows(tables, slice)),
    rowsAt: (tables, key) => model.rowsAt(tables, key),
    commit: (writes, checkpoint) =>
      link.call({
        method: "commit",
        lost: "disk_failed",
        replyLost: "disk_failed",
        effect: () => model.commit(writes, checkpoint),
        unanswered: noAnswer,
      }),
  });
  return {
    open: async (name, version) =>
      modelOf(await call("open", () => readModels.open(name, version))),
    openAside: async (name, version) =>
      modelOf(await call("openAside", () => readModels.openAside(name, version))),
    swapIn: async (name) => modelOf(await call("swapIn", () => readModels.swapIn(name))),
    close: () => readModels.close(),
  };
}
