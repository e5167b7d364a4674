import { describe, expect, test } from "vitest";
import { toSnapshot } from "#domain/accounts/accounts.ts";
import { adopt, emptyAdmission, type Admission } from "#domain/accounts/admission.ts";
import type { OrgSnapshot } from "#domain/accounts/types.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import { auditAll } from "#domain/invariants.ts";
import { INVARIANTS, type Invariant } from "#domain/invariants/found.ts";
import { costOf, type TokenClass } from "#domain/prices.ts";
import { checkBook, checkForwarded, checkPessimistic } from "./checks.ts";
import { CATALOGUE } from "./clients.ts";
import type { Customers } from "./customers.ts";
import { rest, runSeed } from "./run.ts";
import { calmWorld } from "./scenario.ts";
import { Broken, createWatch, type Watch } from "./watch.ts";
import type { World } from "./world.ts";

/** Every checker must be able to fail: each is shown a real history with one thing in it changed. */

type Events = RecordedEvent[];

function first<T extends RecordedEvent["type"]>(
  events: Events,
  type: T,
): { at: number; event: Extract<RecordedEvent, { type: T }> } {
  const at = events.findIndex((event) => event.type === type);
  const event = events[at];
  if (event?.type !== type) throw new Error(`the history has no ${type}`);
  return { at, event: event as Extract<RecordedEvent, { type: T }> };
}

/** Puts one event in another's place with some of its data changed. */
function edit<T extends RecordedEvent["type"]>(
  events: Events,
  type: T,
  change: (data: Extract<RecordedEvent, { type: T }>["data"]) => object,
): Events {
  const { at, event } = first(events, type);
  const data = { ...event.data, ...change(event.data as never) };
  return events.with(at, { ...event, data });
}

/** The history with an event added behind its end, in a stream that goes on. */
function append(events: Events, like: RecordedEvent, changes: Partial<RecordedEvent>): Events {
  const stream = changes.stream ?? like.stream;
  const revision = events.filter((event) => event.stream === stream).at(-1)?.revision ?? -1n;
  const last = events.at(-1);
  if (!last) throw new Error("the history has events");
  const position = last.position + 1n;
  const place = { position, revision: revision + 1n, recordedAt: last.recordedAt };
  return [...events, { ...like, id: "another", ...place, ...changes } as RecordedEvent];
}

const TAMPERINGS: readonly [Invariant, string, (events: Events) => Events][] = [
  [
    "NOSPEND",
    "a top-up that was smaller",
    (all) => edit(all, "CreditToppedUp.v1", () => ({ amountMicro: 1 })),
  ],
  [
    "LIAB",
    "a top-up that is there twice",
    (all) => {
      const { at, event } = first(all, "CreditToppedUp.v1");
      return all.toSpliced(at + 1, 0, event);
    },
  ],
  [
    "HOLDCAP",
    "a charge above its hold",
    (all) => edit(all, "UsageRecorded.v1", (data) => ({ chargedMicro: data.holdMicro + 1 })),
  ],
  ["CLOSE", "a second end", (all) => append(all, first(all, "RequestReleased.v1").event, {})],
  ["CLOSE", "an end that is not there", (all) => sealOpen(all)],
  [
    "MONO",
    "an owner epoch that is passed over",
    (all) => edit(all, "OwnerChanged.v1", () => ({ ownerEpoch: 7 })),
  ],
  ["MONO", "an event that is gone", (all) => all.toSpliced(5, 1)],
  ["FENCE", "a taking under an old owner", (all) => takingUnderOldOwner(all)],
  [
    "IDEMP",
    "a request that is admitted twice",
    (all) => append(all, first(all, "RequestAdmitted.v1").event, {}),
  ],
  [
    "PRICE",
    "one token more",
    (all) =>
      edit(all, "UsageRecorded.v1", (data) => ({
        tokens: { ...data.tokens, output: (data.tokens.output ?? 0) + 1 },
      })),
  ],
  [
    "ROUND",
    "a residual that is another",
    (all) => edit(all, "UsageRecorded.v1", (data) => ({ residualPico: data.residualPico + 1 })),
  ],
];

/** A hold whose end was taken out, in a journal that is then sealed. */
function sealOpen(all: Events): Events {
  const { at, event } = first(all, "RequestReleased.v1");
  const seal = { type: "JournalSealed.v1", data: { by: "ledger" }, stream: event.stream } as const;
  return append(all.toSpliced(at, 1), event, seal);
}

function takingUnderOldOwner(all: Events): Events {
  const { event } = first(all, "RequestAdmitted.v1");
  const requestId = "req_00000000000000000000000000";
  const data = { ...event.data, requestId, ownerEpoch: 0 };
  return append(all, event, { data });
}

const versionOf = (model: string) => `${CATALOGUE.dataVersion}:${model}@simulator`;

/** Wrong pins, each in figures that agree with each other: only the catalogue tells them. */
const WRONG_PINS: readonly [string, (events: Events) => Events][] = [
  [
    "half of the price that it names, and charged so",
    (all) => edit(all, "UsageRecorded.v1", halved),
  ],
  [
    "the price of another model",
    (all) => edit(all, "UsageRecorded.v1", () => ({ priceVersion: versionOf("sim-audio") })),
  ],
  [
    "a price that never was",
    (all) => edit(all, "UsageRecorded.v1", () => ({ priceVersion: versionOf("sim-gone") })),
  ],
  [
    "a tier that the model has not",
    (all) => edit(all, "UsageRecorded.v1", () => ({ serviceTier: "priority" })),
  ],
  [
    "an admission at the price of where it cannot run",
    (all) => edit(all, "RequestAdmitted.v1", () => ({ priceVersion: versionOf("sim-audio") })),
  ],
];

function halved(data: Extract<RecordedEvent, { type: "UsageRecorded.v1" }>["data"]) {
  const half = (prices: Partial<Record<TokenClass, number>>) =>
    Object.fromEntries(Object.entries(prices).map(([name, pico]) => [name, pico / 2]));
  const [salePico, costPico] = [half(data.salePico), half(data.costPico)];
  const { micro, residualPico } = costOf(data.tokens, salePico);
  const chargedMicro = Math.min(micro, data.chargedMicro);
  const overHoldMicro = micro - chargedMicro;
  const providerCostMicro = costOf(data.tokens, costPico).micro;
  return { salePico, costPico, chargedMicro, overHoldMicro, residualPico, providerCostMicro };
}

describe("the invariants of the books", async () => {
  const { world, broken } = await runSeed(13, 6_000);
  const history = [...world.watch.events];

  test("hold over a real history", () => {
    expect(broken).toBeUndefined();
    expect(history.length).toBeGreaterThan(100);
    expect(auditAll(history, CATALOGUE)).toEqual([]);
  });

  test.each(WRONG_PINS)("PRICE finds %s, by the catalogue alone", (_what, tamper) => {
    const tampered = tamper(history);
    expect(auditAll(tampered)).toEqual([]);
    const found = auditAll(tampered, CATALOGUE).map((violation) => violation.invariant);
    expect(new Set(found)).toEqual(new Set(["PRICE"]));
  });

  test.each(TAMPERINGS)("%s finds %s", (invariant, _what, tamper) => {
    const found = auditAll(tamper(history)).map((violation) => violation.invariant);
    expect(found).toContain(invariant);
  });

  test("each has a tampering that it finds", () => {
    const named = new Set(TAMPERINGS.map(([invariant]) => invariant));
    expect(INVARIANTS.filter((invariant) => !named.has(invariant))).toEqual([]);
  });
});

/** The invariants that a run checks beside the books, each with worlds in which one thing is changed. */
describe("the invariants of a running region", async () => {
  const { world, broken } = await runSeed(13, 6_000);
  const { audit } = world.watch;
  const admission = world.servers.admission().state;

  /** What a check finds first. */
  function foundBy(check: (watch: Watch) => void): string | undefined {
    const watch = createWatch();
    check(Object.assign(watch, { audit, events: world.watch.events }));
    try {
      watch.hold();
    } catch (error) {
      if (error instanceof Broken) return error.invariant;
      throw error;
    }
    return undefined;
  }

  test("hold over a region that came to rest", () => {
    expect(broken).toBeUndefined();
    expect(foundBy((watch) => checkPessimistic(admission, audit, watch))).toBeUndefined();
    expect(foundBy((watch) => checkBook(world.book, world.seen, watch))).toBeUndefined();
  });

  /** Admission as it is, with one organization's state changed. */
  function shown(
    change: (org: OrgSnapshot) => Partial<OrgSnapshot> | undefined,
    under = (ownerEpoch: number) => ownerEpoch,
  ): Admission {
    const changed = emptyAdmission({ server: "changed" });
    let changes = 0;
    for (const { ownerEpoch, accounts } of admission.orgs.values()) {
      const state = toSnapshot(accounts);
      const changing = changes === 0 ? change(state) : undefined;
      if (changing) changes += 1;
      adopt(changed, {
        ownerEpoch: under(ownerEpoch),
        servers: ["changed"],
        state: { ...state, ...changing },
      });
    }
    expect(changes).toBe(1);
    return changed;
  }

  test.each<[string, (org: OrgSnapshot) => Partial<OrgSnapshot> | undefined]>([
    ["a balance", ({ fundedMicro }) => ({ fundedMicro: fundedMicro + 1 })],
    [
      "a lot, with its balance right",
      ({ lots }) => {
        const [one, other, ...rest] = lots;
        if (!one || !other || one.availableMicro === 0) return undefined;
        const less = { ...one, availableMicro: one.availableMicro - 1 };
        return { lots: [less, { ...other, availableMicro: other.availableMicro + 1 }, ...rest] };
      },
    ],
    [
      "a key's budget",
      ({ keys }) => {
        const key = keys.find(
          (each) => each.limits.budgetMicro !== undefined && each.spentMicro > 0,
        );
        if (!key) return undefined;
        const more = { ...key, spentMicro: key.spentMicro - 1 };
        return { keys: keys.map((each) => (each === key ? more : each)) };
      },
    ],
  ])("PESS finds a micro too much on %s", (_what, change) => {
    const changed = shown(change);
    expect(foundBy((watch) => checkPessimistic(changed, audit, watch))).toBe("PESS");
  });

  test("PESS leaves alone what an owner put in place for whom every journal is fenced, and no other", () => {
    const more = ({ fundedMicro }: OrgSnapshot) => ({ fundedMicro: fundedMicro + 1 });
    const oldest = audit.holds.oldestOwner();
    expect(oldest).toBeGreaterThan(1);
    const found = (ownerEpoch: number) =>
      foundBy((watch) =>
        checkPessimistic(
          shown(more, () => ownerEpoch),
          audit,
          watch,
        ),
      );
    expect([found(oldest - 1), found(oldest)]).toEqual([undefined, "PESS"]);
  });

  test("ONCE finds a call that reached the upstream twice, and one without a durable hold", () => {
    const [call] = world.book;
    const twice = call ? [...world.book, call] : [];
    expect(foundBy((watch) => checkBook(twice, world.seen, watch))).toBe("ONCE");
    const holds = [...audit.holds.holds.values()];
    const used = holds.find((hold) => hold.ended === "UsageRecorded.v1");
    for (const requestId of ["req_00000000000000000000000000", used?.requestId ?? ""])
      expect(foundBy((watch) => checkForwarded(audit, requestId, watch))).toBe("ONCE");
  });

  test.each<[string, (world: World, customers: Customers) => unknown]>([
    [
      "a hold of a live writer that nobody records",
      ({ servers, gateways }, { orgs }) => {
        const writerEpoch = gateways[0]?.serving()?.writer.life()?.journal.writerEpoch ?? -1;
        const { orgId, keys } = orgs[0] ?? { orgId: "", keys: [] };
        const requestId = "req_00000000000000000000000000";
        const ask = { orgId, ownerEpoch: 1, requestId, writerEpoch, keyId: keys[0]?.keyId ?? "" };
        return servers.admission().port.admit({ ...ask, holdMicro: 5 });
      },
    ],
    ["a gateway that does not go on", ({ gateways }) => gateways[0]?.serving()?.gateway.stop(0)],
    [
      "a customer who is not served",
      (_world, { orgs, revoke }) => orgs[0]?.keys[0] && revoke(orgs[0], orgs[0].keys[0]),
    ],
  ])("LIVE finds %s", async (_what, tamper) => {
    const { world: calm, customers } = await calmWorld({ seed: 1 }, (all) => {
      all.issueKey(all.create(10_000));
    });
    void tamper(calm, customers);
    await expect(rest(calm, customers)).rejects.toMatchObject({ invariant: "LIVE" });
    await calm.close();
  });
});
