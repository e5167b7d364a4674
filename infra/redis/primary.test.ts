import { describe, expect, test } from "vitest";
import { primaryAmong, serverFacts, type ServerFacts } from "./primary.ts";

const NEVER = "0".repeat(40);

function server(role: "master" | "slave", id: string, idBefore = NEVER): ServerFacts {
  return { isPrimary: role === "master", id, idBefore, evictionPolicy: "noeviction" };
}
const primary = (id: string, idBefore?: string) => server("master", id, idBefore);

describe("of several servers", () => {
  const cases: [says: string, ids: readonly ServerFacts[], meant: string[], found?: string][] = [
    ["none answers", [], ["one"]],
    ["there are replicas only", [server("slave", "one")], ["one"]],
    [
      "the only primary is taken, whoever it is",
      [primary("new"), server("slave", "one")],
      ["one"],
      "new",
    ],
    ["before the first owner the only primary is taken", [primary("one")], [], "one"],
    ["before the first owner of two none is taken", [primary("one"), primary("two")], []],
    ["one of two that nobody named is not taken", [primary("three"), primary("two")], ["one"]],
    [
      "of two that nobody named the one is taken that took the other's place",
      [primary("three", "two"), primary("four", "three")],
      ["one"],
      "four",
    ],
    ["one server at two addresses is one", [primary("two"), primary("two")], ["one"], "two"],
    ["the one that is named is taken", [primary("two"), primary("one")], ["one"], "one"],
    [
      "who was promoted in its place goes before it",
      [primary("one"), primary("two", "one")],
      ["one"],
      "two",
    ],
    [
      "who was promoted before it does not",
      [primary("one"), primary("two", "one")],
      ["two"],
      "two",
    ],
    [
      "a replica of the one that is named is not taken",
      [server("slave", "one"), primary("two")],
      ["one"],
      "two",
    ],
    [
      "promoted and promoted back",
      [primary("two", "one"), primary("three", "two")],
      ["two"],
      "three",
    ],
  ];
  for (const [says, servers, meant, found] of cases)
    test(says, () => {
      expect(primaryAmong(servers, meant)?.id).toBe(found);
      expect(primaryAmong(servers.toReversed(), meant)?.id).toBe(found);
    });

  test("of two that were promoted in the same place everybody finds the same one", () => {
    const both = [primary("three", "one"), primary("two", "one")];
    expect(primaryAmong(both, ["one"])).toBe(primaryAmong(both.toReversed(), ["one"]));
  });
});

test("a server without a replication id says nothing", () => {
  expect(() => serverFacts("role:master\r\n")).toThrow("does not say its replication id");
  const info =
    "role:master\r\nmaster_replid:ab12\r\nmaster_replid2:00\r\nmaxmemory_policy:noeviction\r\n";
  expect(serverFacts(info)).toEqual({
    isPrimary: true,
    id: "ab12",
    idBefore: "00",
    evictionPolicy: "noeviction",
  });
});
