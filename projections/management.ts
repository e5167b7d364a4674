import type { Recorded, RecordedEvent } from "#domain/events/events.ts";
import type { EventData } from "#domain/events/schemas.ts";
import { limitsOf, type KeyLimits, type STORED_LIMITS } from "#domain/key-limits.ts";
import { settingFold, type Projection } from "./projection.ts";
import { unpackRows, type PackedRows, type ReadModelRow, type ReadModelWrite } from "./rows.ts";

/** What lists show of an organization. Times are the store's own, in milliseconds. */
export type OrganizationRow = Omit<EventData<"OrganizationCreated.v1">, "bodySha256"> & {
  readonly createdAtMs: number;
  /** Its place in the order of creation. */
  readonly position: string;
};

/** What lists show of a key: never the key itself. */
export type IssuedKeyRow = Omit<
  EventData<"KeyIssued.v1">,
  "bodySha256" | keyof typeof STORED_LIMITS
> & {
  readonly limits: KeyLimits;
  readonly issuedAtMs: number;
  readonly position: string;
};

export type ManagementRow =
  | ReadModelRow<"organizations", OrganizationRow>
  | ReadModelRow<"keys", IssuedKeyRow>
  | ReadModelRow<"revocations", { readonly revokedAtMs: number }>;
type Rows = PackedRows<ManagementRow>;
type Write = ReadModelWrite<ManagementRow>;

/** Organizations and keys as the control API lists them. */
export const managementProjection: Projection<"management", ManagementRow> = {
  name: "management",
  version: 2,
  handles: new Set(["OrganizationCreated.v1", "KeyIssued.v1", "KeyRevoked.v1"]),
  resumes: false,
  open: () => settingFold<ManagementRow>(writeOf),
};

/** Each event sets a row of its own, so a revocation does not need what was issued. */
function writeOf(event: RecordedEvent): Write | undefined {
  if (event.type === "OrganizationCreated.v1") return organizationWrite(event);
  if (event.type === "KeyIssued.v1") return keyWrite(event);
  if (event.type !== "KeyRevoked.v1") return undefined;
  const value = { revokedAtMs: event.recordedAt };
  return { table: "revocations", key: event.data.keyId, value };
}

function organizationWrite(event: Recorded<"OrganizationCreated.v1">): Write {
  const { orgId, name, homeRegion } = event.data;
  const { recordedAt: createdAtMs } = event;
  const value = { orgId, name, homeRegion, createdAtMs, position: String(event.position) };
  return { table: "organizations", key: orgId, value };
}

function keyWrite(event: Recorded<"KeyIssued.v1">): Write {
  const { keyId, orgId, name, scope, homeRegion, tokenHash, displayPrefix } = event.data;
  const facts = { keyId, orgId, name, scope, homeRegion, tokenHash, displayPrefix };
  const place = { issuedAtMs: event.recordedAt, position: String(event.position) };
  const value = { ...facts, limits: limitsOf(event.data), ...place };
  return { table: "keys", key: keyId, value };
}

/** The organizations in the order in which they were created. */
export function organizationRows(rows: Rows): OrganizationRow[] {
  return inOrder([...unpackRows(rows, "organizations")].map(({ value }) => value));
}

/** The keys in the order in which they were issued; `revokedAtMs` is null for one that was not revoked. */
export function keyRows(rows: Rows): (IssuedKeyRow & { readonly revokedAtMs: number | null })[] {
  const revokedAtMs = new Map<string, number>();
  for (const { key, value } of unpackRows(rows, "revocations"))
    revokedAtMs.set(key, value.revokedAtMs);
  const keys = [...unpackRows(rows, "keys")].map(({ key, value }) => ({
    ...value,
    revokedAtMs: revokedAtMs.get(key) ?? null,
  }));
  return inOrder(keys);
}

function inOrder<T extends { readonly position: string }>(rows: readonly T[]): T[] {
  return rows.toSorted((one, other) => (BigInt(one.position) < BigInt(other.position) ? -1 : 1));
}
