import { afterEach, expect, test } from "vitest";
import { newEvent, streams } from "#domain/events/events.ts";
import {
  CREDIT_MICRO,
  gate,
  hashOf,
  idOf,
  ledgerWorld,
  metadata,
  orgOf,
} from "#test/worlds/ledger-world.ts";

let stop = async () => {};
afterEach(() => stop());

async function region(count: number) {
  const world = await ledgerWorld(count);
  ({ stop } = world);
  return world;
}

test("a claim waits for no organization, and one that is wanted comes in before the others", async () => {
  const world = await region(3);
  world.slices.shut();
  const ledger = await world.start();
  expect([ledger.isReady(), await world.available(2)]).toEqual([true, "absent"]);
  await world.admission.want(orgOf(2));
  await world.clock.advance(100);
  expect([await world.available(1), await world.available(2)]).toEqual(["absent", CREDIT_MICRO]);
  // Who asks for what a command did waits for that organization, and for no other.
  expect(await ledger.applied(orgOf(3), 1n, 1_000)).toBe(true);
  expect([await world.available(1), await world.available(3)]).toEqual(["absent", CREDIT_MICRO]);
  const filled = ledger.filled("all", 1_000);
  world.slices.open();
  expect([await filled, await world.available(1)]).toEqual([true, CREDIT_MICRO]);
  expect(world.adopted).toEqual([orgOf(2), orgOf(3), orgOf(1)]);
});

test("the others come in behind it, a bounded number at a time", async () => {
  const world = await region(600);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  expect(new Set(world.adopted).size).toBe(600);
  expect(world.adopted).toHaveLength(600);
  expect(world.sliced).toEqual([1_000, 1_000, 500, 500, 500]);
  expect(world.mostAdopting()).toBe(100);
});

test("each comes in once, however many ask for it, and whoever is first", async () => {
  const world = await region(3);
  world.slices.shut();
  world.adoptions.shut();
  const ledger = await world.start();
  await world.admission.want(orgOf(1));
  await world.clock.advance(500);
  expect(world.adopted).toEqual([orgOf(1)]);
  world.slices.open();
  await world.topUp(1, idOf("lot", 11));
  const applied = ledger.applied(orgOf(1), 1n, 5_000);
  await world.clock.advance(500);
  await world.admission.want(orgOf(1));
  await world.clock.advance(500);
  world.adoptions.open();
  await world.clock.advance(5_000);
  expect(await applied).toBe(true);
  expect(world.adopted.toSorted()).toEqual([orgOf(1), orgOf(2), orgOf(3)]);
  expect(await world.available(1)).toBe(2 * CREDIT_MICRO);
  expect(await world.owners()).toBe(1);
});

test("an event waits for the adoption, however long, and is not behind", async () => {
  const world = await region(2);
  world.slices.shut();
  await world.start();
  world.adoptions.shut();
  await world.topUp(1, idOf("lot", 11));
  await world.clock.advance(20_000);
  expect([world.adopted, await world.available(1)]).toEqual([[orgOf(1)], "absent"]);
  world.adoptions.open();
  await world.clock.advance(100);
  expect([await world.available(1), await world.owners()]).toEqual([2 * CREDIT_MICRO, 1]);
});

test("what was folded since the claim is in an adoption, and is not applied again; what follows joins on", async () => {
  const world = await region(2);
  world.slices.shut();
  world.following.shut();
  await world.start();
  for (const number of [11, 12]) await world.topUp(1, idOf("lot", number));
  await world.clock.advance(1_000);
  await world.admission.want(orgOf(1));
  await world.clock.advance(100);
  expect(await world.available(1)).toBe(3 * CREDIT_MICRO);
  await world.topUp(1, idOf("lot", 13));
  await world.create(5);
  world.following.open();
  await world.clock.advance(1_000);
  expect([await world.available(1), await world.available(5)]).toEqual([
    4 * CREDIT_MICRO,
    CREDIT_MICRO,
  ]);
  expect([await world.owners(), world.alarms]).toEqual([1, []]);
});

test("what an older owner let be taken until the fence is in every adoption", async () => {
  const world = await region(1);
  world.following.shut();
  world.interrupt(async (stream) => {
    if (stream !== streams.journal("us", 1)) return;
    world.folding.shut();
    world.clock.timer(50, world.folding.open);
    const lots = [{ lotId: idOf("lot", 1), pot: "paid" as const, micro: 300 }];
    const taking = {
      requestId: idOf("req", 1),
      orgId: orgOf(1),
      homeRegion: "us",
      keyId: idOf("key", 1),
      processingArea: "us",
      ownerEpoch: 0,
      accounts: [{ account: `${orgOf(1)}/balance`, period: "total", micro: 300, lots }],
      holdMicro: 300,
      holdCostMicro: 300,
      model: "sim-flat",
      bindingIds: ["sim-flat@simulator"],
      priceVersion: "test",
    };
    await world.append(stream, [
      newEvent(stream, "taking", "RequestAdmitted.v1", taking, metadata),
    ]);
  });
  await world.start();
  expect(await world.available(1)).toBe(CREDIT_MICRO - 300);
});

test("an adoption of unknown outcome leads to a new claim, and so does one that is gone after it", async () => {
  const world = await region(2);
  const { adopt } = world.admission;
  let failures = 1;
  world.admission.adopt = (ask) =>
    failures-- > 0 ? Promise.reject(new Error("no answer")) : adopt(ask);
  const ledger = await world.start();
  const filled = ledger.filled("all", 60_000);
  await world.clock.advance(2_000);
  expect([await filled, await world.owners()]).toEqual([true, 2]);
  world.state.orgs.delete(orgOf(2));
  await world.admission.want(orgOf(2));
  await world.clock.advance(5_000);
  expect([await world.owners(), await world.available(2)]).toEqual([3, CREDIT_MICRO]);
});

test("of two that adopt at once, one stopped half way, only the newer's states count, and the older ends", async () => {
  const world = await region(2);
  world.adoptions.shut();
  const older = await world.start();
  await world.clock.advance(500);
  expect(world.adopted).toEqual([orgOf(1), orgOf(2)]);
  const wakeOlder = world.adoptions.openToOthers();
  const newer = await world.start();
  expect(await newer.filled("all", 60_000)).toBe(true);
  const [holder, keyId] = [{ requestId: idOf("req", 1), writerEpoch: 5 }, idOf("key", 1)];
  const ask = { orgId: orgOf(1), ownerEpoch: 2, ...holder, keyId, holdMicro: 400 };
  expect(await world.admission.admit(ask)).toMatchObject({ outcome: "admitted" });
  wakeOlder();
  await Promise.all([older.superseded, world.clock.advance(5_000)]);
  // What the older had read of the accounts knows nothing of the hold, and is not put in its place.
  expect([await world.available(1), await world.available(2)]).toEqual([
    CREDIT_MICRO - 400,
    CREDIT_MICRO,
  ]);
  await world.topUp(2, idOf("lot", 22));
  await world.clock.advance(1_000);
  expect([await world.available(2), newer.isReady(), older.isReady()]).toEqual([
    2 * CREDIT_MICRO,
    true,
    false,
  ]);
  expect(await world.owners()).toBe(2);
});

test("a batch in which an organization cannot be read is carried once more, and nothing twice", async () => {
  const world = await region(2);
  world.slices.shut();
  await world.start();
  const { rows } = world.projector;
  let failures = 2;
  world.projector.rows = (projection, atLeast, tables, slice) =>
    slice && "of" in slice && failures-- > 0
      ? Promise.reject(new Error("no answer"))
      : rows(projection, atLeast, tables, slice);
  world.following.shut();
  await world.create(3);
  await world.topUp(1, idOf("lot", 11));
  world.following.open();
  await world.clock.advance(5_000);
  expect(world.alarms).toEqual(["ledger_follow_failed", "ledger_follow_failed"]);
  expect([await world.available(3), await world.available(1)]).toEqual([
    CREDIT_MICRO,
    2 * CREDIT_MICRO,
  ]);
  expect([world.adopted, await world.owners()]).toEqual([[orgOf(3), orgOf(1)], 1]);
});

test("an apply that fails while the next one's succeeds is made again, and what follows joins on", async () => {
  const world = await region(2);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  const { apply } = world.admission;
  let [failures, ofNext] = [3, 0 as unknown];
  world.admission.apply = async (ask) => {
    if (ask.orgId === orgOf(2) || failures-- <= 0) return apply(ask);
    ofNext = await world.available(2);
    // The last one ran, and only its answer was lost.
    if (failures === 0) await apply(ask);
    throw new Error("no answer");
  };
  world.following.shut();
  await world.topUp(2, idOf("lot", 21));
  await world.topUp(1, idOf("lot", 11));
  await world.topUp(2, idOf("lot", 22));
  await world.topUp(1, idOf("lot", 12));
  world.following.open();
  await world.clock.advance(2_000);
  expect(ofNext).toBe(3 * CREDIT_MICRO);
  expect([await world.available(1), await world.available(2)]).toEqual([
    3 * CREDIT_MICRO,
    3 * CREDIT_MICRO,
  ]);
  expect([world.alarms, await world.owners()]).toEqual([[], 1]);
});

test("a new organization comes in once, though nothing can be read of the accounts", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  world.projector.rows = () => Promise.reject(new Error("the projector is gone"));
  await world.create(7);
  await world.clock.advance(1_000);
  expect(await world.available(7)).toBe(CREDIT_MICRO);
  expect(world.adopted.filter((orgId) => orgId === orgOf(7))).toHaveLength(1);
  expect(await world.owners()).toBe(1);
});

test("until every key is in, one that is missing is not nobody's; a put that fails is made again", async () => {
  const world = await region(1_100);
  const { put } = world.directory;
  let [puts, failures] = [0, 1];
  world.directory.put = async (all) => {
    puts += all.length;
    const at = all.findIndex(([hash]) => hash === hashOf(1_050));
    if (at < 0 || failures-- <= 0) return put(all);
    // What stands before it is in.
    await put(all.slice(0, at));
    throw new Error("no answer");
  };
  const { rows } = world.projector;
  const keys = gate();
  world.projector.rows = async (projection, ...asked) => {
    if (projection === "key-directory" && puts >= 500) await keys.pass();
    return rows(projection, ...asked);
  };
  keys.shut();
  const ledger = await world.start();
  expect(await world.directory.lookup(hashOf(1))).toMatchObject({ orgId: orgOf(1) });
  await expect(world.directory.lookup(hashOf(1_050))).rejects.toThrow("not been filled");
  const filled = ledger.filled("keys", 10_000);
  keys.open();
  await world.clock.advance(1_000);
  expect([await filled, world.alarms]).toEqual([true, ["ledger_fill_failed"]]);
  for (const number of [1_050, 1_100])
    expect(await world.directory.lookup(hashOf(number))).toMatchObject({ orgId: orgOf(number) });
  expect(await world.directory.lookup(hashOf(1_101))).toBeUndefined();
});

test("keys that were filled in and are gone mean that a server lost its memory", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  const { stateOf } = world.directory;
  world.directory.stateOf = (part, ownerEpoch) =>
    ownerEpoch === 1 ? Promise.resolve("lost") : stateOf(part, ownerEpoch);
  await world.clock.advance(3_000);
  expect([await world.owners(), ledger.isReady()]).toEqual([2, true]);
});

test("an ownership that had put everything in place is followed at once by the next, however many were lost before", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  const { stateOf } = world.directory;
  for (let lost = 1; lost <= 10; lost++) {
    world.directory.stateOf = (part, ownerEpoch) =>
      ownerEpoch <= lost ? Promise.resolve("lost") : stateOf(part, ownerEpoch);
    await world.clock.advance(1_000);
    expect([await world.owners(), ledger.isReady()]).toEqual([lost + 1, true]);
  }
});
