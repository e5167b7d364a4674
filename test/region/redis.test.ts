import { copyFileSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";
import { booksOnRedis } from "#test/servers/redis-books.ts";
import { replicates, replicationOf } from "#test/servers/redis-world.ts";
import { diceOf } from "#test/simulation/random.ts";
import { readBook } from "#test/doubles/simulator-book.ts";
import { openWire, type Wire } from "#test/doubles/wire.ts";
import { eventsIn } from "#test/faults/books.ts";
import { ask, type Seen } from "#test/faults/clients.ts";
import { killAll } from "#test/faults/processes.ts";
import { expectAtRest, untilNothingIsHeld } from "./books.ts";
import {
  makeCustomers,
  refusedIn,
  RICH_MICRO,
  startCrowd,
  troubleIn,
  undefinedAnswers,
  type Funded,
} from "./crowd.ts";
import { pause, startRegion, takeTurns, until, type Part, type Region } from "./region.ts";
import { NO_REDIS_OF_OURS, type ServerPlace } from "./servers.ts";

/**
 * The Redis of a region under load loses what it had, in every way in which a Redis can: each time gateways refuse for
 * seconds, nobody overspends, and in the end nothing is held. The test's name for the way is in what it prints.
 */

/** A limit for hanging, not a promise: whoever asks is served again within seconds. */
const SERVES_AGAIN_MS_MAX = 120_000;
const REST_MS_MAX = 120_000;
/** Of calls that are held upstream while a replica lags, and of those whose gateway is stopped; no other has so many. */
const LOST_INPUT = 77;
const STOPPED_INPUT = 78;
/** The least that can be put in. */
const POOR_MICRO = 10_000;
/** How often everything is gone through. */
const ROUNDS = Number(process.env["FAULTS_ROUNDS"] ?? 1);

const folder = mkdtempSync(join(tmpdir(), "relai-region-redis-"));
const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
let region: Region;
let ledgers: readonly [Part, Part];
/** The first one's ways to the first Redis and to the event store are its own. */
let gateways: readonly [Part, Part];
let control: Part;
let customers: readonly Funded[];
const seen: Seen[] = [];
const left = new Set<string>();

interface Server {
  readonly place: ServerPlace;
  readonly raw: Redis;
}
let first: Server;
let second: Server;
/** From the second Redis, the processes but the first gateway, and the first gateway, to the first Redis. */
let toReplica: Wire;
let toMost: Wire;
let toOne: Wire;
/** From the first gateway to the event store. */
let eventsToOne: Wire;

beforeAll(async () => {
  if (NO_REDIS_OF_OURS !== undefined) return;
  process.stdout.write(`region-redis: FAULTS_SEED=${seed}\n`);
  region = await startRegion(folder, diceOf(seed, "region-redis"), 2);
  const servers = region.redises.map((place): Server => {
    const raw = new Redis(place.url, { protocol: 2, retryStrategy: () => 50 });
    raw.on("error", () => {});
    return { place, raw };
  });
  [first, second] = servers as [Server, Server];
  toReplica = await openWire(first.place.port);
  toMost = await openWire(first.place.port);
  toOne = await openWire(first.place.port);
  eventsToOne = await openWire(region.eventStore.port);
  await replicates(second.raw, toReplica.port());

  const through = (wire: Wire) => `redis://127.0.0.1:${wire.port()}`;
  const most = { RELAI_REDIS_URL: `${through(toMost)},${second.place.url}` };
  const one = {
    RELAI_REDIS_URL: `${through(toOne)},${second.place.url}`,
    RELAI_EVENTSTORE_URL: region.eventStore.url.replace(/:\d+/, `:${eventsToOne.port()}`),
  };
  ledgers = [
    await region.part("ledger", "ledger-1", most),
    await region.part("ledger", "ledger-2", most),
  ];
  gateways = [
    await region.part("gateway", "gateway-1", one),
    await region.part("gateway", "gateway-2", most),
  ];
  control = await region.part("control", "control", most);
  await ledgers[0].start();
  await region.served(1);
  // The first gateway registers first, so that the test knows its journal.
  await gateways[0].start();
  await Promise.all([ledgers[1], gateways[1], control].map((each) => each.start()));
  customers = await makeCustomers(control, [RICH_MICRO, POOR_MICRO, POOR_MICRO]);
}, 180_000);

afterAll(async () => {
  killAll();
  if (NO_REDIS_OF_OURS === undefined) {
    for (const { raw } of [first, second]) raw.disconnect();
    await Promise.all([toReplica, toMost, toOne, eventsToOne].map((wire) => wire.close()));
    await region.close();
  }
  rmSync(folder, { recursive: true, force: true });
});

/** A customer that has enough. */
function rich(): Funded {
  const [customer] = customers;
  if (!customer) throw new Error("there are customers");
  return customer;
}

/** Waits until every gateway serves a whole answer. */
async function servesAgain(): Promise<void> {
  await Promise.all(
    gateways.map(({ url }) =>
      until("a gateway serves again", SERVES_AGAIN_MS_MAX, async () => {
        const again = await ask(
          { gateway: url, key: rich().key },
          { stream: true, words: "input=1 output=2" },
        );
        seen.push(again);
        return again.complete || undefined;
      }),
    ),
  );
}

/** Waits until a server that took another's place is the owner's, and everything is carried in there. */
async function isOwned(server: Server, above: number): Promise<void> {
  await until("the server is owned", SERVES_AGAIN_MS_MAX, async () => {
    const id = await replicationOf(server.raw, "master_replid");
    const owner = (await region.owners()).at(-1);
    return (owner && owner.ownerEpoch > above && owner.servers.includes(id)) || undefined;
  });
  await region.served(above + 1, SERVES_AGAIN_MS_MAX);
}

const newestEpoch = async () => (await region.owners()).at(-1)?.ownerEpoch ?? 0;

/** What a server has of the rich customer. */
const booksOf = ({ raw }: Server) => booksOnRedis(raw, region.prefix, rich().orgId);

/** The rich customer's holds there; where no owner applies events any more those too that have ended. */
const holdsOn = async (server: Server) =>
  ((await booksOf(server))?.holds ?? []).flatMap(([, hold]) =>
    hold.state === "tombstone" ? [] : [hold],
  );

/** Lets trouble come over a region under load, and compares all books once everything is at rest again. */
async function under(name: string, trouble: () => Promise<object>): Promise<void> {
  const before = await region.owners();
  const crowd = startCrowd({ control, gateways, customers, seed: seed + seen.length, left });
  await until("the load is on, and the poor are at the end of their credit", 180_000, async () => {
    const answered = crowd.seen();
    return (answered.length > 60 && refusedIn(answered) > 0) || undefined;
  });
  const sinceMs = Date.now();
  let told: object;
  let servedAgainS = 0;
  try {
    told = await trouble();
    await servesAgain();
    servedAgainS = (Date.now() - sinceMs) / 1000;
    await pause(2_000);
  } finally {
    seen.push(...(await crowd.stop()));
  }
  const answered = crowd.seen();
  await untilNothingIsHeld(region, customers, REST_MS_MAX);
  const epochs = (await region.owners()).length - before.length;
  const trouble503 = troubleIn(answered, sinceMs);
  const figures = { ...trouble503, servedAgainS, epochs, poor: refusedIn(answered), ...told };
  process.stdout.write(`region-redis, ${name}: ${JSON.stringify(figures)}\n`);
  expect(undefinedAnswers(answered)).toEqual([]);
  expect(crowd.unanswered()).toBe(0);
  await expectAtRest(region, control, customers, seen, left);
  // The poor were at the end of their credit, and the trouble was seen.
  expect(figures.poor).toBeGreaterThan(0);
  expect(epochs).toBeGreaterThan(0);
}

/** One way to lose what Redis had; gives what else there is to tell of it. */
function way(name: string, trouble: () => Promise<object>): void {
  for (let round = 1; round <= ROUNDS; round += 1)
    test(`${name}, round ${round}: seconds of 503, no overspend, nothing held`, async (context) => {
      if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
      await under(name, trouble);
    });
}

way("killed and started empty", async () => {
  const epoch = await newestEpoch();
  await first.place.kill();
  await first.place.start();
  await isOwned(first, epoch);
  return {};
});

way("flushed", async () => {
  const epoch = await newestEpoch();
  await first.raw.flushall();
  await isOwned(first, epoch);
  return {};
});

way("taken over with the region by the ledger that stood by", async () => {
  const [serving, other] = ledgers;
  await takeTurns(region, serving);
  ledgers = [other, serving];
  return {};
});

way("killed and started from an old dump", async () => {
  const epoch = await newestEpoch();
  const dump = join(first.place.folder, "dump.rdb");
  await first.raw.save();
  copyFileSync(dump, `${dump}.old`);
  const [before] = await Promise.all([booksOf(first), pause(3_000)]);
  const after = await booksOf(first);
  await first.place.kill();
  renameSync(`${dump}.old`, dump);
  await first.place.start();
  const loaded = await until("it tells what it loaded", 30_000, async () =>
    /^rdb_last_load_keys_loaded:(\d+)/m.exec(await first.raw.info("persistence"))?.at(1),
  );
  rmSync(dump);
  await isOwned(first, epoch);
  // It came back with another time's figures.
  expect(Number(loaded)).toBeGreaterThan(0);
  const forgottenMicro = (after?.spentMicro ?? 0) - (before?.spentMicro ?? 0);
  expect(forgottenMicro).toBeGreaterThan(0);
  return { forgottenMicro };
});

/** Asks for answers that the upstream holds back until `name` is released; the calls are told by their tokens. */
function holdBack(gateway: Part, input: number, name: string, count: number): Promise<Seen>[] {
  const customer = { gateway: gateway.url, key: rich().key };
  const words = `input=${input} output=30 hold=${name}`;
  return Array.from({ length: count }, (_, at) => ask(customer, { stream: at % 2 === 0, words }));
}

/** The same of one who comes again when he is told to: by a busy machine, too, the ledger is unavailable at times. */
async function holdBackAtLast(gateway: Part, input: number, name: string): Promise<Seen> {
  for (;;) {
    const [answer] = await Promise.all(holdBack(gateway, input, name, 1));
    if (answer?.status !== 503) return answer as Seen;
    seen.push(answer);
    await pause(500);
  }
}

const callsOf = (input: number) =>
  readBook(region.bookPath).filter(({ tokens }) => tokens.input === input);

way("failed over to a replica that lags, while the old primary answers one gateway", async () => {
  const epoch = await newestEpoch();
  const kept = toOne.opened();
  const link = () => replicationOf(second.raw, "master_link_status");
  await until("the replica has all", 60_000, async () => (await link()) === "up" || undefined);
  toReplica.stall();
  const before = callsOf(LOST_INPUT).length;
  const held = [...gateways, ...gateways, ...gateways, ...gateways].map((gateway) =>
    holdBackAtLast(gateway, LOST_INPUT, `lost-${epoch}`),
  );
  const calls = await until("the held calls are upstream", 120_000, async () => {
    const found = callsOf(LOST_INPUT).slice(before);
    return found.length === held.length ? found : undefined;
  });
  const idsOn = async (server: Server) =>
    new Set((await holdsOn(server)).map(({ requestId }) => requestId));
  const [there, here] = await Promise.all([idsOn(first), idsOn(second)]);
  const lost = calls.filter(
    ({ requestId }) => there.has(requestId ?? "") && !here.has(requestId ?? ""),
  );
  await second.raw.replicaof("NO", "ONE");
  const atPromotion = await idsOn(first);
  await toMost.close();
  await isOwned(second, epoch);
  await servesAgain();
  const role = await replicationOf(first.raw, "role");
  const answeredByOld = [...(await idsOn(first))].filter((id) => !atPromotion.has(id));
  const recorded = new Set(
    (await eventsIn(region.store)).flatMap((event) =>
      event.type === "RequestAdmitted.v1" ? [event.data.requestId] : [],
    ),
  );
  const dropped = answeredByOld.filter((requestId) => !recorded.has(requestId));
  await region.upstream.release(`lost-${epoch}`);
  seen.push(...(await Promise.all(held)));
  expect(lost.length).toBeGreaterThan(0);
  expect(answeredByOld.length).toBeGreaterThan(0);
  // It was there for the one gateway all the time, on the connection that this had.
  expect([role, toOne.opened()]).toEqual(["master", kept]);
  return { lost: lost.length, answeredByOld: answeredByOld.length, dropped: dropped.length };
});

way("demoted, and promoted again on a kept connection", async () => {
  const epoch = await newestEpoch();
  const kept = toOne.opened();
  await toMost.open();
  toReplica.flow();
  await replicates(first.raw, second.place.port);
  await first.raw.replicaof("NO", "ONE");
  await isOwned(first, epoch);
  await replicates(second.raw, first.place.port);
  await isOwned(first, epoch);
  await servesAgain();
  expect(toOne.opened()).toBe(kept);
  return {};
});

way("failed over while a gateway is stopped with takings that are not recorded", async () => {
  const epoch = await newestEpoch();
  const [stopped] = gateways;
  const [writerEpoch] = await region.lives("gateway");
  const isProvisional = (hold: { state: string; writerEpoch: number }) =>
    hold.state === "provisional" && hold.writerEpoch === writerEpoch;
  eventsToOne.stall();
  const asked = holdBack(stopped, STOPPED_INPUT, "never", 8);
  const taken = await until("its takings are not recorded", 60_000, async () => {
    const found = (await holdsOn(first)).filter(isProvisional);
    return found.length >= asked.length ? found : undefined;
  });
  stopped.signal("SIGSTOP");
  await second.raw.replicaof("NO", "ONE");
  await replicates(first.raw, second.place.port);
  await isOwned(second, epoch);
  eventsToOne.flow();
  await pause(1_000);
  stopped.signal("SIGCONT");
  const answers = await Promise.all(asked);
  seen.push(...answers);
  expect(undefinedAnswers(answers)).toEqual([]);
  expect(answers.map(({ status }) => status)).toEqual(asked.map(() => 503));
  // What the new owner has not adopted was never forwarded.
  const forwarded = new Set(readBook(region.bookPath).map(({ requestId }) => requestId));
  expect(taken.filter(({ requestId }) => forwarded.has(requestId))).toEqual([]);
  // As it was, for a next round.
  await replicatesBack();
  return { taken: taken.length };
});

/** The first server is the primary again. */
async function replicatesBack(): Promise<void> {
  const epoch = await newestEpoch();
  await first.raw.replicaof("NO", "ONE");
  await isOwned(first, epoch);
  await replicates(second.raw, toReplica.port());
  await isOwned(first, epoch);
}
