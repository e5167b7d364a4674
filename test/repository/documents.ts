import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";

/** The documents, and their parts, as tests read them. */

export const root = fileURLToPath(new URL("../../", import.meta.url));
const skippedFolders = new Set([".git", "node_modules", ".relai", "coverage"]);

export function filesIn(folder: string, wanted: (path: string) => boolean): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return skippedFolders.has(entry.name) ? [] : filesIn(path, wanted);
    return entry.isFile() && wanted(path) ? [path] : [];
  });
}

export const textOf = (path: string) => readFileSync(join(root, path), "utf8");

/** The cells of a table's line. */
const cellsOf = (line: string) =>
  line
    .slice(1, -1)
    .split("|")
    .map((cell) => cell.trim());

/** The rows of the table whose head has exactly these cells. */
export function tableWith(text: string, head: readonly string[]): string[][] {
  const lines = text.split("\n");
  const start = lines.findIndex(
    (line) => line.startsWith("|") && cellsOf(line).join("|") === head.join("|"),
  );
  expect(start, `a table with the head ${head.join(", ")}`).toBeGreaterThanOrEqual(0);
  // The line below the head only draws it.
  const rest = lines.slice(start + 2);
  const end = rest.findIndex((line) => !line.startsWith("|"));
  return (end < 0 ? rest : rest.slice(0, end)).map(cellsOf);
}

export const inCode = (text: string) => /^`([^`]*)`$/.exec(text)?.[1];
export const namesInCode = (rows: readonly string[][]) =>
  rows.map(([name = ""]) => inCode(name) ?? name);

/** The text below each heading of one level, up to the next heading of any level. */
export function sectionsOf(text: string, level: string): Map<string, string> {
  const sections = new Map<string, string>();
  for (const part of text.split(/^(?=#+ )/m)) {
    const [head = "", ...body] = part.split("\n");
    if (head.startsWith(`${level} `)) sections.set(head.slice(level.length + 1), body.join("\n"));
  }
  return sections;
}
