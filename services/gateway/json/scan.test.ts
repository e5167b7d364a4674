import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import {
  createScan,
  firstElement,
  membersIn,
  readString,
  scanObject,
  valueEnd,
  valueStart,
} from "./scan.ts";
import type { ObjectScan, ScanFailure } from "./scan.ts";

const DEPTH_MAX = 64;
const NAMES = ["model", "n", "max_tokens"];
const createTestScan = () => createScan(NAMES, ["temperature"]);

function scan(text: string): { failure: ScanFailure | undefined; scan: ObjectScan; bytes: Buffer } {
  const bytes = Buffer.from(text);
  const found = createTestScan();
  return {
    failure: scanObject(bytes, 0, bytes.length, found, DEPTH_MAX),
    scan: found,
    bytes,
  };
}

function valueText(text: string, slot: number): string {
  const { scan: found, bytes } = scan(text);
  return bytes.toString("utf8", valueStart(found, slot), valueEnd(found, slot));
}

/** White space, and strings written with as many or few escapes as the generator likes. */
const space = fc.string({ unit: fc.constantFrom(" ", "\n", "\r", "\t"), maxLength: 3 });
const escapedUnit = fc.tuple(
  fc.string({ unit: "binary", minLength: 1, maxLength: 1 }),
  fc.boolean(),
);
const jsonString = fc
  .oneof(
    fc.array(escapedUnit, { maxLength: 12 }),
    fc.array(escapedUnit, { minLength: 40, maxLength: 120 }),
  )
  .map((units) => {
    let out = "";
    for (const [unit, escape] of units) {
      if (!escape) out += JSON.stringify(unit).slice(1, -1);
      else
        for (let i = 0; i < unit.length; i += 1)
          out += `\\u${unit.charCodeAt(i).toString(16).padStart(4, "0")}`;
    }
    return `"${out}"`;
  });
const scalar = fc.oneof(
  jsonString,
  fc.constantFrom(
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1e400",
    "12345678901234567890",
    "-1.5E-7",
    '"\\\\"',
    '"\\""',
  ),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => JSON.stringify(value)),
);
const { value: jsonText } = fc.letrec<{ value: string; array: string; object: string }>((tie) => ({
  value: fc.oneof({ maxDepth: 4, withCrossShrink: true }, scalar, tie("array"), tie("object")),
  array: fc
    .tuple(space, fc.array(fc.tuple(space, tie("value"), space), { maxLength: 4 }))
    .map(([only, items]) => `[${only}${items.map((item) => item.join("")).join(",")}]`),
  object: fc
    .tuple(
      space,
      fc.array(fc.tuple(space, jsonString, space, space, tie("value"), space), { maxLength: 4 }),
    )
    .map(
      ([only, items]) =>
        `{${only}${items.map(([a, k, b, c, v, d]) => `${a}${k}${b}:${c}${v}${d}`).join(",")}}`,
    ),
}));

/** Keys: those of the table plain or escaped, and any others. */
const memberKey = fc.oneof(
  fc.constantFrom(
    '"model"',
    '"mod\\u0065l"',
    '"n"',
    '"\\u006e"',
    '"max_tokens"',
    '"temperature"',
    '"Model"',
  ),
  jsonString,
);
const objectText = fc
  .tuple(
    space,
    fc.array(fc.tuple(space, memberKey, space, space, jsonText, space), { maxLength: 8 }),
    space,
  )
  .map(([before, items, after]) => {
    const inside = items.map(([a, k, b, c, v, d]) => `${a}${k}${b}:${c}${v}${d}`).join(",");
    return {
      text: `${before}{${inside}}${after}`,
      count: items.length,
      keys: items.map((item) => item[1]),
    };
  });

describe("scanObject", () => {
  it("finds the values that JSON.parse finds, and counts what it passes", () => {
    fc.assert(
      fc.property(objectText, ({ text, count, keys }) => {
        const { failure, scan: found, bytes } = scan(text);
        expect(failure).toBeUndefined();
        expect(found.memberCount).toBe(count);
        const parsed = JSON.parse(text) as Record<string, unknown>;
        for (const [slot, name] of NAMES.entries()) {
          const at = valueStart(found, slot);
          expect(at !== 0).toBe(Object.hasOwn(parsed, name));
          if (at === 0) continue;
          expect(JSON.parse(bytes.toString("utf8", at, valueEnd(found, slot)))).toEqual(
            parsed[name],
          );
          expect(
            readString(bytes, found.spans[slot * 4] ?? 0, found.spans[slot * 4 + 1] ?? 0),
          ).toBe(name);
        }
        const names = keys
          .map((key) => JSON.parse(key) as string)
          .filter((key) => NAMES.includes(key));
        expect(found.duplicateSlot >= 0).toBe(new Set(names).size < names.length);
      }),
      { numRuns: 2000 },
    );
  });

  it("refuses nothing that JSON.parse takes, and takes no object whose own level JSON.parse refuses", () => {
    const damage = fc.tuple(
      objectText,
      fc.nat(),
      fc.constantFrom("", "{", "}", '"', ",", ":", "\\", "x", "]"),
    );
    fc.assert(
      fc.property(damage, ([{ text }, at, put]) => {
        const index = at % (text.length + 1);
        const broken = text.slice(0, index) + put + text.slice(index + 1);
        const { failure } = scan(broken);
        let parsed: unknown;
        try {
          parsed = JSON.parse(broken);
        } catch {
          return; // JSON.parse, which follows a scan, has the last word.
        }
        expect(failure === undefined).toBe(
          typeof parsed === "object" && parsed !== null && !Array.isArray(parsed),
        );
      }),
      { numRuns: 3000 },
    );
  });

  it.each<[string, ScanFailure | undefined]>([
    ["", "not_an_object"],
    ["[]", "not_an_object"],
    ["null", "not_an_object"],
    ["\ufeff{}", "not_an_object"],
    ["{}", undefined],
    ["{} x", "trailing_bytes"],
    ['{"a":1}{"a":1}', "trailing_bytes"],
    ['{"a":1,}', "malformed"],
    ['{"a" 1}', "malformed"],
    ['{"a":}', "malformed"],
    ['{"a":1', "malformed"],
    ['{"a":"', "malformed"],
    ['{"a":"\\"', "malformed"],
    [`{"a":"${"x".repeat(100)}\\"`, "malformed"],
    ['{"a":[1}', "malformed"],
    ['{"a":[', "malformed"],
    ["{a:1}", "malformed"],
    ["{", "malformed"],
  ])("says of %j: %s", (text, failure) => {
    expect(scan(text).failure).toBe(failure);
  });

  it("counts the object itself as the first level of depth", () => {
    const nested = (depth: number): string =>
      `{"a":${"[".repeat(depth - 1)}${"]".repeat(depth - 1)}}`;
    expect(scan(nested(DEPTH_MAX)).failure).toBeUndefined();
    expect(scan(nested(DEPTH_MAX + 1)).failure).toBe("too_deep");
    expect(scan(`{"a":${"[".repeat(5_000_000)}`).failure).toBe("too_deep");
  });

  it("notes keys that come twice, also when one is written with an escape", () => {
    expect(scan('{"model":"a","n":1}').scan.duplicateSlot).toBe(-1);
    expect(scan('{"model":"a","n":1,"mod\\u0065l":"b"}').scan.duplicateSlot).toBe(0);
    expect(valueText('{"model":"a","mod\\u0065l":"b"}', 0)).toBe('"b"');
  });

  it.each(["Model", "MODEL", "\\u004dodel", "MAX_TO\u212aENS", "max_token\u017f"])(
    "notes that %s resembles a known key",
    (key) => {
      expect(scan(`{"${key}":1}`).scan.lookalikeSlot).toBeGreaterThanOrEqual(0);
    },
  );

  it("does not note keys that resemble none, or only ignored ones", () => {
    expect(scan('{"Models":1,"Temperature":2,"modèl":3}').scan.lookalikeSlot).toBe(-1);
  });

  it("counts the bytes of members that the table does not know", () => {
    expect(scan('{"model":"x","temperature":1, "extra" : [1, 2]}').scan.unknownBytes).toBe(
      '"extra"[1, 2]'.length,
    );
  });

  it("walks strings full of escaped quotes in linear time", () => {
    const text = `{"a":"${'\\"'.repeat(2_000_000)}","model":"${"\\\\".repeat(2_000_000)}","n":2}`;
    expect(valueText(text, 1)).toBe("2");
  });
});

describe("members within a value", () => {
  const membersOf = (value: unknown): number =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.keys(value).length
      : 0;
  const allOf = (value: unknown): number => {
    let count = membersOf(value);
    if (typeof value === "object" && value !== null)
      for (const inner of Object.values(value)) count += allOf(inner);
    return count;
  };

  it("are as many as a parser finds where none is there twice, at every depth and of an array's elements", () => {
    const value = fc.oneof(fc.jsonValue({ maxDepth: 4 }), fc.array(fc.jsonValue({ maxDepth: 2 })));
    const indent = fc.constantFrom(undefined, 1, "\t");
    fc.assert(
      fc.property(value, value, indent, (model, n, space) => {
        const { scan: found } = scan(JSON.stringify({ model, other: model, n }, null, space));
        expect([membersIn(found, 0), membersIn(found, 1)]).toEqual([model, n].map(allOf));
        if (!Array.isArray(n)) return;
        const own = n.reduce<number>((sum, each) => sum + membersOf(each), 0);
        expect(membersIn(found, 1, true)).toBe(own);
      }),
    );
  });

  it("count each of two with one name, and none of a member that is not there", () => {
    const { scan: found } = scan('{"n":[{"a":1,"a":{"b":":","b":2}},[{"c":3}]]}');
    expect([membersIn(found, 1), membersIn(found, 1, true)]).toEqual([5, 2]);
    scanObject(Buffer.from("{}"), 0, 2, found, DEPTH_MAX);
    expect([membersIn(found, 1), membersIn(found, 1, true)]).toEqual([0, 0]);
  });
});

describe("the first element of an array", () => {
  it("is where JSON.parse finds one, and is scanned as an object with more behind it", () => {
    const item = fc
      .tuple(space, objectText, space)
      .map(([before, { text }, after]) => before + text + after);
    fc.assert(
      fc.property(space, fc.array(item, { maxLength: 6 }), (empty, items) => {
        const text = `[${empty}${items.join(",")}]`;
        const bytes = Buffer.from(text);
        const scratch = createTestScan();
        const at = firstElement(bytes, 0, bytes.length);
        expect(at >= 0).toBe(items.length > 0);
        if (at < 0) return;
        expect(scanObject(bytes, at, bytes.length, scratch, DEPTH_MAX)).toBe("trailing_bytes");
        const [first] = JSON.parse(text) as unknown[];
        expect(JSON.parse(bytes.toString("utf8", at, scratch.objectEnd))).toEqual(first);
      }),
    );
  });

  it("is nowhere in what is no array", () => {
    expect(firstElement(Buffer.from("{}"), 0, 2)).toBe(-1);
  });
});
