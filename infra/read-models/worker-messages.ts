import type { ProjectionName, TableOf } from "#projections/all.ts";
import type { PackedRows } from "#projections/rows.ts";
import type { RebuildProgress } from "#services/ports.ts";

/** What the projector's thread is started with. */
export interface ProjectorThreadData {
  readonly eventStorePath: string;
  /** Where the read models' files lie. */
  readonly folder: string;
  readonly pollMs: number;
  readonly batchMs: number;
}

/** What is asked of the projector's thread; the answer carries the same id. */
export type ProjectorAsk = { readonly id: number } & (
  | {
      readonly ask: "rows";
      readonly projection: ProjectionName;
      readonly atLeast: bigint | "start";
      readonly tables: readonly TableOf<ProjectionName>[] | undefined;
    }
  | { readonly ask: "rebuild"; readonly projection: ProjectionName }
  | { readonly ask: "close" }
);

/** What the projector's thread says. */
export type ProjectorSaid =
  | {
      readonly said: "rows";
      readonly id: number;
      readonly position: bigint | "start";
      readonly rows: PackedRows;
    }
  | { readonly said: "progress"; readonly id: number; readonly progress: RebuildProgress }
  | { readonly said: "rebuilt"; readonly id: number; readonly progress: RebuildProgress }
  | { readonly said: "closed"; readonly id: number }
  | { readonly said: "failed"; readonly id: number; readonly message: string }
  | {
      readonly said: "alarm";
      readonly what: string;
      readonly facts: Readonly<Record<string, string | number | boolean>>;
    };
