import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newEvent } from "#domain/events/events.ts";
import { sha256Hex } from "#domain/hash.ts";
import { makeKeyText, parseKeyText } from "#domain/key-text.ts";
import { MICRO_MAX } from "#domain/money.ts";
import type { AppendOutcome } from "#services/ports.ts";
import { controlWorld, interposed, type ControlWorld } from "#test/worlds/control-world.ts";
import { createControl, type ControlParts } from "./commands.ts";

const containing = (text: string): unknown => expect.stringContaining(text);

let world: ControlWorld;
beforeAll(async () => {
  world = await controlWorld();
});
afterAll(() => world.close());

/** The value of an outcome that must be good. */
function good<T extends { readonly ok: boolean }>(outcome: T): Extract<T, { readonly ok: true }> {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome));
  return outcome as Extract<T, { readonly ok: true }>;
}

async function newOrganization(): Promise<string> {
  return good(await world.control.createOrganization({ name: "Acme" })).value.id;
}

const streamOf = (stream: string) =>
  world.store.read(stream, { from: "start", direction: "forward", max: 500 });
const page = { limit: 100, order: "desc" } as const;

describe("without an Idempotency-Key", () => {
  test("every call makes something new", async () => {
    const orgId = await newOrganization();
    expect(await newOrganization()).not.toBe(orgId);
    const one = good(await world.control.addCredit(orgId, { amountMicro: 10_005 }));
    const other = good(await world.control.addCredit(orgId, { amountMicro: 10_005 }));
    expect(one.value.id).not.toBe(other.value.id);
    expect(good(await world.control.balance(orgId)).value).toMatchObject({
      credits_micro: 20_010,
      credits_dollars: "0.02001",
      held_micro: 0,
      available_micro: 20_010,
      funded_micro: 20_010,
      spent_micro: 0,
    });
  });
});

describe("with an Idempotency-Key", () => {
  test("a repeat is answered as the first time and records nothing", async () => {
    const context = { idempotencyKey: "one" };
    const first = good(await world.control.createOrganization({ name: "Idem" }, context));
    const again = good(await world.control.createOrganization({ name: "Idem" }, context));
    expect(again).toEqual({ ...first, replayed: true });
    expect(first.replayed).toBe(false);
    const orgId = first.value.id;
    const credit = good(await world.control.addCredit(orgId, { amountMicro: 10_007 }, context));
    expect(good(await world.control.addCredit(orgId, { amountMicro: 10_007 }, context))).toEqual({
      ...credit,
      replayed: true,
    });
    expect((await streamOf(`org-${orgId}`)).map(({ type }) => type)).toEqual([
      "OrganizationCreated.v1",
      "CreditToppedUp.v1",
    ]);
    expect(good(await world.control.balance(orgId)).value.credits_micro).toBe(10_007);
  });

  test("another body is an error and records nothing", async () => {
    const context = { idempotencyKey: "two" };
    const orgId = good(await world.control.createOrganization({ name: "A" }, context)).value.id;
    const error = { ok: false, error: { code: "idempotency_error" } };
    expect(await world.control.createOrganization({ name: "B" }, context)).toEqual(error);
    good(await world.control.addCredit(orgId, { amountMicro: 10_007 }, context));
    expect(await world.control.addCredit(orgId, { amountMicro: 10_008 }, context)).toEqual(error);
    good(await world.control.issueKey(orgId, { rpm: 1 }, context));
    expect(await world.control.issueKey(orgId, { rpm: 2 }, context)).toEqual(error);
    expect(await streamOf(`org-${orgId}`)).toHaveLength(2);
  });

  test("the same key means another thing for another organization and another kind of command", async () => {
    const context = { idempotencyKey: "three" };
    const [one, other] = [await newOrganization(), await newOrganization()];
    const first = good(await world.control.addCredit(one, { amountMicro: 10_007 }, context));
    const second = good(await world.control.addCredit(other, { amountMicro: 10_008 }, context));
    const issued = good(await world.control.issueKey(one, {}, context));
    expect([second.replayed, issued.replayed]).toEqual([false, false]);
    expect(second.value.id).not.toBe(first.value.id);
  });

  test("a repeated issuance does not show the secret again", async () => {
    const orgId = await newOrganization();
    const context = { idempotencyKey: "four" };
    const { key: text, ...rest } = good(
      await world.control.issueKey(orgId, { rpm: 60 }, context),
    ).value;
    const again = good(await world.control.issueKey(orgId, { rpm: 60 }, context));
    expect(text).toMatch(/^relai_sk_us_live_/);
    expect(again).toEqual({
      ok: true,
      replayed: true,
      isThisText: false,
      value: { ...rest, key: null },
    });
  });

  test("of many at once exactly one is new, and its answer is what is recorded", async () => {
    const orgId = await newOrganization();
    const context = { idempotencyKey: "five" };
    const outcomes = await Promise.all(
      Array.from({ length: 20 }, () => world.control.issueKey(orgId, {}, context)),
    );
    const fresh = outcomes.map(good).filter((outcome) => !outcome.replayed);
    expect(fresh).toHaveLength(1);
    const [{ value } = { value: undefined }] = fresh;
    const [issued, ...more] = await streamOf(`key-${value?.id}`);
    expect(more).toEqual([]);
    expect(issued?.data).toMatchObject({ tokenHash: sha256Hex(value?.key ?? "") });
  });

  test("top-ups at once each count once", async () => {
    const orgId = await newOrganization();
    const outcomes = await Promise.all(
      Array.from({ length: 8 }, (_, number) =>
        world.control.addCredit(
          orgId,
          { amountMicro: 10_000 },
          { idempotencyKey: `n${number % 4}` },
        ),
      ),
    );
    expect(outcomes.map(good).filter((outcome) => !outcome.replayed)).toHaveLength(4);
    expect(good(await world.control.balance(orgId)).value.credits_micro).toBe(40_000);
  });
});

describe("a key", () => {
  test("works when it is answered, and does not when it is revoked", async () => {
    const orgId = await newOrganization();
    const { id, key } = good(await world.control.issueKey(orgId, { name: "app" })).value;
    const hash = sha256Hex(key ?? "");
    expect(parseKeyText(key ?? "")).toMatchObject({ ok: true, scope: "regional", region: "us" });
    expect(world.directory.get(hash)).toEqual({ keyId: id, orgId, revoked: false });
    const revoked = good(await world.control.revokeKey(id)).value;
    expect(world.directory.get(hash)).toEqual({ keyId: id, orgId, revoked: true });
    expect(revoked.revoked_at).not.toBeNull();
    expect(good(await world.control.revokeKey(id)).value).toEqual(revoked);
    expect(await streamOf(`key-${id}`)).toHaveLength(2);
  });

  test("can have a text that its caller keeps already", async () => {
    const orgId = await newOrganization();
    const keyText = makeKeyText("us", (count) => world.parts.random.bytes(count));
    const context = { idempotencyKey: "six", keyText };
    const first = good(await world.control.issueKey(orgId, {}, context));
    expect([first.value.key, first.isThisText]).toEqual([keyText, true]);
    const again = good(await world.control.issueKey(orgId, {}, context));
    expect([again.value.key, again.replayed, again.isThisText]).toEqual([null, true, true]);
  });

  test("its text is in no event, no list and no read model", async () => {
    const orgId = await newOrganization();
    const { key } = good(await world.control.issueKey(orgId, {})).value;
    const secret = (key ?? "").slice("relai_sk_us_live_".length);
    const lists = JSON.stringify(await world.control.listKeys(page));
    const rows = JSON.stringify(
      (await world.parts.projector.rows("management", await world.store.head())).rows,
    );
    const events: string[] = [];
    for await (const batch of world.store.follow({
      after: "start",
      signal: AbortSignal.timeout(200),
    })) {
      events.push(...batch.map(({ data, metadata }) => JSON.stringify({ data, metadata })));
    }
    expect(events.join("")).toContain(sha256Hex(key ?? ""));
    expect(rows).toContain(sha256Hex(key ?? ""));
    for (const text of [lists, rows, events.join("")]) expect(text).not.toContain(secret);
  });

  test("is found by the digest of its text", async () => {
    const orgId = await newOrganization();
    await world.control.issueKey(orgId, {});
    const { id, key } = good(await world.control.issueKey(orgId, {})).value;
    const found = await world.control.listKeys(page, { tokenSha256: sha256Hex(key ?? "") });
    expect(good(found).value.data.map((one) => one.id)).toEqual([id]);
  });
});

describe("lists", () => {
  test("are cut into pages in both orders", async () => {
    const orgId = await newOrganization();
    const ids: string[] = [];
    for (const name of ["a", "b", "c"])
      ids.push(good(await world.control.issueKey(orgId, { name })).value.id);
    const idsOf = async (given: Parameters<typeof world.control.listKeysOf>[1]) => {
      const { data, ...rest } = good(await world.control.listKeysOf(orgId, given)).value;
      return [data.map(({ id }) => id), rest.has_more, rest.first_id, rest.last_id];
    };
    const [a, b, c] = ids;
    expect(await idsOf({ limit: 2, order: "asc" })).toEqual([[a, b], true, a, b]);
    expect(await idsOf({ limit: 2, order: "asc", after: b ?? "" })).toEqual([[c], false, c, c]);
    expect(await idsOf({ limit: 2, order: "desc" })).toEqual([[c, b], true, c, b]);
    expect(await idsOf({ limit: 3, order: "desc" })).toEqual([[c, b, a], false, c, a]);
    expect(await idsOf({ limit: 3, order: "desc", after: a ?? "" })).toEqual([
      [],
      false,
      null,
      null,
    ]);
    const error = { code: "invalid_request", param: "after" };
    expect(await world.control.listKeysOf(orgId, { ...page, after: "nobody" })).toMatchObject({
      ok: false,
      error,
    });
  });
});

describe("refusals", () => {
  test("of what is not there", async () => {
    const nobody = { ok: false, error: { code: "not_found" } };
    expect(await world.control.addCredit("org_x", { amountMicro: 10_000 })).toMatchObject(nobody);
    expect(await world.control.issueKey("org_x", {})).toMatchObject(nobody);
    expect(await world.control.revokeKey("key_x")).toMatchObject(nobody);
    expect(await world.control.balance("org_x")).toMatchObject(nobody);
    expect(await world.control.getOrganization("org_x")).toMatchObject(nobody);
    expect(await world.control.listKeysOf("org_x", page)).toMatchObject(nobody);
  });

  test("of more money than an account can carry", async () => {
    const orgId = await newOrganization();
    good(await world.control.addCredit(orgId, { amountMicro: MICRO_MAX }));
    const refused = await world.control.addCredit(orgId, { amountMicro: 10_000 });
    expect(refused).toMatchObject({ ok: false, error: { code: "invalid_request" } });
    expect(good(await world.control.balance(orgId)).value.credits_micro).toBe(MICRO_MAX);
  });

  test("of less than a cent, which says what to do", async () => {
    const orgId = await newOrganization();
    expect(await world.control.addCredit(orgId, { amountMicro: 9_999 })).toMatchObject({
      ok: false,
      error: {
        code: "invalid_request",
        param: "amount_dollars",
        message: containing("at least 0.01 dollars"),
      },
    });
    expect(await streamOf(`org-${orgId}`)).toHaveLength(1);
  });

  test("of more than 1,000 unspent top-ups, also of many at once; spent ones do not count", async () => {
    const orgId = await newOrganization();
    const stream = `org-${orgId}`;
    const [created] = await streamOf(stream);
    if (!created) throw new Error("the organization was created");
    const lots = Array.from({ length: 999 }, (_, at) => {
      const topUpId = `lot_${String(at).padStart(26, "0")}`;
      const facts = { amountMicro: 10_000, source: "manual", pot: "paid" } as const;
      const data = { orgId, topUpId, ...facts, bodySha256: "0".repeat(64) };
      return newEvent(stream, topUpId, "CreditToppedUp.v1", data, created.metadata);
    });
    await world.store.append(stream, lots.slice(0, 500), 0n);
    await world.store.append(stream, lots.slice(500), 500n);
    const many = await Promise.all(
      Array.from({ length: 5 }, () => world.control.addCredit(orgId, { amountMicro: 10_000 })),
    );
    expect(many.filter(({ ok }) => ok)).toHaveLength(1);
    const refused = { ok: false, error: { code: "invalid_request", param: null } };
    for (const outcome of many) if (!outcome.ok) expect(outcome).toMatchObject(refused);
    expect(await world.control.addCredit(orgId, { amountMicro: 10_000 })).toMatchObject({
      error: { message: containing("1000 top-ups with money left") },
    });
    const control = (figures: ControlParts["admission"]["figures"]) =>
      createControl({ ...world.parts, admission: { ...world.parts.admission, figures } });
    const spent = control(async (ask) => {
      const found = await world.parts.admission.figures(ask);
      return found.outcome === "figures" ? { ...found, unspentLots: 999 } : found;
    });
    good(await spent.addCredit(orgId, { amountMicro: 10_000 }));
    // Where it is not known there is no guess.
    const unknown = control(() => Promise.reject(new Error("no answer")));
    expect(await unknown.addCredit(orgId, { amountMicro: 10_000 })).toMatchObject({
      ok: false,
      error: { code: "ledger_unavailable" },
    });
  });

  test("of an expiry in the past", async () => {
    const orgId = await newOrganization();
    expect(await world.control.issueKey(orgId, { expiresAtMs: 1 })).toMatchObject({
      ok: false,
      error: { code: "invalid_request", param: "expires_at" },
    });
  });
});

describe("when parts fail", () => {
  test("a change that cannot be seen in time is said to be recorded", async () => {
    const waits: number[] = [];
    const control = createControl({
      ...world.parts,
      applied: (_orgId, _position, limitMs) => Promise.resolve(waits.push(limitMs) < 0),
    });
    const outcome = await control.createOrganization({ name: "Late" }, { idempotencyKey: "late" });
    expect(outcome).toMatchObject({
      ok: false,
      error: { code: "ledger_unavailable", doNotRetry: true, extra: { recorded: true } },
    });
    expect(waits).toEqual([5000]);
    const seen = await world.control.createOrganization(
      { name: "Late" },
      { idempotencyKey: "late" },
    );
    expect(good(seen).replayed).toBe(true);
    const issued = await control.issueKey(good(seen).value.id, {});
    expect(JSON.stringify(issued)).not.toMatch(/relai_sk/);
  });

  test("a reply that was lost after the commit is asked for again: nothing is doubled", async () => {
    const orgId = await newOrganization();
    let lost = 0;
    const store = interposed(world.store, async (inner, ...call): Promise<AppendOutcome> => {
      const answer = await inner.append(...call);
      return lost++ === 0 ? { outcome: "unknown", reason: "lost" } : answer;
    });
    const control = createControl({ ...world.parts, store });
    const issued = good(await control.issueKey(orgId, {}));
    expect([lost, issued.replayed]).toEqual([2, false]);
    expect(world.directory.has(sha256Hex(issued.value.key ?? ""))).toBe(true);
  });

  test("somebody faster is waited for, but not for ever", async () => {
    const orgId = await newOrganization();
    let tries = 0;
    const conflicting = (most: number) =>
      interposed(world.store, async (inner, ...call) =>
        ++tries <= most ? { outcome: "conflict", actual: 0n } : inner.append(...call),
      );
    const once = createControl({ ...world.parts, store: conflicting(1) });
    expect(good(await once.addCredit(orgId, { amountMicro: 10_000 })).replayed).toBe(false);
    expect(tries).toBe(2);
    tries = 0;
    const { clock } = world.parts;
    const hurried = { ...clock, timer: (_: number, then: () => void) => clock.timer(0, then) };
    const never = { ...world.parts, store: conflicting(Infinity), clock: hurried };
    const always = createControl(never);
    expect(await always.addCredit(orgId, { amountMicro: 10_000 })).toMatchObject({
      ok: false,
      error: { code: "ledger_unavailable" },
    });
    expect(tries).toBe(100);
    expect(good(await world.control.balance(orgId)).value.credits_micro).toBe(10_000);
  });

  test("a store that refuses is a 503, and nothing was recorded", async () => {
    const orgId = await newOrganization();
    const store = interposed(world.store, () =>
      Promise.resolve({ outcome: "refused", reason: "disk_full" }),
    );
    const control = createControl({ ...world.parts, store });
    expect(await control.addCredit(orgId, { amountMicro: 10_000 })).toMatchObject({
      ok: false,
      error: { code: "ledger_unavailable", message: containing("disk_full") },
    });
    expect(good(await world.control.balance(orgId)).value.credits_micro).toBe(0);
  });

  test("a balance that admission does not know is not a balance of zero", async () => {
    const orgId = await newOrganization();
    for (const fenced of ["absent", "fault", undefined] as const) {
      const figures = () =>
        fenced
          ? Promise.resolve({ outcome: "fenced", fenced } as const)
          : Promise.reject(new Error("the admission store does not answer"));
      const admission = { ...world.parts.admission, figures };
      const control = createControl({ ...world.parts, admission });
      expect(await control.balance(orgId)).toMatchObject({
        ok: false,
        error: { code: "ledger_unavailable" },
      });
      expect(await control.balance("org_x")).toMatchObject({ error: { code: "not_found" } });
    }
  });

  test("a balance that admission does not have yet is asked for, and told once it is there", async () => {
    const orgId = await newOrganization();
    const wanted: string[] = [];
    const { figures } = world.parts.admission;
    const admission: ControlParts["admission"] = {
      figures: async (ask) =>
        wanted.length < 2 ? { outcome: "fenced", fenced: "absent" } : figures(ask),
      want: async (asked) => void wanted.push(asked),
    };
    const control = createControl({ ...world.parts, admission });
    expect(good(await control.balance(orgId)).value.credits_micro).toBe(0);
    expect(wanted).toEqual([orgId, orgId]);
  });
});
