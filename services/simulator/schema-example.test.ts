import { expect, test } from "vitest";
import { exampleOf } from "./schema-example.ts";

test("a schema gets a value that fits it", () => {
  const schema = {
    type: "object",
    properties: {
      name: { type: "string", minLength: 12 },
      size: { type: "integer", minimum: 7 },
      below: { type: "number", maximum: -2 },
      colour: { enum: ["red", "green"] },
      kind: { const: "é" },
      open: { type: "boolean" },
      note: { type: ["string", "null"] },
      parts: { type: "array", items: { $ref: "#/$defs/part" }, minItems: 2 },
      either: { anyOf: [{ type: "number" }, { type: "null" }] },
    },
    $defs: { part: { type: "object", properties: { id: { type: "integer" } } } },
  };
  expect(exampleOf(schema)).toEqual({
    name: "simulated...",
    size: 7,
    below: -2,
    colour: "red",
    kind: "é",
    open: true,
    note: "simulated",
    parts: [{ id: 1 }, { id: 1 }],
    either: 1,
  });
});

test("recursion takes the way out that the schema offers", () => {
  const tree = {
    type: "object",
    properties: { next: { anyOf: [{ $ref: "#" }, { type: "null" }] } },
  };
  expect(JSON.stringify(exampleOf(tree))).toMatch(/^(\{"next":)+null\}+$/);
});

test("recursion without a way out, and wide at that, ends", () => {
  const names = Array.from({ length: 40 }, (_, at) => `p${at}`);
  const wide = {
    type: "object",
    properties: Object.fromEntries(names.map((name) => [name, { $ref: "#" }])),
  };
  expect(JSON.stringify(exampleOf(wide)).length).toBeLessThan(100_000);
});

test("what is no schema gives null", () => {
  expect(
    [undefined, 5, [], { $ref: "#/nowhere" }, { $ref: "elsewhere.json" }].map(exampleOf),
  ).toEqual([null, null, null, null, null]);
});
