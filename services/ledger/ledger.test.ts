import { describe, expect, test } from "vitest";
import { newEvent, streams } from "#domain/events/events.ts";
import {
  completion,
  FUNDED_MICRO,
  gatewayWorld,
  ORG,
  settled,
  type GatewayWorld,
} from "#test/worlds/gateway-world.ts";
import { handleChat } from "#test/worlds/chat-way.ts";

const metadata = { at: 1, region: "us", actor: "control", $correlationId: "c", schema: 1 } as const;

async function topUp(world: GatewayWorld, number: number): Promise<bigint> {
  const stream = streams.org(ORG);
  const topUpId = `lot_${String(number).padStart(26, "0")}`;
  const data = {
    orgId: ORG,
    topUpId,
    amountMicro: 1,
    source: "manual",
    pot: "paid",
    bodySha256: "0".repeat(64),
  } as const;
  const [last] = await world.store.read(stream, { from: "end", direction: "backward", max: 1 });
  const answer = await world.store.append(
    stream,
    [newEvent(stream, topUpId, "CreditToppedUp.v1", data, metadata)],
    last?.revision ?? "no_stream",
  );
  if (answer.outcome !== "appended")
    throw new Error(`the top-up was not written: ${answer.outcome}`);
  return answer.position;
}

/** The epochs of the region's owners, oldest first. */
async function owners(world: GatewayWorld): Promise<number[]> {
  const events = await world.store.read(streams.writers("us"), {
    from: "start",
    direction: "forward",
    max: 100,
  });
  return events.flatMap((event) =>
    event.type === "OwnerChanged.v1" ? [event.data.ownerEpoch] : [],
  );
}

/** Another ledger process claims. */
async function takeOver({ store }: GatewayWorld): Promise<void> {
  const stream = streams.writers("us");
  const [last] = await store.read(stream, { from: "end", direction: "backward", max: 1 });
  const data = { ownerEpoch: 2, writerEpoch: 9, servers: ["server-2"] };
  const event = newEvent(stream, "owner:2:9", "OwnerChanged.v1", data, metadata);
  await store.append(stream, [event], last?.revision ?? "no_stream");
}

async function expectServing(world: GatewayWorld, credits: number): Promise<void> {
  expect(world.ledger.isReady()).toBe(true);
  expect((await world.balance()).available).toBe(FUNDED_MICRO + credits);
  const answer = world.ask(handleChat);
  await world.clock.advance(500);
  world.calls.at(-1)?.answer(completion([1, 1]));
  await answer.done;
  expect(answer.status).toBe(200);
}

test("what is recorded is carried into admission, and `applied` waits for it within its limit", async () => {
  const world = await gatewayWorld();
  const position = await topUp(world, 10);
  const applied = world.ledger.applied(ORG, position, 1_000);
  await settled();
  expect(await applied).toBe(true);
  expect(await world.ledger.applied(ORG, position, 1_000)).toBe(true);
  const never = world.ledger.applied(ORG, position + 50n, 1_000);
  await world.clock.advance(1_001);
  expect(await never).toBe(false);
  await expectServing(world, 1);
});

describe("an ownership that is lost", () => {
  test("is claimed anew under the next epoch, and every organization adopted from the fold", async () => {
    const world = await gatewayWorld();
    const { apply } = world.admission;
    let refusals = 1;
    world.admission.apply = (ask) =>
      refusals-- > 0 ? Promise.resolve({ outcome: "fenced", fenced: "absent" }) : apply(ask);
    await topUp(world, 10);
    await world.clock.advance(2_000);
    expect(await owners(world)).toEqual([1, 2]);
    await topUp(world, 11);
    await world.clock.advance(1_000);
    await expectServing(world, 2);
  });

  test("is claimed where the servers of the newest owner lead, and not while they lead nowhere", async () => {
    const world = await gatewayWorld();
    const { apply, seek } = world.admission;
    const sought: (readonly string[])[] = [];
    let isLost = true;
    world.admission.seek = (meant) => {
      sought.push(meant);
      return isLost ? Promise.reject(new Error("there is no primary")) : seek(meant);
    };
    world.admission.apply = (ask) =>
      isLost ? Promise.resolve({ outcome: "fenced", fenced: "server" }) : apply(ask);
    await topUp(world, 10);
    await world.clock.advance(10_000);
    expect(await owners(world)).toEqual([1]);
    expect(world.alarms).toContain("ledger_claim_failed");
    isLost = false;
    await world.clock.advance(6_000);
    expect(await owners(world)).toEqual([1, 2]);
    expect(new Set(sought.map(String))).toEqual(new Set(["server-1"]));
    await expectServing(world, 1);
  });

  test("and a claim that fails half-way is followed by another, never by its own fence", async () => {
    const world = await gatewayWorld();
    const { apply } = world.admission;
    const { fence } = world.store;
    let [refusals, failures] = [1, 2];
    world.admission.apply = (ask) =>
      refusals-- > 0 ? Promise.resolve({ outcome: "fenced", fenced: "absent" }) : apply(ask);
    world.store.fence = (...asked) =>
      failures-- > 0 ? Promise.reject(new Error("no answer")) : fence(...asked);
    let isSuperseded = false;
    void world.ledger.superseded.then(() => (isSuperseded = true));
    await topUp(world, 10);
    await world.clock.advance(10_000);
    expect(world.alarms.filter((what) => what === "ledger_claim_failed")).toHaveLength(2);
    expect(await owners(world)).toEqual([1, 2, 3, 4]);
    expect(isSuperseded).toBe(false);
    await expectServing(world, 1);
  });

  test("an apply that never catches up is taken as lost after 5 s", async () => {
    const world = await gatewayWorld();
    const { apply } = world.admission;
    let isStuck = true;
    world.admission.apply = (ask) =>
      isStuck ? Promise.reject(new Error("no answer")) : apply(ask);
    await topUp(world, 10);
    await world.clock.advance(4_000);
    expect(await owners(world)).toEqual([1]);
    await world.clock.advance(2_500);
    isStuck = false;
    await world.clock.advance(3_000);
    expect((await owners(world)).length).toBeGreaterThan(1);
    await expectServing(world, 1);
  });

  test("is not held up by an apply that is not answered: it ends when another server has taken the place", async () => {
    const world = await gatewayWorld();
    world.admission.apply = () => Promise.reject(new Error("no answer"));
    world.admission.seek = async () => ["server-2"];
    await topUp(world, 10);
    await world.clock.advance(1_500);
    expect((await owners(world)).length).toBeGreaterThan(1);
  });

  test.for(["older", undefined] as const)(
    "to another process, told of that by an apply (%s) before the event: it claims nothing more",
    async (fenced) => {
      const world = await gatewayWorld();
      const { apply } = world.admission;
      world.admission.apply = async () => {
        world.admission.apply = apply;
        await takeOver(world);
        if (fenced) return { outcome: "fenced", fenced };
        // As after a stop of the process: the answer was lost, and more time has gone than an apply has.
        await world.clock.advance(6_000);
        throw new Error("no answer");
      };
      let isSuperseded = false;
      void world.ledger.superseded.then(() => (isSuperseded = true));
      await topUp(world, 10);
      await world.clock.advance(60_000);
      expect([isSuperseded, world.ledger.isReady()]).toEqual([true, false]);
      expect(await owners(world)).toEqual([1, 2]);
    },
  );

  test("to another process ends this one: it claims nothing more", async () => {
    const world = await gatewayWorld();
    await takeOver(world);
    let isSuperseded = false;
    void world.ledger.superseded.then(() => (isSuperseded = true));
    await world.clock.advance(60_000);
    expect([isSuperseded, world.ledger.isReady()]).toEqual([true, false]);
    expect(await owners(world)).toEqual([1, 2]);
  });
});

test("the sweep behind a seal keeps no event from being carried", async () => {
  const world = await gatewayWorld();
  const swept: number[] = [];
  world.admission.sweep = ({ writerEpoch }) => {
    swept.push(writerEpoch);
    return new Promise(() => {});
  };
  const stream = streams.journal("us", 7);
  const sealed = newEvent(stream, "sealed", "JournalSealed.v1", { by: "writer" }, metadata);
  await world.store.append(stream, [sealed], "no_stream");
  const applied = world.ledger.applied(ORG, await topUp(world, 10), 1_000);
  await world.clock.advance(1_001);
  expect([swept, await applied]).toEqual([[7], true]);
  await expectServing(world, 1);
});

test("a stop ends everything that it started", async () => {
  const world = await gatewayWorld();
  const stopping = world.ledger.stop();
  await settled();
  await stopping;
  expect(world.ledger.isReady()).toBe(false);
  await topUp(world, 10);
  await world.clock.advance(10_000);
  expect((await world.balance()).available).toBe(FUNDED_MICRO);
});
