import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { createScan, scanObject, valueEnd, valueStart } from "./scan.ts";
import { inserting, removing, replacing, splice } from "./splice.ts";
import type { Edit } from "./splice.ts";

const NAMES = ["a", "b", "c", "d", "e"];

const space = fc.string({ unit: fc.constantFrom(" ", "\n", "\t"), maxLength: 2 });
const value = fc.constantFrom(
  "1",
  '"x, }\\""',
  "[1, {}]",
  '{"a":1,"b":[2]}',
  "12345678901234567890",
  '"é😀"',
);
type What = "keep" | "remove" | "replace" | "rename";
const member = fc.record({
  value,
  before: space,
  after: space,
  colon: space,
  what: fc.constantFrom<What>("keep", "remove", "replace", "rename"),
});

describe("splice", () => {
  it("equals the edit of the parsed object, and leaves every other byte alone", () => {
    const ask = fc.record({ members: fc.array(member, { maxLength: 5 }), inserts: fc.nat(2) });
    fc.assert(
      fc.property(ask, ({ members, inserts }) => {
        const write = (at: number, key: string, text: string): string => {
          const part = members[at];
          return part === undefined
            ? ""
            : `${part.before}"${key}"${part.colon}:${part.colon}${text}${part.after}`;
        };
        const text = ` {${members.map((part, at) => write(at, NAMES[at] ?? "", part.value)).join(",")}} `;
        const bytes = Buffer.from(text);
        const scan = createScan(NAMES);
        expect(scanObject(bytes, 0, bytes.length, scan, 64)).toBeUndefined();

        const edits: Edit[] = [];
        const wanted: string[] = [];
        const kept: string[] = [];
        for (let i = 0; i < inserts; i += 1) wanted.push(`"new${i}":"né"`);
        members.forEach((part, slot) => {
          const keyStart = scan.spans[slot * 4] ?? 0;
          const keyEnd = scan.spans[slot * 4 + 1] ?? 0;
          const name = NAMES[slot] ?? "";
          if (part.what === "remove")
            edits.push(removing({ keyStart, valueEnd: valueEnd(scan, slot) }));
          else {
            if (part.what === "replace")
              edits.push(replacing(valueStart(scan, slot), valueEnd(scan, slot), '"nëw"'));
            if (part.what === "rename") edits.push(replacing(keyStart, keyEnd, `"${name}${name}"`));
            const key = part.what === "rename" ? name + name : name;
            kept.push(write(slot, key, part.what === "replace" ? '"nëw"' : part.value));
          }
        });
        wanted.push(...kept);
        for (let i = 0; i < inserts; i += 1) {
          edits.push(
            inserting(scan.objectStart, `"new${i}":"né"`, kept.length > 0 || i < inserts - 1),
          );
        }
        const out = splice(bytes, edits).toString();
        expect(JSON.parse(out)).toEqual(JSON.parse(`{${wanted.join(",")}}`));
        // White space around a removed member may stay; everything else is byte for byte what was written.
        expect(out.replace(/[ \n\t]/g, "")).toBe(`{${wanted.join(",")}}`.replace(/[ \n\t]/g, ""));
        if (!members.some((part) => part.what === "remove"))
          expect(out).toBe(` {${wanted.join(",")}} `);
      }),
      { numRuns: 3000 },
    );
  });

  it("gives the same buffer back when there is nothing to do", () => {
    const bytes = Buffer.from("{}");
    expect(splice(bytes, [])).toBe(bytes);
  });
});
