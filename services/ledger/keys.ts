import type { KeyEntry } from "#projections/key-directory.ts";
import { unpackRows } from "#projections/rows.ts";
import type { Clock, KeyDirectory, Projector } from "#services/ports.ts";
import { backOffMs, sleep } from "#services/waiting.ts";
import type { Ownership } from "./owner.ts";

/** So many keys are read and put in at once. */
const KEYS_AT_ONCE = 1_000;
/** So often a key is tried to be put in; then its part of the directory is filled anew when that answers. */
const PUTS_MAX = 3;
/** So many parts are looked at in a look. */
const PARTS_AT_ONCE = 64;

type Put = readonly [tokenHash: string, entry: KeyEntry];
export type Keys = ReturnType<typeof createKeys>;

/**
 * Keeps the key directory whole under one owner, part by part: one that is away, or where a key could not be put in, is
 * filled when it answers, and no other waits for it. What a part had may be put in again at any time, so none of this ends
 * an ownership but memory that was lost, and with it organizations.
 */
export function createKeys(
  parts: {
    readonly projector: Projector;
    readonly directory: KeyDirectory;
    readonly clock: Clock;
  },
  { ownerEpoch, position }: Ownership,
) {
  const { projector, directory, clock } = parts;
  /** Parts that may not have every key. */
  const missing = new Set(directory.parts);
  /** Of these, those into which a key could not be put since they began to be filled. */
  const failed = new Set<string>();
  /** Up to here keys were put in as they were recorded: a part that is filled anew has them too. */
  let carriedTo = position;
  let filling: Promise<void> | undefined;
  let looked = 0;

  function fail(part: string): void {
    missing.add(part);
    failed.add(part);
  }

  const byPart = (keys: readonly Put[]) =>
    Map.groupBy(keys, ([tokenHash]) => directory.partOf(tokenHash));

  /** Where it fails the part is filled anew. One that is to be filled anyway is not waited for. */
  async function putIn(part: string, keys: readonly Put[], signal: AbortSignal): Promise<void> {
    const triesMax = () => (missing.has(part) || signal.aborted ? 1 : PUTS_MAX);
    for (let attempt = 0; attempt < triesMax(); attempt++) {
      if (attempt > 0) await sleep(clock, backOffMs(attempt, 20, 500));
      try {
        return await directory.put(keys);
      } catch {
        // Once more, or never here.
      }
    }
    fail(part);
  }

  async function fillOnce(signal: AbortSignal): Promise<void> {
    failed.clear();
    const atLeast = carriedTo;
    const begun = new Set<string>();
    const begin = async (part: string) => {
      await directory.markFilling(part, ownerEpoch);
      begun.add(part);
    };
    await Promise.allSettled([...missing].map(begin));
    for (let after = ""; begun.size > 0 && !signal.aborted;) {
      const slice = { in: "keys", after, max: KEYS_AT_ONCE };
      const packed = await projector.rows("key-directory", atLeast, ["keys"], slice);
      const keys = [...unpackRows(packed.rows)].map(({ key, value }) => [key, value] as const);
      if (keys.length === 0) break;
      after = keys.at(-1)?.[0] ?? after;
      const puts = [...byPart(keys)].map(async ([part, of]) => {
        if (begun.has(part) && !failed.has(part)) await directory.put(of).catch(() => fail(part));
      });
      await Promise.all(puts);
    }
    if (signal.aborted) return;
    const end = async (part: string) => {
      if (failed.has(part) || !(await directory.markFilled(part, ownerEpoch))) return;
      if (!failed.has(part)) missing.delete(part);
    };
    await Promise.allSettled([...begun].map(end));
  }

  return {
    /** Every key is in, and what is missing is nobody's. */
    isWhole: () => missing.size === 0,
    /** Fills what is missing and answers, as often as it is asked, once at a time. Rejects where the keys cannot be read. */
    fill(signal: AbortSignal): Promise<void> {
      filling ??= fillOnce(signal).finally(() => {
        filling = undefined;
      });
      return filling;
    },
    /** Puts in keys as they are recorded, up to a position. */
    async put(keys: readonly Put[], to: bigint, signal: AbortSignal): Promise<void> {
      // A batch may be carried once more.
      if (carriedTo === "start" || to > carriedTo) carriedTo = to;
      await Promise.all([...byPart(keys)].map(([part, of]) => putIn(part, of, signal)));
    },
    /** Looks at some parts, others each time. False where memory was lost. */
    async look(): Promise<boolean> {
      const all = directory.parts;
      const some = Array.from(
        { length: Math.min(PARTS_AT_ONCE, all.length) },
        () => all[looked++ % all.length] ?? "",
      );
      const states = some
        .filter((part) => !missing.has(part))
        .map(async (part) => {
          // One that does not answer is looked at another time.
          const state = await directory.stateOf(part, ownerEpoch).catch(() => "kept" as const);
          if (state === "moved") missing.add(part);
          return state;
        });
      return !(await Promise.all(states)).includes("lost");
    },
  };
}
