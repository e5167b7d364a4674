import { expect, test } from "vitest";
import { createGates } from "./gates.ts";

test("a name lets go all that wait for it, and those that come later", () => {
  const gates = createGates(10);
  const called: string[] = [];
  gates.wait("a", () => called.push("first"));
  gates.wait("a", () => called.push("second"));
  gates.wait("b", () => called.push("other"));
  expect(gates.release("a")).toBe(2);
  gates.wait("a", () => called.push("late"));
  expect(called).toEqual(["first", "second", "late"]);
  expect(gates.release("a")).toBe(0);
});

test("who has given up is not called and not counted", () => {
  const gates = createGates(10);
  const giveUp = gates.wait("a", () => {
    throw new Error("was called");
  });
  giveUp();
  giveUp();
  expect(gates.release("a")).toBe(0);
});

test("the names released first are forgotten first", () => {
  const gates = createGates(2);
  for (const name of ["a", "b", "a", "c"]) gates.release(name);
  const called: string[] = [];
  for (const name of ["a", "b", "c"]) gates.wait(name, () => called.push(name));
  expect(called).toEqual(["a", "c"]);
});
