import { streams } from "#domain/events/events.ts";
import type { Wanted } from "#domain/accounts/admission-types.ts";
import { TIMED_OUT, within } from "#services/waiting.ts";
import type { Adoption } from "./adoption.ts";
import type { Filled } from "./filling.ts";
import type { Keys } from "./keys.ts";
import type { LedgerParts } from "./ledger.ts";
import type { Ownership } from "./owner.ts";
import { readTail } from "./retire.ts";

const WANTED_EVERY_MS = 500;
/** While organizations are missing: whoever meets one asks again within a second, and then gives up. */
const MISSED_EVERY_MS = 50;
/** The tail of one journal is waited for so long, once in a look. */
const READ_MS_MAX = 1000;

export interface LookParts {
  readonly parts: Pick<LedgerParts, "admission" | "author" | "clock" | "store">;
  readonly ownership: Ownership;
  readonly adoption: Pick<Adoption, "orgs" | "wantAll">;
  readonly keys: Pick<Keys, "look">;
  readonly filled: Filled;
  /** Everything up to here is in the state of every organization that has all that is carried. */
  readonly carriedTo: () => bigint | "start";
  readonly hasAll: (orgId: string) => boolean;
  /** Gives those what waits for them whose servers are back, before anybody is looked at. */
  readonly catchUp: () => Promise<void>;
  /** Told when a server turns out to have lost its memory, or another one has taken its place. */
  readonly onLost: () => void;
  /** Told of an organization that was adopted and is gone, or is on another server than it was adopted on. */
  readonly onMissed: (orgId: string) => void;
}

/**
 * Looks after organizations that somebody came upon, twice a second until cancelled, and more often while not all are in.
 * One that is not in yet is adopted. One that was adopted and is gone means that its server lost its memory; keys that
 * were filled in and are gone mean the same, and with them gone nobody would get as far as to miss an organization. One
 * that is on another server than it was adopted on moved there. One with old provisional holds is swept again for their
 * writers, as often as such holds are found: a writer may wake up behind its seal, take and die, and an admission may
 * arrive at any time.
 */
export function lookAfterWanted(looks: LookParts): () => void {
  const { parts, ownership, adoption, keys, filled, carriedTo, onLost, onMissed } = looks;
  const { admission, clock } = parts;
  const { ownerEpoch } = ownership;
  let serversDueMs = clock.elapsed();
  let cancel = () => {};
  let stopped = false;

  /**
   * True when nothing that this writer takes can be recorded any more, and all that was is carried: whatever of it is
   * still provisional is void. A live writer, however slow, has no seal; and where the store does not say, none is seen.
   */
  async function isOver(writerEpoch: number): Promise<boolean> {
    const stream = streams.journal(parts.author.region, writerEpoch);
    const reading = readTail(parts.store, stream);
    const tail = await within(clock, READ_MS_MAX, reading).catch(() => TIMED_OUT);
    const to = carriedTo();
    if (typeof tail === "symbol") return false;
    const { isSealed, last } = tail;
    return isSealed && last !== undefined && to !== "start" && last.position <= to;
  }

  async function look({ orgId, writerEpochs }: Wanted, asked: Map<number, boolean>): Promise<void> {
    if (writerEpochs.length === 0) {
      const found = await admission.figures({ orgId });
      const isFenced = found.outcome === "fenced";
      if (isFenced && (found.fenced === "absent" || found.fenced === "server")) onMissed(orgId);
    }
    for (const writerEpoch of writerEpochs) {
      const over = asked.get(writerEpoch) ?? (await isOver(writerEpoch));
      asked.set(writerEpoch, over);
      if (over && looks.hasAll(orgId)) await admission.sweep({ orgId, ownerEpoch, writerEpoch });
    }
  }

  async function lookAtServers(): Promise<void> {
    if (clock.elapsed() < serversDueMs) return;
    serversDueMs = clock.elapsed() + WANTED_EVERY_MS;
    const servers = await admission.seek(ownership.servers);
    if (servers.some((id) => !ownership.servers.includes(id)) || !(await keys.look())) onLost();
  }

  async function poll(): Promise<void> {
    await Promise.all([lookAtServers(), looks.catchUp()]);
    const wanted = await admission.wanted();
    const known = wanted.filter(({ orgId }) => adoption.orgs.has(orgId));
    // What fails is done again when somebody comes upon the organization again.
    await adoption.wantAll(wanted.map(({ orgId }) => orgId)).catch(() => {});
    const asked = new Map<number, boolean>();
    for (const each of known) await look(each, asked).catch(() => {});
  }

  function arm(): void {
    cancel = clock.timer(filled.all ? WANTED_EVERY_MS : MISSED_EVERY_MS, () => {
      void poll()
        .catch(() => {})
        .finally(() => {
          if (!stopped) arm();
        });
    });
  }
  arm();
  return () => {
    stopped = true;
    cancel();
  };
}
