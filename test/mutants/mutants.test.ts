import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CI_MUTANTS, MUTANTS, type Mutant } from "./mutants.ts";
import { checkFits, copyTree, mutated, StaleMutant, type Copy } from "./runner.ts";

let copy: Copy;
beforeAll(() => {
  copy = copyTree();
});
afterAll(() => copy.remove());

const ofCi: readonly Mutant[] = MUTANTS.filter(({ name }) => CI_MUTANTS.includes(name));

test("every mutant has a name of its own", () => {
  expect(new Set(MUTANTS.map(({ name }) => name)).size).toBe(MUTANTS.length);
  expect(ofCi).toHaveLength(3);
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

describe("three of them in every run", () => {
  test.for(ofCi)("$name: $why", async (mutant) => {
    const broken = await copy.runMutated(mutant);
    expect(broken.failed).toBeGreaterThan(0);
    // Out again, and so green: it was the mutant that was noticed.
    const whole = await copy.run(mutant.proof);
    expect(whole).toMatchObject({ failed: 0, why: "" });
    expect(whole.passed).toBeGreaterThan(0);
  });
});
