import { emptyAdmission, type Admission } from "#domain/accounts/admission.ts";
import type { CellObserver } from "#domain/accounts/holds.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { createMemoryEventStore, type MemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { primaryAmong, type ServerFacts } from "#infra/redis/primary.ts";
import type { AdmissionStore, Clock, KeyDirectory } from "#services/ports.ts";
import { BEGIN_MS, type SimProcess } from "./process.ts";
import type { Timeline } from "./timeline.ts";

/** A Redis server: a primary with what it holds, or a replica that takes nothing. */
interface AdmissionServer {
  life: Life | undefined;
}

/** What a server holds and answers from when it became a primary until it stops being one. */
interface Life {
  readonly facts: ServerFacts;
  readonly state: Admission;
  readonly port: AdmissionStore;
  directory: KeyDirectory;
}

/** One process's connections to both servers. It speaks to one of them, also after that one's place was taken. */
export interface Connection {
  /** What is sent now goes there, and finds it as it is on arrival: throws where it is a replica by then. */
  present(): () => Life;
  /** As the port's. Where only one server is `reachable` it finds no other. */
  seek(meant: readonly string[], reachable: "both" | "first" | "second"): readonly string[];
}

/** The servers of a region: an event store that never loses anything, and two Redis servers that lose all. */
export interface Servers {
  readonly store: MemoryEventStore;
  /** The admission server that took over last, and its state. */
  readonly admission: () => Life;
  connect(): Connection;
  /**
   * A new life of the admission server: everything in it is lost, its identity is another. It is the only primary, because
   * of two that are strangers to each other nobody but a person can say which is the region's.
   */
  restartAdmission(): void;
  /**
   * The replica is promoted. What it had copied is the old owner's and so fenced, as good as nothing; the primary before
   * goes on for those who speak to it, until it is made a replica.
   */
  failOver(): void;
  /** Only the admission server that took over last is a primary still. */
  demoteOthers(): void;
  /** Somebody empties the admission server and its key directory; nothing else tells of it. */
  flush(): void;
  /**
   * One of two servers that share the organizations is away for these processes until then, and what it knows is kept, or
   * at the end forgotten without a word. Virtual milliseconds.
   */
  leave(absence: Absence): void;
  /** Whether the server that has an organization is away for a process of a kind. */
  readonly isAway: (orgId: string, kind: SimProcess["kind"]) => boolean;
  /** Nothing is written until then. Virtual milliseconds. */
  fillDiskUntil(atMs: number): void;
  readonly isFull: () => boolean;
}

export interface Absence {
  readonly of: 0 | 1;
  readonly for: readonly SimProcess["kind"][];
  readonly untilMs: number;
  readonly forgets: boolean;
}

/** Which of two servers has an organization. */
const homeOf = (orgId: string) => (orgId.codePointAt(orgId.length - 1) ?? 0) % 2;

export function createServers(options: {
  timeline: Timeline;
  observe: CellObserver;
  onFault: (orgId: string, sentence: string) => void;
}): Servers {
  const { timeline, observe, onFault } = options;
  // A server's clock: whole milliseconds, and no timer of its own.
  const clock: Clock = {
    now: () => Math.floor(BEGIN_MS + timeline.nowMs()),
    elapsed: () => timeline.nowMs(),
    timer: (delayMs, callback) => timeline.after(delayMs, callback),
  };
  let lives = 0;
  let fullUntilMs = 0;
  let absence: Absence | undefined;

  function newLife(idBefore?: string): Life {
    const state = emptyAdmission({ server: `admission-${++lives}`, observe, onFault });
    return {
      facts: { isPrimary: true, id: state.server, idBefore, evictionPolicy: "noeviction" },
      state,
      port: createMemoryAdmission({ clock, server: state.server, state }),
      directory: createMemoryKeyDirectory(),
    };
  }

  const first: AdmissionServer = { life: newLife() };
  const second: AdmissionServer = { life: undefined };
  let newest = first;

  function lifeOf(server: AdmissionServer): Life {
    if (!server.life) throw new Error("READONLY You can't write against a read only replica.");
    return server.life;
  }

  function demoteOthers(): void {
    (newest === first ? second : first).life = undefined;
  }

  return {
    store: createMemoryEventStore({ clock }),
    admission: () => lifeOf(newest),
    connect() {
      let present = newest;
      return {
        present() {
          const server = present;
          return () => lifeOf(server);
        },
        seek(meant, reachable) {
          const reached = { both: [first, second], first: [first], second: [second] }[reachable];
          const found = reached.flatMap((server) =>
            server.life ? [{ server, ...server.life.facts }] : [],
          );
          const primary = primaryAmong(found, meant);
          if (!primary) throw new Error("none of the servers is the one to speak to");
          present = primary.server;
          return [primary.id];
        },
      };
    },
    restartAdmission() {
      demoteOthers();
      newest.life = newLife();
    },
    failOver() {
      const before = lifeOf(newest).facts.id;
      newest = newest === first ? second : first;
      newest.life = newLife(before);
    },
    demoteOthers,
    flush() {
      const { state } = lifeOf(newest);
      lifeOf(newest).directory = createMemoryKeyDirectory();
      state.orgs.clear();
      state.wanted.clear();
    },
    leave(next) {
      absence = next;
      if (!next.forgets) return;
      timeline.after(next.untilMs - timeline.nowMs(), () => {
        const { orgs } = lifeOf(newest).state;
        for (const orgId of orgs.keys()) if (homeOf(orgId) === next.of) orgs.delete(orgId);
      });
    },
    isAway: (orgId, kind) =>
      absence !== undefined &&
      timeline.nowMs() < absence.untilMs &&
      absence.of === homeOf(orgId) &&
      absence.for.includes(kind),
    fillDiskUntil(atMs) {
      fullUntilMs = atMs;
    },
    isFull: () => timeline.nowMs() < fullUntilMs,
  };
}
