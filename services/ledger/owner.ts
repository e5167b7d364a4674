import { newEvent, streams } from "#domain/events/events.ts";
import type { AdmissionStore, KeyDirectory } from "#services/ports.ts";
import { appendOnce, metadataOf, newestOwner, tailRevision } from "#services/writers.ts";
import { retire, type RetireParts } from "./retire.ts";

export interface OwnerParts extends RetireParts {
  readonly admission: AdmissionStore;
  readonly directory: KeyDirectory;
  /** This ledger process's own epoch. */
  readonly writerEpoch: number;
  /** What to do with another writer: seal it if it is known to be dead, else fence it. */
  readonly decide: (writerEpoch: number) => "seal" | "fence";
  /**
   * The newest owner that is known to be over. One that is newer, and not this process, has taken over meanwhile: it is
   * left alone. Undefined where no other can live.
   */
  readonly over?: number;
}

/** What this process owns: under which epoch, on which server, and where the accounts stood behind all marks. */
export interface Ownership {
  readonly ownerEpoch: number;
  readonly servers: readonly string[];
  readonly position: bigint | "start";
}

/**
 * Makes this process the owner of the region's admission store: appends OwnerChanged, retires every earlier writer, and
 * folds the store past all those marks. From then on organizations may be adopted, in any order (adoption.ts): none of
 * this takes longer for having many. The order is what keeps money safe: every taking under an older owner either stands
 * before its journal's mark, and is folded, or never happened.
 * It claims only on the server that the newest owner's lead to: of two processes on two servers each would else take the
 * other's place for ever.
 * Answers `superseded` when another process has claimed meanwhile.
 */
export async function claimOwnership(parts: OwnerParts): Promise<Ownership | "superseded"> {
  const before = await newestOwner(parts.store, parts.author.region);
  const isOurs = before?.writerEpoch === parts.writerEpoch;
  if (before && !isOurs && before.ownerEpoch > (parts.over ?? before.ownerEpoch))
    return "superseded";
  const servers = await parts.admission.seek(before?.servers ?? []);
  const ownerEpoch = await appendClaim(parts, (before?.ownerEpoch ?? 0) + 1, servers);
  if (ownerEpoch === undefined) return "superseded";
  const mark = await retire(parts, ownerEpoch, parts.decide);
  const { position } = await parts.projector.rows("accounts", mark, []);
  // A claim that the fold has passed already is not seen by whoever follows the events from there.
  const newest = await newestOwner(parts.store, parts.author.region);
  if (newest && newest.ownerEpoch > ownerEpoch) return "superseded";
  return { ownerEpoch, servers, position };
}

/** OwnerChanged by expected revision; the id names the claimant, or two would both seem to win. */
async function appendClaim(
  parts: OwnerParts,
  ownerEpoch: number,
  servers: readonly string[],
): Promise<number | undefined> {
  const { store, clock, author, writerEpoch } = parts;
  const stream = streams.writers(author.region);
  const key = `owner:${ownerEpoch}:${writerEpoch}`;
  const data = { ownerEpoch, writerEpoch, servers: [...servers] };
  const metadata = metadataOf(clock, author, `owner:${ownerEpoch}`);
  const event = newEvent(stream, key, "OwnerChanged.v1", data, metadata);
  for (;;) {
    const expected = await tailRevision(store, stream);
    const newest = await newestOwner(store, author.region);
    if (newest && newest.ownerEpoch >= ownerEpoch) {
      return newest.writerEpoch === writerEpoch && newest.ownerEpoch === ownerEpoch
        ? ownerEpoch
        : undefined;
    }
    const answer = await appendOnce(store, clock, stream, [event], expected);
    if (answer.outcome === "appended") return ownerEpoch;
  }
}
