import { expect, test } from "vitest";
import { MICRO_MAX } from "./money.ts";
import { normaliseName } from "./name.ts";
import {
  organization,
  ORGANIZATION_REFUSALS,
  type OrganizationCommand,
  type OrganizationState,
} from "./organization.ts";

const SHA = "a".repeat(64);
const OTHER = "b".repeat(64);
const create = {
  command: "create",
  orgId: "org_1",
  name: "Acme",
  homeRegion: "us",
  bodySha256: SHA,
} as const;
const topUp = {
  command: "top_up",
  orgId: "org_1",
  topUpId: "lot_1",
  amountMicro: 10_005,
  source: "manual",
  pot: "paid",
  bodySha256: SHA,
  unspentLots: 0,
} as const;

/** The state after commands that are all carried out, recorded at 1 ms, 2 ms, … */
function after(...commands: readonly OrganizationCommand[]): OrganizationState {
  let state = organization.initial();
  let recordedAt = 0;
  for (const command of commands) {
    const decision = organization.decide(command, state);
    if (typeof decision === "string") throw new Error(decision);
    for (const event of decision) {
      recordedAt += 1;
      state = organization.evolve(state, { ...event, recordedAt });
    }
  }
  return state;
}

test("an organization is what its events say", () => {
  const state = after(create, topUp, { ...topUp, topUpId: "lot_2", amountMicro: 10_007 });
  expect(state).toEqual({
    created: { orgId: "org_1", name: "Acme", homeRegion: "us", bodySha256: SHA, createdAtMs: 1 },
    topUps: new Map([
      ["lot_1", { topUpId: "lot_1", amountMicro: 10_005, bodySha256: SHA, createdAtMs: 2 }],
      ["lot_2", { topUpId: "lot_2", amountMicro: 10_007, bodySha256: SHA, createdAtMs: 3 }],
    ]),
    fundedMicro: 20_012,
  });
});

type Row = readonly [
  what: string,
  before: readonly OrganizationCommand[],
  command: OrganizationCommand,
  expected: string,
];
const rows: readonly Row[] = [
  ["a creation", [], create, "OrganizationCreated.v1"],
  ["the same creation again", [create], create, "nothing new"],
  ["the same id, another body", [create], { ...create, bodySha256: OTHER }, "idempotency_reused"],
  ["a top-up of nobody", [], topUp, "organization_unknown"],
  ["a top-up", [create], topUp, "CreditToppedUp.v1"],
  ["the same top-up again", [create, topUp], topUp, "nothing new"],
  ["another top-up", [create, topUp], { ...topUp, topUpId: "lot_2" }, "CreditToppedUp.v1"],
  [
    "a used top-up id, another body",
    [create, topUp],
    { ...topUp, amountMicro: 10_006, bodySha256: OTHER },
    "idempotency_reused",
  ],
  [
    "the largest total",
    [create, topUp],
    { ...topUp, topUpId: "lot_2", amountMicro: MICRO_MAX - 10_005 },
    "CreditToppedUp.v1",
  ],
  [
    "one micro above it",
    [create, topUp],
    { ...topUp, topUpId: "lot_2", amountMicro: MICRO_MAX - 10_004 },
    "funded_total_too_large",
  ],
  ["the least top-up", [create], { ...topUp, amountMicro: 10_000 }, "CreditToppedUp.v1"],
  ["one micro below it", [create], { ...topUp, amountMicro: 9_999 }, "top_up_too_small"],
  ["the last lot that there can be", [create], { ...topUp, unspentLots: 999 }, "CreditToppedUp.v1"],
  ["one lot more", [create], { ...topUp, unspentLots: 1_000 }, "too_many_unspent_lots"],
  [
    "a repeat when there are too many",
    [create, topUp],
    { ...topUp, unspentLots: 1_000 },
    "nothing new",
  ],
  [
    "a used id before the total",
    [create, { ...topUp, amountMicro: MICRO_MAX }],
    { ...topUp, amountMicro: MICRO_MAX, bodySha256: OTHER },
    "idempotency_reused",
  ],
];

test.for(rows)("%s", ([, before, command, expected]) => {
  const decision = organization.decide(command, after(...before));
  const said = typeof decision === "string" ? decision : (decision[0]?.type ?? "nothing new");
  expect(said).toBe(expected);
  if (typeof decision !== "string" && decision.length > 0) {
    const { command: _, unspentLots, ...data } = { unspentLots: 0, ...command };
    expect(unspentLots).toBeLessThan(1_000);
    expect(decision.map((event) => event.data)).toEqual([data]);
  }
});

test("smaller top-ups of older stores stay what they are, and a repeat of one is answered as the first time", () => {
  const { command: _, unspentLots: __, ...data } = { ...topUp, amountMicro: 1 };
  const old = organization.evolve(after(create), {
    type: "CreditToppedUp.v1",
    data,
    recordedAt: 9,
  });
  expect(old.fundedMicro).toBe(1);
  const again = organization.decide({ ...topUp, amountMicro: 1 }, old);
  expect(again).toEqual([]);
});

test("every refusal has a row", () => {
  for (const refusal of ORGANIZATION_REFUSALS)
    expect(rows.map(([, , , expected]) => expected)).toContain(refusal);
});

test.for([
  ["Acme", "Acme"],
  ["  Acme  ", "Acme"],
  ["Société Ünïted 株式会社 🚀", "Société Ünïted 株式会社 🚀"],
  ["x".repeat(256), "x".repeat(256)],
  ["x".repeat(257), undefined],
  ["", undefined],
  ["   ", undefined],
  ["a\nb", undefined],
  ["a\u0000b", undefined],
  ["a\u001B[31mb", undefined],
  ["a\u0085b", undefined],
  ["a\u2028b", undefined],
  ["a\uD800b", undefined],
])("the name %j becomes %j", ([text, name]) => {
  expect(normaliseName(text ?? "")).toBe(name);
});
