import { describe, expect, it } from "vitest";
import { readKurrentUrl } from "./url.ts";

/** Stands where a password stands; no error may ever quote it. */
const CANARY = "CANARY-password";

describe("the URL of an event store", () => {
  it.for([
    ["esdb://relai:secret@db.example:2113", "esdb://db.example:2113"],
    ["esdb://relai:secret@a:1,b:2,c:3?tls=true", "esdb://a:1,b:2,c:3?tls=true"],
    ["esdb+discover://relai:secret@cluster.example", "esdb+discover://cluster.example"],
    [
      " esdb://relai:secret@a/?tlsCAFile=%2Fca.pem&keepAlive_interval=10000 ",
      "esdb://a/?tlsCAFile=%2Fca.pem&keepAlive_interval=10000",
    ],
  ] as const)("gives the client no password: %s", ([url, connection]) => {
    const credentials = { username: "relai", password: "secret" };
    expect(readKurrentUrl(url, false)).toEqual({ connection, credentials });
  });

  it("may have any user and password, percent-encoded", () => {
    const { credentials } = readKurrentUrl("esdb://a%40b:p%3A%2F%40@db", false);
    expect(credentials).toEqual({ username: "a@b", password: "p:/@" });
  });

  it("needs no user in plain text, and gives one to choose the unary path", () => {
    const { credentials } = readKurrentUrl("esdb://db?tls=false", true);
    expect(credentials.username).not.toBe("");
  });

  it.for([
    ["http://db", "must be esdb://"],
    [`kurrentdb://relai:${CANARY}@db`, "must be esdb://"],
    [`esdb://relai:${CANARY}@x@db`, "must be esdb://"],
    ["esdb://db:2113", "needs a user"],
    [`esdb://relai:${CANARY}@db?tls=false`, "only where that is asked for"],
    [`esdb://relai:${CANARY}@db?T_L-S=false`, "only where that is asked for"],
    [`esdb://relai:${CANARY}@db?throwOnAppendFailure=false`, "an option that is none of tls,"],
    [`esdb://relai:${CANARY}@a:2113,10.0.0.2:2113/`, "not an IP address"],
    [`esdb://relai:${CANARY}@db?${CANARY}=3`, "an option that is none of tls,"],
    [`esdb://relai:x?${CANARY}&b=c@db`, "must be esdb://"],
    [`esdb://relai:${CANARY}?tls=true`, "must be esdb://"],
    [`esdb://relai:x@db?keepAliveInterval=${CANARY}`, "keepAliveInterval of the event store's URL"],
    [`esdb://relai:x@db?node_preference=${CANARY}`, "nodePreference of the event store's URL"],
    [`esdb://relai:x@db?tls=${CANARY}`, "tls of the event store's URL must be true or false"],
    [`esdb://relai:x@db?tlsCAFile`, "tlsCAFile of the event store's URL must be a text"],
    [`esdb://relai:x@db,${CANARY}:abc`, "must be esdb://"],
    [`esdb://relai:${CANARY}%@db`, "percent-encoded"],
  ] as const)("is refused, and not quoted: %s", ([url, reason]) => {
    expect(() => readKurrentUrl(url, false)).toThrow(reason);
    expect(() => readKurrentUrl(url, false)).not.toThrow(CANARY);
  });
});
