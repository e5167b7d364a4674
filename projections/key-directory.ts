import type { RecordedEvent } from "#domain/events/events.ts";
import { settingFold, type Projection } from "./projection.ts";
import { unpackRows, type PackedRows, type ReadModelRow } from "./rows.ts";

/** What the directory says of a key: whose it is, and whether it was revoked or ends. Never the key itself. */
type DirectoryEntry = {
  readonly keyId: string;
  readonly orgId: string;
  readonly revoked: boolean;
  /** Milliseconds since 1970. */
  readonly expiresAt?: number;
};

export type KeyDirectoryRow = ReadModelRow<"keys", DirectoryEntry>;

/** Token hash → key. Whether a key may be used is decided at admission; this only tells unknown, revoked and expired ones early. */
export const keyDirectoryProjection: Projection<"key-directory", KeyDirectoryRow> = {
  name: "key-directory",
  version: 1,
  handles: new Set(["KeyIssued.v1", "KeyRevoked.v1"]),
  resumes: false,
  open: () => settingFold<KeyDirectoryRow>(writeOf),
};

function writeOf(event: RecordedEvent): KeyDirectoryRow | undefined {
  const said = directoryEntryOf(event);
  return said && { table: "keys", key: said.tokenHash, value: said.entry };
}

/** What an event says of a key, or undefined for an event that says nothing of one. */
export function directoryEntryOf(
  event: RecordedEvent,
): { tokenHash: string; entry: DirectoryEntry } | undefined {
  if (event.type === "KeyRevoked.v1") {
    const { tokenHash, keyId, orgId } = event.data;
    return { tokenHash, entry: { keyId, orgId, revoked: true } };
  }
  if (event.type !== "KeyIssued.v1") return undefined;
  const { tokenHash, keyId, orgId, expiresAt } = event.data;
  const ends = expiresAt === undefined ? {} : { expiresAt };
  return { tokenHash, entry: { keyId, orgId, revoked: false, ...ends } };
}

/** The entries that the rows of this read model hold. */
export function* keyEntries(
  rows: PackedRows<KeyDirectoryRow>,
): Generator<{ tokenHash: string; entry: DirectoryEntry }> {
  for (const { key, value } of unpackRows(rows)) yield { tokenHash: key, entry: value };
}
