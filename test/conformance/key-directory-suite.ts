import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { KeyDirectory, KeyEntry } from "#services/ports.ts";

export interface KeyDirectoryUnderTest {
  /** As the ledger process has it: it may be written and read. Empty, and known to be. */
  readonly directory: KeyDirectory;
  /** As another process has it, where there can be another; else the same. */
  readonly elsewhere: KeyDirectory;
  /** Moves the time on. */
  readonly advance: (ms: number) => Promise<void>;
  cleanUp(): Promise<void>;
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
      await directory.put(hashOf("a"), ENTRY);
      await directory.put(hashOf("b"), until);
      expect(await directory.lookup(hashOf("a"))).toStrictEqual(ENTRY);
      expect(await directory.lookup(hashOf("b"))).toStrictEqual(until);
      expect(await directory.lookup(hashOf("c"))).toBeUndefined();
    });

    test("every key is found, wherever its hash lies", async () => {
      const { directory } = made;
      const names = Array.from({ length: 600 }, (_, at) => `key_${at}`);
      await Promise.all(names.map((keyId) => directory.put(hashOf(keyId), { ...ENTRY, keyId })));
      const found = await Promise.all(names.map((keyId) => directory.lookup(hashOf(keyId))));
      expect(found.map((entry) => entry?.keyId)).toEqual(names);
    });

    test("a revocation is kept, whatever comes later", async () => {
      const { directory } = made;
      await directory.put(hashOf("a"), ENTRY);
      await directory.put(hashOf("a"), { ...ENTRY, orgId: "org_B" });
      expect(await directory.lookup(hashOf("a"))).toMatchObject({ orgId: "org_B" });
      await directory.put(hashOf("a"), { ...ENTRY, revoked: true });
      await directory.put(hashOf("a"), ENTRY);
      expect(await directory.lookup(hashOf("a"))).toMatchObject({ revoked: true });
    });

    test("another process finds what was put, at once or a moment after it missed it", async () => {
      const { directory, elsewhere, advance } = made;
      expect(await elsewhere.lookup(hashOf("a"))).toBeUndefined();
      await directory.put(hashOf("a"), ENTRY);
      await directory.put(hashOf("b"), ENTRY);
      expect(await elsewhere.lookup(hashOf("b"))).toEqual(ENTRY);
      await advance(1000);
      expect(await elsewhere.lookup(hashOf("a"))).toEqual(ENTRY);
      await directory.put(hashOf("a"), { ...ENTRY, revoked: true });
      expect(await elsewhere.lookup(hashOf("a"))).toMatchObject({ revoked: true });
    });
  });
}
