import { accountsProjection } from "./accounts.ts";
import { keyDirectoryProjection } from "./key-directory.ts";
import { managementProjection } from "./management.ts";
import type { Projection } from "./projection.ts";
import type { PackedRows } from "./rows.ts";
import { usageProjection } from "./usage.ts";

/** Every read model there is, in the order in which they are made anew. What folds, lists or asks for them takes it from here. */
export const PROJECTIONS = [
  accountsProjection,
  keyDirectoryProjection,
  usageProjection,
  managementProjection,
] as const;

type Known = (typeof PROJECTIONS)[number];
export type ProjectionName = Known["name"];

/** The rows of a read model as its own functions take them. */
export type RowsOf<Name extends ProjectionName> = PackedRows<RowOf<Extract<Known, { name: Name }>>>;
type RowOf<One> = One extends Projection<ProjectionName, infer Row> ? Row : never;

/** The tables of a read model. */
export type TableOf<Name extends ProjectionName> = RowsOf<Name>[number]["table"];
