import type { RecordedEvent } from "#domain/events/events.ts";
import { settingFold, type Projection } from "./projection.ts";
import type { ReadModelRow, ReadModelWrite } from "./rows.ts";

/** What the directory says of a key: whose it is, and whether it was revoked. Never the key itself. */
type DirectoryEntry = {
  readonly keyId: string;
  readonly orgId: string;
  readonly revoked: boolean;
};

const KEYS = "keys";

/** Token hash → key. Whether a key may be used is decided at admission; this only tells unknown and revoked ones early. */
export const keyDirectoryProjection: Projection = {
  name: "key-directory",
  version: 1,
  handles: new Set(["KeyIssued.v1", "KeyRevoked.v1"]),
  resumes: false,
  open: () => settingFold(writeOf),
};

function writeOf(event: RecordedEvent): ReadModelWrite | undefined {
  if (event.type !== "KeyIssued.v1" && event.type !== "KeyRevoked.v1") return undefined;
  const { tokenHash, keyId, orgId } = event.data;
  const entry: DirectoryEntry = { keyId, orgId, revoked: event.type === "KeyRevoked.v1" };
  return { table: KEYS, key: tokenHash, value: entry };
}

/** The entries that the rows of this read model hold. */
export function keyEntries(
  rows: readonly ReadModelRow[],
): { tokenHash: string; entry: DirectoryEntry }[] {
  // Rows of this version were written above, so they have this shape.
  return rows
    .filter((row) => row.table === KEYS)
    .map((row) => ({ tokenHash: row.key, entry: row.value as DirectoryEntry }));
}
