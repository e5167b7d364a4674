import type { Recorded, RecordedEvent } from "#domain/events/events.ts";
import { settingFold, type Projection } from "./projection.ts";
import type { ReadModelRow, ReadModelWrite } from "./rows.ts";

/** What lists show of an organization. Times are the store's own, in milliseconds. */
export type OrganizationRow = {
  readonly orgId: string;
  readonly name: string;
  readonly homeRegion: string;
  readonly createdAtMs: number;
  /** Its place in the order of creation. */
  readonly position: string;
};

/** What lists show of a key: never the key itself. */
export type IssuedKeyRow = {
  readonly keyId: string;
  readonly orgId: string;
  readonly name: string;
  readonly scope: "regional";
  readonly homeRegion: string;
  readonly tokenHash: string;
  readonly displayPrefix: string;
  readonly rpm: number | null;
  readonly budgetMicro: number | null;
  readonly expiresAtMs: number | null;
  readonly issuedAtMs: number;
  readonly position: string;
};

type RevocationRow = { readonly revokedAtMs: number };

const ORGANIZATIONS = "organizations";
const KEYS = "keys";
const REVOCATIONS = "revocations";

/** Organizations and keys as the control API lists them. */
export const managementProjection: Projection = {
  name: "management",
  version: 1,
  handles: new Set(["OrganizationCreated.v1", "KeyIssued.v1", "KeyRevoked.v1"]),
  resumes: false,
  open: () => settingFold(writeOf),
};

/** Each event sets a row of its own, so a revocation does not need what was issued. */
function writeOf(event: RecordedEvent): ReadModelWrite | undefined {
  if (event.type === "OrganizationCreated.v1") return organizationWrite(event);
  if (event.type === "KeyIssued.v1") return keyWrite(event);
  if (event.type !== "KeyRevoked.v1") return undefined;
  const row: RevocationRow = { revokedAtMs: event.recordedAt };
  return { table: REVOCATIONS, key: event.data.keyId, value: row };
}

function organizationWrite(event: Recorded<"OrganizationCreated.v1">): ReadModelWrite {
  const { orgId, name, homeRegion } = event.data;
  const row: OrganizationRow = {
    orgId,
    name,
    homeRegion,
    createdAtMs: event.recordedAt,
    position: String(event.position),
  };
  return { table: ORGANIZATIONS, key: orgId, value: row };
}

function keyWrite(event: Recorded<"KeyIssued.v1">): ReadModelWrite {
  const { keyId, orgId, name, scope, homeRegion, tokenHash, displayPrefix } = event.data;
  const { limits, budget, expiresAt } = event.data;
  const row: IssuedKeyRow = {
    keyId,
    orgId,
    name,
    scope,
    homeRegion,
    tokenHash,
    displayPrefix,
    rpm: limits.rpm ?? null,
    budgetMicro: budget?.micro ?? null,
    expiresAtMs: expiresAt ?? null,
    issuedAtMs: event.recordedAt,
    position: String(event.position),
  };
  return { table: KEYS, key: keyId, value: row };
}

/** The organizations in the order in which they were created. */
export function organizationRows(rows: readonly ReadModelRow[]): OrganizationRow[] {
  return inOrder(valuesOf<OrganizationRow>(rows, ORGANIZATIONS));
}

/** The keys in the order in which they were issued; `revokedAtMs` is null for one that was not revoked. */
export function keyRows(
  rows: readonly ReadModelRow[],
): (IssuedKeyRow & { readonly revokedAtMs: number | null })[] {
  const revoked = new Map(
    rows
      .filter((row) => row.table === REVOCATIONS)
      .map((row) => [row.key, (row.value as RevocationRow).revokedAtMs]),
  );
  return inOrder(valuesOf<IssuedKeyRow>(rows, KEYS)).map((row) => ({
    ...row,
    revokedAtMs: revoked.get(row.keyId) ?? null,
  }));
}

/** Rows of this version were written above, so they have their table's shape. */
function valuesOf<T>(rows: readonly ReadModelRow[], table: string): T[] {
  return rows.filter((row) => row.table === table).map((row) => row.value as unknown as T);
}

function inOrder<T extends { readonly position: string }>(rows: readonly T[]): T[] {
  return rows.toSorted((one, other) => (BigInt(one.position) < BigInt(other.position) ? -1 : 1));
}
