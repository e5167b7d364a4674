import type { AppendOutcome, Random } from "#services/ports.ts";
import { eventId } from "#domain/hash.ts";
import type { connectKurrent, ServerEvent } from "./client.ts";

/**
 * Who a store on a server is: the newest word in its stream `store`, which is beside all streams that are followed.
 * StoreCreated says its identity; RestoreBegun, that a backup is being put into it and that it is nobody's yet.
 */

const STREAM = "store";
const CREATED = "StoreCreated.v1";
const RESTORING = "RestoreBegun.v1";
const TRIES_MAX = 5;

export interface IdentityParts {
  readonly server: Pick<ReturnType<typeof connectKurrent>, "append" | "readStream">;
  readonly random: Random;
  readonly answerMsMax: number;
}

/** The store's identity; whoever finds none gives it one. Throws while a backup is being put into it. */
export const identityOf = (parts: IdentityParts): Promise<string> =>
  agree(parts, (word) => word && sidIn(word), created(parts));

/**
 * Gives the store another identity, in the place of the one that it has as far as the caller knows: what was folded or
 * filled from what was in it counts for nothing any more. Of several who do so at once all get the same.
 */
export const renewIdentity = (parts: IdentityParts, before: string): Promise<string> =>
  agree(
    parts,
    (word) => {
      const sid = word && sidIn(word);
      return sid === before ? undefined : sid;
    },
    created(parts),
  );

/**
 * Says that a backup is being put into the store, which is nobody's from then on; to be called again when that goes on.
 * Throws where it is another backup, or where the store `isEmpty` no more.
 */
export async function beginRestore(
  parts: IdentityParts,
  backup: string,
  isEmpty: boolean,
): Promise<void> {
  const event = { id: eventId(STREAM, `restore:${backup}`), type: RESTORING, data: { backup } };
  await agree(
    parts,
    (word) => {
      const begun = word?.type === RESTORING ? stringIn(word, "backup") : undefined;
      if (begun === backup) return true;
      if (begun !== undefined)
        throw new Error(
          "another backup was being restored into this event store: take an empty one",
        );
      if (!isEmpty)
        throw new Error("the event store has events already: restore into an empty one");
      return undefined;
    },
    event,
  );
}

/** Gives the store that a backup was put into its identity, which no other ever had. */
export const endRestore = (parts: IdentityParts): Promise<string> =>
  agree(parts, (word) => (word?.type === CREATED ? sidIn(word) : undefined), created(parts));

function created({ random }: IdentityParts) {
  const sid = Buffer.from(random.bytes(16)).toString("hex");
  return { id: eventId(STREAM, sid), type: CREATED, data: { sid } };
}

/**
 * What `wanted` finds in the newest word. Where it finds nothing `said` is said, and looked again: of two who speak at
 * once the second is refused and hears the other's.
 */
async function agree<T>(
  { server, answerMsMax }: IdentityParts,
  wanted: (word: ServerEvent | undefined) => T | undefined,
  said: { id: string; type: string; data: object },
): Promise<T> {
  const newest = { from: "end", direction: "backward", max: 1 } as const;
  let answer: AppendOutcome | undefined;
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    let word: ServerEvent | undefined;
    await server.readStream(STREAM, newest, (event) => {
      word = event;
    });
    const found = wanted(word);
    if (found !== undefined) return found;
    const event = {
      id: said.id,
      type: said.type,
      dataJson: JSON.stringify(said.data),
      metadataJson: JSON.stringify({ schema: 1 }),
    };
    const expected = revisionOf(word) ?? "no_stream";
    answer = await server.append(STREAM, [event], expected, answerMsMax);
  }
  throw new Error("the event store does not keep who it is", { cause: answer });
}

// The compiler takes a variable that a callback sets for one that is never set.
const revisionOf = (word: ServerEvent | undefined) => word?.revision;

function sidIn(word: ServerEvent): string {
  if (word.type === RESTORING)
    throw new Error(
      "a backup is being restored into this event store, or that was broken off: end it with relai restore",
    );
  const sid = stringIn(word, "sid");
  if (sid !== undefined && /^[0-9a-f]{32}$/u.test(sid)) return sid;
  throw new Error(`the event store's stream ${STREAM} is not relai's`);
}

function stringIn({ data }: ServerEvent, name: string): string | undefined {
  const value: unknown = data && Reflect.get(data, name);
  return typeof value === "string" ? value : undefined;
}
