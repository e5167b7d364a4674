import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readBook } from "#test/doubles/simulator-book.ts";
import { openBook } from "./book.ts";
import type { CallBeginning } from "./book.ts";

let folder = "";
let path = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "relai-book-"));
  path = join(folder, "book.jsonl");
});
afterEach(() => rmSync(folder, { recursive: true }));

const facts = (requestId: string): Omit<CallBeginning, "call"> => ({
  atMs: 1000,
  requestId,
  keyLast4: "abcd",
  model: "sim-flat",
  stream: true,
  status: 200,
  tokens: { input: 12, output: 3 },
});
const open = { finished: false, clientGone: false, usageSent: false };
const done = { finished: true, clientGone: false, usageSent: true, endedAtMs: 2000 };

test("a call is in the file as soon as it has a number, and merged with its ending", () => {
  const book = openBook({ path, callsMax: 10 });
  expect(book.begin(facts("req_1"))).toBe(1);
  expect(book.begin(facts("req_2"))).toBe(2);
  expect(readBook(path)).toEqual([
    { call: 1, ...facts("req_1"), ...open },
    { call: 2, ...facts("req_2"), ...open },
  ]);
  book.end({ call: 1, ...done });
  const merged = [
    { call: 1, ...facts("req_1"), ...done },
    { call: 2, ...facts("req_2"), ...open },
  ];
  expect(readBook(path)).toEqual(merged);
  expect(book.calls()).toEqual(merged);
  expect(book.calls(1)).toEqual(merged.slice(1));
  expect(readFileSync(path, "utf8").split("\n")).toHaveLength(4);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  book.close();
});

test("numbers go on after a restart, and a half line of the killed one is cut off", () => {
  const first = openBook({ path, callsMax: 10 });
  first.begin(facts("req_1"));
  first.close();
  appendFileSync(path, '{"call":2,"atMs":10');
  expect(readBook(path)).toHaveLength(1);
  const second = openBook({ path, callsMax: 10 });
  expect(second.calls()).toEqual([{ call: 1, ...facts("req_1"), ...open }]);
  expect(second.begin(facts("req_2"))).toBe(2);
  second.end({ call: 1, ...done });
  expect(readBook(path).map(({ call, finished }) => [call, finished])).toEqual([
    [1, true],
    [2, false],
  ]);
  second.close();
});

test("memory keeps the newest calls, the file all", () => {
  const book = openBook({ path, callsMax: 3 });
  for (let at = 0; at < 5; at += 1) book.begin(facts(`req_${at}`));
  book.end({ call: 1, ...done });
  expect(book.calls().map(({ call }) => call)).toEqual([3, 4, 5]);
  expect(readBook(path).map(({ call }) => call)).toEqual([1, 2, 3, 4, 5]);
  book.close();
  const again = openBook({ path, callsMax: 3 });
  expect(again.calls().map(({ call }) => call)).toEqual([3, 4, 5]);
  again.close();
});

test("lines of more than the bytes read at once come through whole", () => {
  const lines = Array.from({ length: 9000 }, (_, at) =>
    JSON.stringify({ call: at + 1, ...facts(`ré_${at}`) }),
  );
  writeFileSync(path, `${lines.join("\n")}\n`);
  expect(statSync(path).size).toBeGreaterThan(1024 * 1024);
  const calls = openBook({ path, callsMax: 10_000 }).calls();
  expect(calls).toHaveLength(9000);
  expect(calls.every(({ requestId }, at) => requestId === `ré_${at}`)).toBe(true);
});

test.each(['{"call":1}\n', "not json\n"])("a damaged book is refused: %s", (text) => {
  writeFileSync(path, text);
  expect(() => openBook({ path, callsMax: 10 })).toThrow();
});

test("without a path the book is in memory", () => {
  const book = openBook({ callsMax: 3 });
  book.begin(facts("req_1"));
  book.end({ call: 1, ...done });
  expect(book.calls()).toEqual([{ call: 1, ...facts("req_1"), ...done }]);
  book.close();
});
