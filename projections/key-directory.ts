import type { RecordedEvent } from "#domain/events/events.ts";
import { settingProjection } from "./projection.ts";
import type { ReadModelRow } from "./rows.ts";

/** What the directory says of a key: whose it is, and whether it was revoked or ends. Never the key itself. */
export type KeyEntry = {
  readonly keyId: string;
  readonly orgId: string;
  readonly revoked: boolean;
  /** Milliseconds since 1970; undefined for a key without an end. */
  readonly expiresAt?: number;
};

export type KeyDirectoryRow = ReadModelRow<"keys", KeyEntry>;

/** Token hash → key. Whether a key may be used is decided at admission; this only tells unknown, revoked and expired ones early. */
export const keyDirectoryProjection = settingProjection<"key-directory", KeyDirectoryRow>({
  name: "key-directory",
  version: 1,
  writes: { "KeyIssued.v1": directoryRowOf, "KeyRevoked.v1": directoryRowOf },
});

/** What an event says of a key, or undefined for an event that says nothing of one. */
export function directoryRowOf(event: RecordedEvent): KeyDirectoryRow | undefined {
  if (event.type === "KeyRevoked.v1") {
    const { tokenHash, keyId, orgId } = event.data;
    return { table: "keys", key: tokenHash, value: { keyId, orgId, revoked: true } };
  }
  if (event.type !== "KeyIssued.v1") return undefined;
  const { tokenHash, keyId, orgId, expiresAt } = event.data;
  const value = { keyId, orgId, revoked: false, ...(expiresAt !== undefined && { expiresAt }) };
  return { table: "keys", key: tokenHash, value };
}
