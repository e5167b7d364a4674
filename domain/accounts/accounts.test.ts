import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  accountsOf,
  BUDGET_KEY,
  CREATED,
  expectTrueBooks,
  funded,
  itemsOf,
  KEY,
  ORG,
  START_MS,
} from "#test/worlds/accounts-world.ts";
import { emptyAccounts, fromSnapshot, toSnapshot, type Accounts } from "./accounts.ts";
import { adopt, admit, apply, close, drop, extend, sweep } from "./admission.ts";
import { applyEffect } from "./holds.ts";
import type { Effect, OrgSnapshot } from "./types.ts";

const VERBS = [
  "admit",
  "record",
  "extend",
  "record_extended",
  "end",
  "drop",
  "sweep",
  "apply",
  "credit",
  "adopt",
] as const;
const commands = fc.array(
  fc.record({
    verb: fc.constantFrom(...VERBS, "admit", "record", "end"),
    which: fc.nat(1_000),
    micro: fc.integer({ min: 0, max: 90 }),
    closes: fc.boolean(),
  }),
  { maxLength: 150, size: "max" },
);

/** The cells of the hold table that the lives came through. */
const CELLS = new Set<string>();

interface Life {
  readonly requestId: string;
  readonly keyId: string;
  readonly writerEpoch: number;
  recorded: boolean;
  /** What is recorded of its hold. */
  totalMicro: number;
}

/** A world that acts as gateways and a ledger do: taken in the store first, recorded second, applied whenever. */
function live(list: typeof commands extends fc.Arbitrary<infer T> ? T : never) {
  const { admission, faults } = funded({ observe: (state, verb) => CELLS.add(`${state} ${verb}`) });
  const log: Effect[] = [...CREATED];
  const lives: Life[] = [];
  let ownerEpoch = 1;
  let applied = log.length;
  let made = 0;
  const org = () => ({ orgId: ORG, ownerEpoch });
  const fold = (): Accounts => {
    const accounts = emptyAccounts(ORG);
    for (const effect of log) applyEffect(accounts, effect);
    accounts.position = BigInt(log.length);
    return accounts;
  };
  const carryAll = (upTo: number) => {
    const prev = BigInt(applied);
    const items = itemsOf(
      log.slice(applied, upTo).map((effect) => [effect]),
      prev,
    );
    expect(apply(admission, { ...org(), items })).toMatchObject({ outcome: "applied" });
    applied = upTo;
  };
  const takingsOf = (requestId: string) => {
    const hold = accountsOf(admission).holds.get(requestId);
    return { totalMicro: hold?.totalMicro ?? 0, accounts: hold?.accounts ?? [] };
  };
  const forget = (life: Life) => lives.splice(lives.indexOf(life), 1);

  for (const { verb, which, micro, closes } of list) {
    const life = lives[which % Math.max(1, lives.length)];
    if (verb === "admit") {
      const next = {
        requestId: `req_${made++}`,
        keyId: which % 2 ? KEY : BUDGET_KEY,
        writerEpoch: 7 + (which % 3),
      };
      const answer = admit(admission, { ...org(), ...next, holdMicro: micro }, START_MS + made);
      const { fundedMicro, spentMicro, heldMicro } = accountsOf(admission);
      if (answer.outcome === "admitted")
        lives.push({ ...next, recorded: false, totalMicro: micro });
      // No refusal while the money is there.
      else
        expect(answer).toMatchObject({
          outcome: "refused",
          refusal: expect.stringMatching(/budget|balance/) as string,
        });
      if (answer.outcome === "refused" && answer.refusal !== "key_budget_exceeded")
        expect(fundedMicro - spentMicro - heldMicro).toBeLessThan(micro);
    } else if (verb === "credit") {
      log.push({ effect: "credited", lotId: `lot_${3 + made++}`, pot: "paid", micro: micro + 1 });
    } else if (verb === "apply") {
      carryAll(applied + Math.floor(((log.length - applied) * (which % 11)) / 10));
    } else if (verb === "adopt") {
      // A new owner: what nobody recorded never happened.
      ownerEpoch += 1;
      const state = toSnapshot(fold());
      expect(adopt(admission, { ownerEpoch, servers: ["server-1"], state })).toEqual({
        outcome: "adopted",
      });
      applied = log.length;
      for (const each of lives.filter((one) => !one.recorded)) forget(each);
    } else if (verb === "sweep") {
      // Only after all that the writer recorded is applied.
      carryAll(log.length);
      sweep(admission, { ...org(), writerEpoch: 7 + (which % 3) });
      for (const each of lives.filter(
        (one) => !one.recorded && one.writerEpoch === 7 + (which % 3),
      ))
        forget(each);
    } else if (life) {
      const { requestId, keyId, writerEpoch } = life;
      const revision = log.length;
      if (verb === "record" && !life.recorded) {
        // The event carries what `admit` answered, whatever was raised since.
        const { accounts, totalMicro } = takingsOf(requestId);
        life.totalMicro = totalMicro;
        life.recorded = true;
        log.push({
          effect: "hold_opened",
          requestId,
          keyId,
          writerEpoch,
          totalMicro,
          revision,
          accounts,
        });
      } else if (verb === "extend" && life.recorded) {
        expect(
          extend(admission, { ...org(), requestId, totalMicro: life.totalMicro + micro }),
        ).toMatchObject({ outcome: "raised" });
      } else if (verb === "record_extended" && life.recorded) {
        const { accounts, totalMicro } = takingsOf(requestId);
        life.totalMicro = totalMicro;
        log.push({ effect: "hold_extended", requestId, totalMicro, revision, accounts });
      } else if (verb === "end" && life.recorded) {
        const chargedMicro = Math.min(micro, life.totalMicro);
        log.push({ effect: "hold_closed", requestId, chargedMicro });
        // The gateway may die between its record and the close; the ledger sets it right.
        if (closes)
          expect(close(admission, { ...org(), requestId, chargedMicro })).toEqual({
            outcome: "closed",
          });
        forget(life);
      } else if (verb === "drop" && !life.recorded) {
        expect(drop(admission, { ...org(), requestId }, START_MS + made)).toEqual({
          outcome: "dropped",
        });
        forget(life);
      }
    }
    expectTrueBooks(accountsOf(admission));
    expect(faults).toEqual([]);
  }
  // At rest: everything applied, everything unrecorded dropped.
  for (const each of lives.filter((one) => !one.recorded))
    drop(admission, { ...org(), requestId: each.requestId }, START_MS + made);
  carryAll(log.length);
  return { admission, fold: fold() };
}

/** What must agree: the money by account and by lot, and the open holds as far as they are recorded. */
function comparable(snapshot: OrgSnapshot) {
  const { holds, ...rest } = snapshot;
  return {
    ...rest,
    open: holds
      .filter((hold) => hold.state === "open")
      .map((hold) => hold.requestId)
      .sort(),
  };
}

test("in random lives nothing is ever below zero, sums stand lot by lot, and the store agrees with the fold", () => {
  let holdsSeen = 0;
  fc.assert(
    fc.property(commands, (list) => {
      const { admission, fold } = live(list);
      expectTrueBooks(fold);
      // Excess that was taken and never recorded is freed when the hold ends; until then only the store has it.
      const ended = accountsOf(admission);
      for (const hold of ended.holds.values()) {
        if (hold.state !== "open") continue;
        holdsSeen += 1;
        close(admission, {
          orgId: ORG,
          ownerEpoch: [...admission.orgs.values()][0]?.ownerEpoch ?? 0,
          requestId: hold.requestId,
          chargedMicro: 0,
        });
        applyEffect(fold, { effect: "hold_closed", requestId: hold.requestId, chargedMicro: 0 });
      }
      expect(comparable(toSnapshot(ended))).toEqual(comparable(toSnapshot(fold)));
    }),
    { numRuns: 300 },
  );
  expect(holdsSeen).toBeGreaterThan(20);
  const reached = [
    [
      "absent admit",
      "provisional extend",
      "provisional drop",
      "provisional close",
      "provisional apply_open",
    ],
    [
      "provisional sweep",
      "open extend",
      "open close",
      "open apply_extended",
      "open apply_close",
      "open sweep",
    ],
    ["closed apply_open", "closed apply_extended", "closed apply_close", "tombstone sweep"],
  ].flat();
  expect([...CELLS]).toEqual(expect.arrayContaining(reached));
});

test("a snapshot gives the same state back, and is plain JSON", () => {
  fc.assert(
    fc.property(commands, (list) => {
      const { admission } = live(list);
      const snapshot = toSnapshot(accountsOf(admission));
      expect(JSON.parse(JSON.stringify(snapshot))).toEqual(snapshot);
      expect(fromSnapshot(snapshot)).toEqual(accountsOf(admission));
    }),
    { numRuns: 50 },
  );
});
