import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { KeyDirectory, KeyEntry } from "#services/ports.ts";

export interface KeyDirectoryUnderTest {
  /** As the ledger process has it: it may be written and read. Empty, and marked as filled under owner 1. */
  readonly directory: KeyDirectory;
  /** As another process has it, where there can be another; else the same. */
  readonly elsewhere: KeyDirectory;
  /** Moves the time on. */
  readonly advance: (ms: number) => Promise<void>;
  cleanUp(): Promise<void>;
}

const beginAll = (directory: KeyDirectory, ownerEpoch: number) =>
  Promise.all(directory.parts.map((part) => directory.markFilling(part, ownerEpoch)));

/** Which of these its parts say, each once. */
const once = <Said>(said: readonly Said[]) => [...new Set(said)];

const endAll = async (directory: KeyDirectory, ownerEpoch: number) =>
  once(await Promise.all(directory.parts.map((part) => directory.markFilled(part, ownerEpoch))));

const statesOf = async (directory: KeyDirectory, ownerEpoch: number) =>
  once(await Promise.all(directory.parts.map((part) => directory.stateOf(part, ownerEpoch))));

/** Says that everything is in. */
export async function fill(directory: KeyDirectory, ownerEpoch: number): Promise<void> {
  await beginAll(directory, ownerEpoch);
  expect(await endAll(directory, ownerEpoch)).toEqual([true]);
}

export const hashOf = (text: string) => createHash("sha256").update(text).digest("hex");
export const ENTRY: KeyEntry = { keyId: "key_A", orgId: "org_A", revoked: false };

/** Holds a key directory to its port. */
export function keyDirectorySuite(name: string, make: () => Promise<KeyDirectoryUnderTest>): void {
  describe(`key directory: ${name}`, () => {
    let made: KeyDirectoryUnderTest;
    beforeEach(async () => {
      made = await make();
    });
    afterEach(() => made.cleanUp());

    test("finds a key by its hash, with what was said of it, and no other", async () => {
      const { directory } = made;
      expect(await directory.lookup(hashOf("a"))).toBeUndefined();
      const until = { ...ENTRY, keyId: "key_B", expiresAt: Number.MAX_SAFE_INTEGER };
      await directory.put([[hashOf("a"), ENTRY]]);
      await directory.put([[hashOf("b"), until]]);
      expect(await directory.lookup(hashOf("a"))).toStrictEqual(ENTRY);
      expect(await directory.lookup(hashOf("b"))).toStrictEqual(until);
      expect(await directory.lookup(hashOf("c"))).toBeUndefined();
    });

    test("a part that is filled says nothing of the others", async () => {
      const { directory } = made;
      await beginAll(directory, 2);
      const part = directory.partOf(hashOf("a"));
      expect(await directory.markFilled(part, 2)).toBe(true);
      expect(await directory.lookup(hashOf("a"))).toBeUndefined();
      const others = directory.parts.filter((other) => other !== part);
      expect(others.includes(directory.partOf(hashOf("b")))).toBe(others.length > 0);
      if (others.length > 0) await expect(directory.lookup(hashOf("b"))).rejects.toThrow("filled");
    });

    test("every key is found, wherever its hash lies", async () => {
      const { directory } = made;
      const names = Array.from({ length: 600 }, (_, at) => `key_${at}`);
      await directory.put(names.map((keyId) => [hashOf(keyId), { ...ENTRY, keyId }]));
      const found = await Promise.all(names.map((keyId) => directory.lookup(hashOf(keyId))));
      expect(found.map((entry) => entry?.keyId)).toEqual(names);
    });

    test("a revocation is kept, whatever comes later", async () => {
      const { directory } = made;
      await directory.put([[hashOf("a"), ENTRY]]);
      await directory.put([[hashOf("a"), { ...ENTRY, orgId: "org_B" }]]);
      expect(await directory.lookup(hashOf("a"))).toMatchObject({ orgId: "org_B" });
      await directory.put([[hashOf("a"), { ...ENTRY, revoked: true }]]);
      await directory.put([[hashOf("a"), ENTRY]]);
      expect(await directory.lookup(hashOf("a"))).toMatchObject({ revoked: true });
    });

    test("what is missing is unknown only while it is filled; what is there is found all the same", async () => {
      const { directory } = made;
      await directory.put([[hashOf("a"), ENTRY]]);
      await beginAll(directory, 2);
      await expect(directory.lookup(hashOf("b"))).rejects.toThrow("not been filled");
      expect(await directory.lookup(hashOf("a"))).toStrictEqual(ENTRY);
      await directory.put([[hashOf("b"), { ...ENTRY, keyId: "key_B" }]]);
      expect(await directory.lookup(hashOf("b"))).toMatchObject({ keyId: "key_B" });
      await endAll(directory, 2);
      expect(await directory.lookup(hashOf("c"))).toBeUndefined();
    });

    test("an older owner says nothing about what a newer one fills", async () => {
      const { directory } = made;
      await beginAll(directory, 3);
      expect(await endAll(directory, 2)).toEqual([false]);
      await expect(directory.lookup(hashOf("a"))).rejects.toThrow("not been filled");
      expect(await endAll(directory, 3)).toEqual([true]);
      await beginAll(directory, 2);
      expect(await directory.lookup(hashOf("a"))).toBeUndefined();
    });

    test("nobody has filled what it did not begin to fill: what it had put in was lost", async () => {
      const { directory } = made;
      expect(await endAll(directory, 2)).toEqual([false]);
      expect(await statesOf(directory, 2)).toEqual(["lost"]);
    });

    test("what was filled is kept until it is lost, and is the newer owner's when there is one", async () => {
      const { directory } = made;
      expect(await statesOf(directory, 1)).toEqual(["kept"]);
      expect(await statesOf(directory, 2)).toEqual(["lost"]);
      await beginAll(directory, 2);
      expect(await statesOf(directory, 1)).toEqual(["kept"]);
      expect(await statesOf(directory, 2)).not.toContain("kept");
      await endAll(directory, 2);
      expect(await statesOf(directory, 1)).toEqual(["kept"]);
      expect(await statesOf(directory, 2)).toEqual(["kept"]);
    });

    test("another process finds what was put, at once or a moment after it asked for it", async () => {
      const { directory, elsewhere, advance } = made;
      expect(await elsewhere.lookup(hashOf("a"))).toBeUndefined();
      await directory.put([[hashOf("a"), ENTRY]]);
      await directory.put([[hashOf("b"), ENTRY]]);
      expect(await elsewhere.lookup(hashOf("b"))).toEqual(ENTRY);
      await advance(1000);
      expect(await elsewhere.lookup(hashOf("a"))).toEqual(ENTRY);
      await directory.put([[hashOf("a"), { ...ENTRY, revoked: true }]]);
      expect(await directory.lookup(hashOf("a"))).toMatchObject({ revoked: true });
      await advance(1000);
      expect(await elsewhere.lookup(hashOf("a"))).toMatchObject({ revoked: true });
    });
  });
}
