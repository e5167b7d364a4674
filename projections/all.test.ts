import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { orgSnapshots } from "./accounts-rows.ts";
import { PROJECTIONS, type ProjectionName, type RowsOf, type TableOf } from "./all.ts";
import { organizationRows } from "./management.ts";

test("the one list has every projection of this folder, each under a name of its own", () => {
  const files = readdirSync(import.meta.dirname);
  const projections = files.filter((file) => files.includes(file.replace(/\.ts$/, ".test.ts")));
  const names = PROJECTIONS.map(({ name }) => `${name}.ts`);
  expect(names.toSorted()).toEqual(projections.filter((file) => file !== "all.ts").toSorted());
});

test("a name and a table are of the list, and rows are read as what their projection wrote (the compiler holds this)", () => {
  const rows: { [Name in ProjectionName]: RowsOf<Name> } = {
    accounts: [],
    "key-directory": [],
    usage: [],
    management: [],
  };
  const tables: TableOf<"accounts">[] = ["holds", "writers"];
  const entries = () => [
    organizationRows(rows.management),
    orgSnapshots(rows.accounts),
    // @ts-expect-error -- rows of another projection
    organizationRows(rows.usage),
    // @ts-expect-error -- rows of another projection, with a table of the same name
    organizationRows(rows["key-directory"]),
    // @ts-expect-error -- rows of another projection
    orgSnapshots(rows["key-directory"]),
  ];
  // @ts-expect-error -- no such projection
  const name: ProjectionName = "postings";
  // @ts-expect-error -- a table of another projection
  tables.push("revocations");
  expect([name, entries().length]).toEqual(["postings", 5]);
});
