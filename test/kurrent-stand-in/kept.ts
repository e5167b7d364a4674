import { closeSync, existsSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import type { Proposed } from "./log.ts";

/** One append as it was written. */
export interface KeptAppend {
  readonly stream: string;
  readonly createdMs: number;
  readonly events: readonly Proposed[];
}

/** What events are made of as text: a letter for each byte, so that JSON stays as readable as it was. */
const LETTERS = "latin1";
type Bytes = "data" | "metadata";
type Line = Omit<KeptAppend, "events"> & {
  readonly events: readonly (Omit<Proposed, Bytes> & Record<Bytes, string>)[];
};

/**
 * A file of appends, a line of JSON each, in which a process that was killed finds them again. A line is in the hands of
 * the operating system before the append is answered; one that a kill left half written is cut off.
 */
export function openKept(path: string) {
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  const lines = text.slice(0, text.lastIndexOf("\n") + 1);
  const file = openSync(path, "a");
  ftruncateSync(file, Buffer.byteLength(lines));
  return {
    appends: lines
      .split("\n")
      .slice(0, -1)
      .map((line): KeptAppend => {
        const { events, ...rest } = JSON.parse(line) as Line;
        const proposed = events.map(({ data, metadata, ...event }) => ({
          ...event,
          data: Buffer.from(data, LETTERS),
          metadata: Buffer.from(metadata, LETTERS),
        }));
        return { ...rest, events: proposed };
      }),
    add({ events, ...rest }: KeptAppend): void {
      const texts = events.map(({ data, metadata, ...event }) => ({
        ...event,
        data: Buffer.from(data).toString(LETTERS),
        metadata: Buffer.from(metadata).toString(LETTERS),
      }));
      writeSync(file, `${JSON.stringify({ ...rest, events: texts })}\n`);
    },
    close: () => closeSync(file),
  };
}
