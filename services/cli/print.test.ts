import { expect, test } from "vitest";
import { createBar, named, table } from "./print.ts";

test("a table's columns are as wide as their widest text, numbers end together", () => {
  const rows = [
    { name: "a", micro: 5 },
    { name: "longer", micro: 1234 },
  ];
  const columns = [
    { title: "NAME", of: (row: (typeof rows)[number]) => row.name },
    { title: "MICRO", of: (row: (typeof rows)[number]) => String(row.micro), right: true },
  ];
  expect(table(rows, columns)).toBe("NAME    MICRO\na           5\nlonger   1234\n");
  expect(table([], columns)).toBe("NAME  MICRO\n");
});

test("named values stand in one column", () => {
  expect(
    named([
      ["id", "x"],
      ["longer", "y"],
    ]),
  ).toBe("id      x\nlonger  y\n");
});

function output(isTerminal: boolean) {
  const written: string[] = [];
  return { written, isTerminal, write: (text: string) => void written.push(text) };
}

test("a bar moves on a terminal, in one line that it takes away again", () => {
  const out = output(true);
  const bar = createBar(out);
  bar.clear();
  expect(out.written).toEqual([]);
  bar.show("usage", 0.5, "7 events");
  bar.show("usage", 2, "9 events");
  bar.clear();
  expect(out.written).toEqual([
    `\rusage [${"#".repeat(15)}${".".repeat(15)}] 7 events\u001B[K`,
    `\rusage [${"#".repeat(30)}] 9 events\u001B[K`,
    "\r\u001B[K",
  ]);
});

test("a bar leaves anything but a terminal alone", () => {
  const out = output(false);
  const bar = createBar(out);
  bar.show("usage", 0.5, "7 events");
  bar.clear();
  expect(out.written).toEqual([]);
});
