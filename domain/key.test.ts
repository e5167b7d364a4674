import { expect, test } from "vitest";
import { EVENT_SCHEMAS } from "./events/schemas.ts";
import { key, KEY_REFUSALS, type KeyCommand, type KeyState } from "./key.ts";

const KEY_ID = `key_${"0".repeat(26)}`;
const ORG_ID = `org_${"0".repeat(26)}`;
const issue = {
  command: "issue",
  atMs: 1000,
  keyId: KEY_ID,
  orgId: ORG_ID,
  homeRegion: "us",
  name: "app",
  limits: {},
  tokenHash: "1".repeat(64),
  displayPrefix: "relai_sk_us_live_ab12…wxyz",
  bodySha256: "a".repeat(64),
} as const;
const revoke = { command: "revoke" } as const;

function after(...commands: readonly KeyCommand[]): KeyState {
  let state = key.initial();
  let recordedAt = 0;
  for (const command of commands) {
    const decision = key.decide(command, state);
    if (typeof decision === "string") throw new Error(decision);
    for (const event of decision) {
      recordedAt += 1;
      state = key.evolve(state, { ...event, recordedAt });
    }
  }
  return state;
}

type Row = readonly [
  what: string,
  before: readonly KeyCommand[],
  command: KeyCommand,
  expected: string,
];
const rows: readonly Row[] = [
  ["a new key", [], issue, "KeyIssued.v1"],
  [
    "the same again, with the secret of its own",
    [issue],
    { ...issue, tokenHash: "2".repeat(64) },
    "nothing new",
  ],
  [
    "the same id, another body",
    [issue],
    { ...issue, bodySha256: "b".repeat(64) },
    "idempotency_reused",
  ],
  ["an expiry after now", [], { ...issue, limits: { expiresAtMs: 1001 } }, "KeyIssued.v1"],
  ["an expiry now", [], { ...issue, limits: { expiresAtMs: 1000 } }, "expiry_not_in_future"],
  [
    "a repeat after the expiry",
    [{ ...issue, limits: { expiresAtMs: 1001 } }],
    { ...issue, atMs: 5000, limits: { expiresAtMs: 1001 } },
    "nothing new",
  ],
  ["a repeat after the revocation", [issue, revoke], issue, "nothing new"],
  ["revoking", [issue], revoke, "KeyRevoked.v1"],
  ["revoking twice", [issue, revoke], revoke, "nothing new"],
  ["revoking what never was", [], revoke, "key_unknown"],
];

test.for(rows)("%s", ([, before, command, expected]) => {
  const decision = key.decide(command, after(...before));
  const said = typeof decision === "string" ? decision : (decision[0]?.type ?? "nothing new");
  expect(said).toBe(expected);
});

test("every refusal has a row", () => {
  for (const refusal of KEY_REFUSALS)
    expect(rows.map(([, , , expected]) => expected)).toContain(refusal);
});

test.for([
  [{}, { limits: {} }],
  [{ rpm: 60 }, { limits: { rpm: 60 } }],
  [{ budgetMicro: 0 }, { limits: {}, budget: { period: "total", micro: 0 } }],
  [{ expiresAtMs: 2000 }, { limits: {}, expiresAt: 2000 }],
] as const)("the event of a key with %j", ([limits, expected]) => {
  const decision = key.decide({ ...issue, limits }, key.initial());
  const { keyId, orgId, homeRegion, name, tokenHash, displayPrefix, bodySha256 } = issue;
  const data = { keyId, orgId, scope: "regional", homeRegion, name, tokenHash, displayPrefix };
  const issued = { ...data, ...expected, bodySha256 };
  expect(decision).toEqual([{ type: "KeyIssued.v1", key: "issued", data: issued }]);
  const decided = typeof decision === "string" ? undefined : decision[0]?.data;
  expect(EVENT_SCHEMAS["KeyIssued.v1"].safeParse(decided).success).toBe(true);
});

test("a revoked key keeps what it was, and when it ended", () => {
  const state = after({ ...issue, limits: { rpm: 60 } }, revoke);
  expect(state).toMatchObject({ issued: { limits: { rpm: 60 }, issuedAtMs: 1 }, revokedAtMs: 2 });
});
