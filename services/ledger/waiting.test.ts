import { afterEach, expect, test } from "vitest";
import { newEvent, streams } from "#domain/events/events.ts";
import type { AdmissionStore } from "#services/ports.ts";
import { common, used } from "#test/samples/account-appends.ts";
import {
  CREDIT_MICRO,
  hashOf,
  idOf,
  ledgerWorld,
  metadata,
  orgOf,
} from "#test/worlds/ledger-world.ts";

let stop = async () => {};
afterEach(() => stop());

/** What is carried while a server is away, or stands still, or a batch fails half-way. */

const REQ = idOf("req", 1);
const AWAY = { outcome: "fenced", fenced: "away" } as const;

async function region(count: number) {
  const world = await ledgerWorld(count);
  ({ stop } = world);
  const away = new Set<string>();
  const { admission } = world;
  const { adopt, apply, figures, sweep } = admission;
  const unless = <Answer>(orgId: string, send: () => Promise<Answer>) =>
    away.has(orgId) ? Promise.resolve(AWAY) : send();
  Object.assign(admission, {
    adopt: (ask) => unless(ask.state.orgId, () => adopt(ask)),
    apply: (ask) => unless(ask.orgId, () => apply(ask)),
    figures: (ask) => unless(ask.orgId, () => figures(ask)),
    sweep: (ask) => unless(ask.orgId, () => sweep(ask)),
  } satisfies Partial<AdmissionStore>);
  return { ...world, away };
}

test("a hold whose recorded end waits for its server is not swept before it is applied", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  const orgId = orgOf(1);
  const keyId = idOf("key", 1);
  const journal = streams.journal("us", 1);
  const take = (requestId: string, writerEpoch: number) =>
    world.admission.admit({
      orgId,
      ownerEpoch: 1,
      requestId,
      writerEpoch,
      keyId,
      holdMicro: CREDIT_MICRO,
    });
  // The gateway takes everything; then the server is away, for it too: its close is not sent.
  const taken = await take(REQ, 1);
  expect(taken.outcome).toBe("admitted");
  world.away.add(orgId);
  const request = {
    ...common(REQ, CREDIT_MICRO, orgId),
    keyId,
    accounts: [
      {
        account: `${orgId}/balance`,
        period: "total",
        micro: CREDIT_MICRO,
        lots: [{ lotId: idOf("lot", 1), pot: "paid" as const, micro: CREDIT_MICRO }],
      },
    ],
  };
  const opened = {
    ...request,
    holdCostMicro: CREDIT_MICRO,
    model: "m",
    bindingIds: ["m@h"],
    priceVersion: "1",
  };
  const [usedEvent] = used(REQ, CREDIT_MICRO).events;
  const ended = { ...(JSON.parse(usedEvent?.dataJson ?? "") as object), ...request };
  await world.append(journal, [
    newEvent(journal, "a", "RequestAdmitted.v1", opened, metadata),
    newEvent(journal, "e", "UsageRecorded.v1", ended as never, metadata),
  ]);
  await world.clock.advance(3_000);
  // The server is back, and the gateway is stopped in good order before the ledger's next look, half a second apart.
  world.away.clear();
  await world.append(journal, [
    newEvent(journal, "sealed", "JournalSealed.v1", { by: "writer" }, metadata),
  ]);
  await world.clock.advance(100);
  const second = await take("req_2", 9);
  await world.clock.advance(2_000);
  expect(second).toMatchObject({ outcome: "refused" });
  expect(await world.available(1)).toBe(0);
});

test("a revocation waits five seconds for its server, which gateways may reach: then another owner fences them", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  const [orgId, keyId] = [orgOf(1), idOf("key", 1)];
  world.away.add(orgId);
  await world.topUp(1, idOf("lot", 11));
  await world.clock.advance(60_000);
  expect([await world.owners(), ledger.waiting()]).toEqual([1, 1]);
  const stream = streams.key(keyId);
  const revoked = { keyId, orgId, tokenHash: hashOf(1) };
  await world.append(stream, [
    newEvent(stream, "revoked", "KeyRevoked.v1", revoked as never, metadata),
  ]);
  await world.clock.advance(4_500);
  expect(await world.owners()).toBe(1);
  await world.clock.advance(1_500);
  expect(await world.owners()).toBe(2);
  // Nothing waits under that one: the organization comes in with all of it when its server is back.
  await world.clock.advance(600_000);
  expect([await world.owners(), ledger.waiting()]).toEqual([2, 0]);
  world.away.clear();
  await world.clock.advance(2_000);
  const ask = { orgId, ownerEpoch: 2, requestId: REQ, writerEpoch: 1, keyId, holdMicro: 1 };
  expect(await world.admission.admit(ask)).toMatchObject({ outcome: "refused" });
});

test("a batch that failed half-way and is carried again does not put anybody back", async () => {
  const world = await region(2);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  // A third one is out: its server is away, and its rows cannot be read the second time that they are asked for.
  world.away.add(orgOf(3));
  await world.create(3);
  await world.clock.advance(1_000);
  const { rows } = world.projector;
  let reads = 0;
  world.projector.rows = async (...asked) => {
    const slice = asked[3];
    const found = await rows(...asked);
    if (slice && "of" in slice && slice.of === orgOf(3) && ++reads === 2)
      throw new Error("the thread is gone");
    return found;
  };
  const { apply } = world.admission;
  const late = Promise.withResolvers<void>();
  let applies = 0;
  world.admission.apply = async (ask) => {
    const answer = await apply(ask);
    // Applied, and answered late: within the second that a command may take.
    if (ask.orgId === orgOf(1) && ++applies === 1) await late.promise;
    return answer;
  };
  world.following.shut();
  await world.topUp(2, idOf("lot", 21));
  await world.topUp(1, idOf("lot", 11));
  await world.topUp(3, idOf("lot", 31));
  reads = 0;
  world.following.open();
  await world.clock.advance(60);
  await world.topUp(1, idOf("lot", 12));
  await world.clock.advance(800);
  late.resolve();
  await world.clock.advance(100);
  await world.topUp(1, idOf("lot", 13));
  await world.clock.advance(1_000);
  expect(await world.available(1)).toBe(4 * CREDIT_MICRO);
  await world.clock.advance(10_000);
  expect([await world.available(1), await world.owners()]).toEqual([4 * CREDIT_MICRO, 1]);
});

test("what waits is given to a server once at a time, also when a look at the servers fails meanwhile", async () => {
  const world = await region(1);
  const ledger = await world.start();
  expect(await ledger.filled("all", 1_000)).toBe(true);
  world.away.add(orgOf(1));
  await world.topUp(1, idOf("lot", 11));
  await world.clock.advance(1_000);
  expect(ledger.waiting()).toBe(1);
  const { apply, seek } = world.admission;
  let [running, most] = [0, 0];
  // It answers late, and after the first two it is away again.
  let applies = 0;
  world.admission.apply = async (ask) => {
    if ((applies += 1) > 2) return AWAY;
    most = Math.max(most, (running += 1));
    await new Promise<void>((resolve) => void world.clock.timer(950, resolve));
    running -= 1;
    return apply(ask);
  };
  world.admission.seek = () => Promise.reject(new Error("none answers"));
  world.away.clear();
  await world.clock.advance(1_200);
  await world.topUp(1, idOf("lot", 12));
  await world.clock.advance(2_000);
  expect(most).toBe(1);
  Object.assign(world.admission, { apply, seek });
  await world.clock.advance(5_000);
  expect([await world.available(1), await world.owners()]).toEqual([3 * CREDIT_MICRO, 1]);
});

test("an ownership that is over waits for no apply, of however many organizations", async () => {
  const count = 500;
  const world = await ledgerWorld(count);
  ({ stop } = world);
  const ledger = await world.start();
  expect(await ledger.filled("all", 10_000)).toBe(true);
  world.following.shut();
  for (let number = 1; number <= count; number += 1)
    await world.topUp(number, idOf("lot", 1_000 + number));
  // The server stands still: each command is given up after a second. Another one has taken its place.
  const { apply } = world.admission;
  world.admission.apply = (ask) =>
    ask.orgId === orgOf(1)
      ? apply(ask)
      : new Promise((_, reject) =>
          world.clock.timer(1_000, () => reject(new Error("Command timed out"))),
        );
  world.admission.seek = async () => ["server-2"];
  world.following.open();
  let waited = 0;
  while ((await world.owners()) === 1 && waited < 30_000) {
    await world.clock.advance(500);
    waited += 500;
  }
  expect(waited).toBeLessThanOrEqual(3_000);
});
