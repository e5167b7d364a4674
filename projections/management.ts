import type { EventData } from "#domain/events/schemas.ts";
import { limitsOf, type KeyLimits, type STORED_LIMITS } from "#domain/key-limits.ts";
import { settingProjection } from "./projection.ts";
import { unpackRows, type PackedRows, type ReadModelRow } from "./rows.ts";

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

/** Organizations and keys as the control API lists them. */
export const managementProjection = settingProjection<"management", ManagementRow>({
  name: "management",
  version: 2,
  writes: {
    "OrganizationCreated.v1": ({ data, recordedAt: createdAtMs, position }) => {
      const { orgId, name, homeRegion } = data;
      const value = { orgId, name, homeRegion, createdAtMs, position: String(position) };
      return { table: "organizations", key: orgId, value };
    },
    "KeyIssued.v1": ({ data, recordedAt: issuedAtMs, position }) => {
      const { keyId, orgId, name, scope, homeRegion, tokenHash, displayPrefix } = data;
      const facts = { keyId, orgId, name, scope, homeRegion, tokenHash, displayPrefix };
      const place = { issuedAtMs, position: String(position) };
      return { table: "keys", key: keyId, value: { ...facts, limits: limitsOf(data), ...place } };
    },
    // A row of its own, so a revocation does not need what was issued.
    "KeyRevoked.v1": ({ data, recordedAt: revokedAtMs }) => ({
      table: "revocations",
      key: data.keyId,
      value: { revokedAtMs },
    }),
  },
});

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
