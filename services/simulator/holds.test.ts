import { expect, test } from "vitest";
import { createNamedHolds } from "./holds.ts";

test("a name lets go all that wait for it, and those that come later", () => {
  const holds = createNamedHolds(10);
  const called: string[] = [];
  holds.wait("a", () => called.push("first"));
  holds.wait("a", () => called.push("second"));
  holds.wait("b", () => called.push("other"));
  expect(holds.release("a")).toBe(2);
  holds.wait("a", () => called.push("late"));
  expect(called).toEqual(["first", "second", "late"]);
  expect(holds.release("a")).toBe(0);
});

test("who has given up is not called and not counted", () => {
  const holds = createNamedHolds(10);
  const giveUp = holds.wait("a", () => {
    throw new Error("was called");
  });
  giveUp();
  giveUp();
  expect(holds.release("a")).toBe(0);
});

test("the names released first are forgotten first", () => {
  const holds = createNamedHolds(2);
  for (const name of ["a", "b", "a", "c"]) holds.release(name);
  const called: string[] = [];
  for (const name of ["a", "b", "c"]) holds.wait(name, () => called.push(name));
  expect(called).toEqual(["a", "c"]);
});
