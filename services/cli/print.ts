import type { Output } from "./world.ts";

/** What people read: tables, named values and a bar. */

export interface Column<Row> {
  readonly title: string;
  readonly of: (row: Row) => string;
  /** Numbers stand under each other by their last digit. */
  readonly right?: boolean;
}

/** Rows under their titles, aligned, two spaces between columns. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const texts = [
    columns.map((column) => column.title),
    ...rows.map((row) => columns.map((column) => column.of(row))),
  ];
  const widths = columns.map((_, at) => Math.max(...texts.map((line) => line[at]?.length ?? 0)));
  return texts
    .map((line) =>
      line
        .map((text, at) => {
          const width = widths[at] ?? 0;
          return columns[at]?.right ? text.padStart(width) : text.padEnd(width);
        })
        .join("  ")
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join("");
}

/** Names and their values, the values in one column. */
export function named(pairs: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join("");
}

const BAR_WIDTH = 30;

/** Shows how far a piece of work is: a bar that moves on a terminal, else nothing but what `done` says. */
export function createBar(out: Output) {
  let shown = false;
  return {
    show(label: string, fraction: number, note: string): void {
      if (!out.isTerminal) return;
      shown = true;
      const filled = Math.round(Math.min(1, Math.max(0, fraction)) * BAR_WIDTH);
      const bar = "#".repeat(filled).padEnd(BAR_WIDTH, ".");
      // Back to the start of the line, and away with what a longer line left there.
      out.write(`\r${label} [${bar}] ${note}\u001B[K`);
    },
    clear(): void {
      if (shown) out.write("\r\u001B[K");
      shown = false;
    },
  };
}
