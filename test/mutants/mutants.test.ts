import { afterAll, beforeAll, expect, test } from "vitest";
import { MUTANTS, type Mutant } from "./mutants.ts";
import { checkFits, copyTree, mutated, StaleMutant, type Copy } from "./runner.ts";

let copy: Copy;
beforeAll(() => {
  copy = copyTree();
});
afterAll(() => copy.remove());

test("every mutant has a name of its own", () => {
  expect(new Set(MUTANTS.map(({ name }) => name)).size).toBe(MUTANTS.length);
});

test.for(MUTANTS)("$name fits the product as it is", (mutant) => checkFits(mutant));

test("one that fits no more, or fits twice, is an error and not a pass", () => {
  const mutant: Mutant = {
    name: "stale",
    why: "",
    file: "domain/hold.ts",
    find: "a + b",
    replace: "a - b",
    proof: { file: "domain/hold.test.ts", test: "any" },
  };
  expect(mutated(mutant, "return a + b;")).toBe("return a - b;");
  expect(() => mutated(mutant, "return a;")).toThrow(StaleMutant);
  expect(() => mutated(mutant, "return a + b; a + b")).toThrow(StaleMutant);
});

test("without its mutant every proof is green: it is the mutant that is noticed", async () => {
  const runs = await copy.run(MUTANTS.map(({ proof }) => proof));
  const notGreen = runs.flatMap((run, at) =>
    run.failed === 0 && run.passed > 0 ? [] : [{ mutant: MUTANTS[at]?.name, ...run }],
  );
  expect(notGreen).toEqual([]);
});

test.for(MUTANTS)("$name is noticed: $why", async (mutant) => {
  const { failed, why } = await copy.runMutated(mutant);
  expect({ isNoticed: failed > 0, why }).toMatchObject({ isNoticed: true });
});
