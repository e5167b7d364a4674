import { Redis } from "ioredis";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { auditAll } from "#domain/invariants.ts";
import { startRedis, type StartedRedis } from "#infra/backing/redis.ts";
import {
  failoverWorld,
  PREFIX,
  type FailoverWorld,
  type GatewayOnRedis,
} from "#test/worlds/failover-world.ts";
import { ORG } from "#test/worlds/gateway-world.ts";
import { losingProxy } from "#test/doubles/losing-proxy.ts";
import { booksOnRedis } from "#test/servers/redis-books.ts";
import { NO_PROGRAM, REDIS_PROGRAM, replicates, replicationOf } from "#test/servers/redis-world.ts";

/** A primary and its replica, the real ledger and gateways on both, and fail-overs as an operator or a sentinel makes them. */

/** Fenced answers end within this; a machine that is busy with other tests included. */
const PAUSED_MS = 400;
const SERVES_AGAIN_MS_MAX = 10_000;
const HOLDS = 40;

describe("a region on a Redis and its replica", () => {
  if (REDIS_PROGRAM === undefined) {
    test("is failed over", (context) => context.skip(NO_PROGRAM));
    return;
  }
  const program = REDIS_PROGRAM;
  const undo: (() => Promise<unknown> | void)[] = [];
  afterEach(async () => {
    for (const each of undo.splice(0).reverse()) await each();
  });

  async function start(): Promise<{ server: StartedRedis; raw: Redis }> {
    const server = await startRedis({ program, args: ["--repl-diskless-sync-delay", "0"] });
    undo.push(() => server.kill());
    const raw = new Redis(server.url, { protocol: 2, retryStrategy: () => 50 });
    raw.on("error", () => {});
    undo.push(() => raw.disconnect());
    return { server, raw };
  }

  async function proxyTo({ port }: StartedRedis) {
    const proxy = await losingProxy(port);
    undo.push(() => proxy.close());
    return { proxy, url: `redis://127.0.0.1:${proxy.port}` };
  }

  /** A tombstone is of an admission that was undone before it came: nothing is held. */
  const heldOn = async (raw: Redis) =>
    ((await booksOnRedis(raw, PREFIX, ORG))?.holds ?? []).flatMap(([requestId, { state }]) =>
      state === "tombstone" ? [] : [requestId],
    );

  async function isOwned(server: Redis): Promise<void> {
    const id = await replicationOf(server, "master_replid");
    const servers = async () => (await world.owners()).at(-1)?.servers;
    await expect.poll(servers, { timeout: 20_000, interval: 20 }).toEqual([id]);
  }

  /** Opens a hold, asking again while the ledger is unavailable, for seconds at most. */
  async function opens(gateway: GatewayOnRedis): Promise<string> {
    const begun = performance.now();
    for (;;) {
      const hold = await gateway.open();
      if (hold === "refused") throw new Error("there is no money left");
      if (hold !== "unavailable") return hold.ask.requestId;
      if (performance.now() - begun > SERVES_AGAIN_MS_MAX)
        throw new Error(`the ledger is unavailable for ${SERVES_AGAIN_MS_MAX} ms`);
    }
  }

  const servesAgain = (...gateways: GatewayOnRedis[]) => Promise.all(gateways.map(opens));

  /** Everything is at rest: what is left can be held to the last micro by either, on this server, and the books are true. */
  async function endsOn(raw: Redis, ...gateways: GatewayOnRedis[]): Promise<void> {
    await Promise.all(gateways.map((gateway) => gateway.atRest()));
    const last = await servesAgain(...gateways);
    for (let refused = 0; refused < gateways.length;) {
      refused = 0;
      for (const gateway of gateways) if ((await gateway.open()) === "refused") refused += 1;
    }
    const held = await heldOn(raw);
    expect(held).toEqual(expect.arrayContaining(last));
    const events = await world.events();
    expect(auditAll(events)).toEqual([]);
    const open = new Set<string>();
    for (const { type, data } of events) {
      if (type === "RequestAdmitted.v1") open.add(data.requestId);
      if (type === "RequestReleased.v1") open.delete(data.requestId);
    }
    expect(open.size).toBe(HOLDS);
    expect(held.toSorted()).toEqual([...open].sort());
    expect(world.alarms).not.toContain("fault");
  }

  let world: FailoverWorld;
  let first: Awaited<ReturnType<typeof start>>;
  let second: typeof first;
  beforeEach(async () => {
    [first, second] = await Promise.all([start(), start()]);
    world = await failoverWorld(HOLDS);
    undo.push(() => world.close());
  });

  test("that lags, and the old primary still answers one gateway: what it takes then counts for nothing, and all end on the new one", async () => {
    // The replica, the ledger with one gateway, and the other gateway have ways of their own to the old primary.
    const [toReplica, toMost, toOne] = await Promise.all([
      proxyTo(first.server),
      proxyTo(first.server),
      proxyTo(first.server),
    ]);
    await replicates(second.raw, toReplica.proxy.port);
    const ledger = await world.ledgerOn([toMost.url, second.server.url], "ledger-1");
    const lagging = await world.gatewayOn([toOne.url, second.server.url], "lagging");
    const other = await world.gatewayOn([second.server.url, toMost.url], "other");
    await isOwned(first.raw);
    const replicated = await servesAgain(lagging, other, lagging, other);
    const onReplica = () => heldOn(second.raw);
    await expect.poll(onReplica, { timeout: 20_000 }).toEqual(expect.arrayContaining(replicated));

    toReplica.proxy.loseReplies();
    const lost = await servesAgain(lagging, other, lagging, other);
    expect(await heldOn(first.raw)).toEqual(expect.arrayContaining(lost));
    const there = await heldOn(second.raw);
    expect(lost.filter((requestId) => !there.includes(requestId))).toEqual(lost);

    // One more knows nothing but the replica: what is missing there it could take a second time.
    const early = await world.gatewayOn([second.server.url], "early");
    const oldEpoch = (await world.owners()).at(-1)?.ownerEpoch;
    await second.raw.replicaof("NO", "ONE");
    const promotedAtMs = performance.now();
    const tooEarly = Array.from({ length: 4 }, () => early.open());
    await toMost.proxy.close();
    await isOwned(second.raw);
    await expect.poll(() => ledger.isReady(), { timeout: 20_000 }).toBe(true);
    // Nobody has told this one: it takes all the money that the old primary still shows, and not a micro is recorded.
    const late = await Promise.all(Array.from({ length: HOLDS - 8 }, () => lagging.open()));
    expect(late).toEqual(late.map(() => "unavailable"));
    const answered = lagging.admits.filter(
      ({ requestId, ownerEpoch, askedAtMs }) =>
        askedAtMs > promotedAtMs && ownerEpoch === oldEpoch && toOne.proxy.timesSent(requestId) > 0,
    );
    expect(answered.length).toBeGreaterThan(0);
    expect(await replicationOf(first.raw, "role")).toBe("master");
    await servesAgain(lagging, other);
    await Promise.all(tooEarly);
    expect(early.admits.filter(({ ownerEpoch }) => ownerEpoch === oldEpoch)).toEqual([]);
    await endsOn(second.raw, lagging, other, early);

    // A ledger process whose list begins with the old primary claims on the new one all the same.
    const id = await replicationOf(second.raw, "master_replid");
    await world.ledgerOn([toOne.url, second.server.url], "ledger-2");
    await ledger.superseded;
    const owners = await world.owners();
    expect(owners.slice(1).map(({ servers }) => servers)).toEqual(owners.slice(1).map(() => [id]));
  });

  test("and a gateway registers while the next owner's adoption is held up: it takes what that one puts in place, and nothing before", async () => {
    await replicates(second.raw, first.server.port);
    const urls = [first.server.url, second.server.url];
    await world.ledgerOn(urls, "ledger-1");
    const gateway = await world.gatewayOn(urls, "before");
    await isOwned(first.raw);
    const epochOnSecond = () => second.raw.hget(`${PREFIX}{${ORG}}:state`, "epoch");
    await servesAgain(gateway);
    await expect.poll(epochOnSecond, { timeout: 20_000 }).toBe("1");

    // What only reads goes on; scripts wait, an adoption among them, for less than whoever sends them does.
    const pause = () => second.raw.call("CLIENT", "PAUSE", PAUSED_MS, "WRITE");
    await pause();
    const pausing = setInterval(() => void pause(), PAUSED_MS / 4);
    await second.raw.replicaof("NO", "ONE");
    await first.raw.replicaof("127.0.0.1", second.server.port);
    await isOwned(second.raw);
    const during = await world.gatewayOn(urls, "during");
    const early = Array.from({ length: 4 }, () => during.open());
    expect(await epochOnSecond()).toBe("1");
    clearInterval(pausing);
    await Promise.all(early);
    await servesAgain(gateway, during);
    const owner = (await world.owners()).at(-1)?.ownerEpoch;
    expect(new Set(during.admits.map(({ ownerEpoch }) => ownerEpoch))).toEqual(new Set([owner]));
    await endsOn(second.raw, gateway, during);
  });

  test("and back, under load, each primary demoted only later: connections are kept, and every gateway goes along", async () => {
    await replicates(second.raw, first.server.port);
    const urls = [first.server.url, second.server.url];
    await world.ledgerOn(urls, "ledger-1");
    const gateways = [await world.gatewayOn(urls, "one"), await world.gatewayOn(urls, "two")];
    await isOwned(first.raw);
    const connections = () =>
      Promise.all(gateways.map(({ redis }) => redis.command("CLIENT", "ID")));
    const before = await connections();
    const stopping = new AbortController();
    const loads = gateways.map((gateway) => gateway.load(stopping.signal));
    const turns: [to: typeof first, from: typeof first][] = [
      [second, first],
      [first, second],
    ];
    for (const [to, from] of turns) {
      await to.raw.replicaof("NO", "ONE");
      await isOwned(to.raw);
      await replicates(from.raw, to.server.port);
      await isOwned(to.raw);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    stopping.abort();
    for (const { opened, longestMs } of await Promise.all(loads)) {
      expect(opened).toBeGreaterThan(10);
      expect(longestMs).toBeLessThan(SERVES_AGAIN_MS_MAX);
    }
    await endsOn(first.raw, ...gateways);
    expect(await connections()).toEqual(before);
  });

  test("that takes the place of one that is gone: nobody was fenced there, and all find it", async () => {
    await replicates(second.raw, first.server.port);
    const urls = [first.server.url, second.server.url];
    await world.ledgerOn(urls, "ledger-1");
    const gateways = [await world.gatewayOn(urls, "one"), await world.gatewayOn(urls, "two")];
    await isOwned(first.raw);
    await servesAgain(...gateways);
    await first.server.kill();
    const during = await Promise.all(gateways.map((gateway) => gateway.open()));
    expect(during).toEqual(["unavailable", "unavailable"]);
    await second.raw.replicaof("NO", "ONE");
    await endsOn(second.raw, ...gateways);
  });
});
