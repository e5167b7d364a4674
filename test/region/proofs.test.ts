import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildCatalogue } from "#domain/catalogue/build.ts";
import { balanceOf, newOrganization, type Running } from "#test/e2e/relai.ts";
import { offerOf } from "#test/worlds/chat-way.ts";
import { filesIn, search } from "#test/e2e/canaries.ts";
import {
  fullRequest,
  loadWith,
  newCanaries,
  startTellingUpstream,
  type Said,
} from "#test/e2e/secrets-load.ts";
import { provesDisconnects, READS_ON_LITTLE } from "#test/proofs/disconnects.ts";
import { provesLimits } from "#test/proofs/limits.ts";
import { provesNoOverspend } from "#test/proofs/overspend.ts";
import { provesReplay } from "#test/proofs/replay.ts";
import type { ProofWorld } from "#test/proofs/world.ts";
import { keyspaceOf } from "#test/servers/redis-world.ts";
import { diceOf } from "#test/simulation/random.ts";
import { readBook } from "#test/doubles/simulator-book.ts";
import { auditAll } from "#domain/invariants.ts";
import { eventsIn, ledgerOf } from "#test/faults/books.ts";
import { ADMIN_TOKEN, killAll } from "#test/faults/processes.ts";
import { pause, startRegion, until, type Part, type Region } from "./region.ts";
import { untilNothingIsHeld } from "./books.ts";
import {
  makeCustomers,
  refusedIn,
  RICH_MICRO,
  startCrowd,
  troubleIn,
  undefinedAnswers,
} from "./crowd.ts";
import { NO_REDIS_OF_OURS } from "./servers.ts";

/**
 * The proofs of one process on a region of two gateways, two ledgers and a control API. The second gateway's clock is an
 * hour ahead of the first one's all the time: what may be taken and what is held is judged by no gateway's clock.
 */

const AHEAD = fileURLToPath(new URL("./clock-ahead.ts", import.meta.url));
const AHEAD_MS_MIN = 3_500_000;
/** Shorter than the silence that is death to others. */
const STOPPED_MS = 60_000;
const CREDIT_MICRO = 100_000_000;
/** A model whose prices are whole micro-dollars a token, at a tier that a hold is made for when it is named. */
const ASKS = { model: "gpt-5.5", service_tier: "default" };
const [INPUT_MICRO, OUTPUT_MICRO] = [5, 30];

const folder = mkdtempSync(join(tmpdir(), "relai-region-proofs-"));
let region: Region;
let ledgers: readonly [Part, Part];
let gateways: readonly [Part, Part];
let control: Part;
let world: ProofWorld;

beforeAll(async () => {
  if (NO_REDIS_OF_OURS !== undefined) return;
  const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
  process.stdout.write(`region-proofs: FAULTS_SEED=${seed}\n`);
  region = await startRegion(folder, diceOf(seed, "region-proofs"));
  ledgers = [await region.part("ledger", "ledger-1"), await region.part("ledger", "ledger-2")];
  const ahead = { ...READS_ON_LITTLE, NODE_OPTIONS: `--import=${AHEAD}` };
  gateways = [
    await region.part("gateway", "gateway-1", READS_ON_LITTLE),
    await region.part("gateway", "gateway-2", ahead),
  ];
  control = await region.part("control", "control");
  await ledgers[0].start();
  await region.served(1);
  await Promise.all([ledgers[1], control, ...gateways].map((each) => each.start()));
  const [gateway = "", ...others] = gateways.map(({ url }) => url);
  const catalogue = buildCatalogue({
    openai: { processingArea: "us", pinsServiceTier: false },
    simulator: false,
    processingArea: "us",
  });
  const opened: ProofWorld = {
    dataDir: join(folder, "control"),
    gateway,
    gatewayUrls: [gateway, ...others],
    control: control.url,
    internal: "",
    simulator: region.upstream.url,
    adminToken: ADMIN_TOKEN,
    organization: "",
    key: "",
    asks: ASKS,
    books: {
      events: () => eventsIn(region.store),
      calls: () => readBook(region.bookPath),
    },
    catalogue,
    holdOf(content, outputMax) {
      const body = { ...ASKS, messages: [{ role: "user", content }], max_tokens: outputMax };
      const offer = offerOf(catalogue, Buffer.from(JSON.stringify(body)));
      if ("code" in offer) throw new Error(offer.message);
      return offer;
    },
    chargeOf(input, output) {
      const micro = input * INPUT_MICRO + output * OUTPUT_MICRO;
      return { chargedMicro: micro, providerCostMicro: micro };
    },
    host: { host: "openai", hostKey: "OPENAI_API_KEY" },
    stop: () => Promise.resolve(0),
  };
  world = await newOrganization(opened, { creditMicro: CREDIT_MICRO });
}, 300_000);

afterAll(async () => {
  killAll();
  if (NO_REDIS_OF_OURS === undefined) await region.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Everything that is folded from events is gone: the read models of the control process and the ledgers, and Redis. */
async function fromNothing(): Promise<Running> {
  const epoch = (await region.owners()).length;
  for (const part of [control, ...ledgers]) await part.end("SIGTERM");
  for (const name of ["control", "ledger-1", "ledger-2"])
    rmSync(join(folder, name), { recursive: true });
  const raw = new Redis(region.redis.url, { protocol: 2 });
  await raw.flushall();
  raw.disconnect();
  for (const part of [...ledgers, control]) await part.start();
  await region.served(epoch + 1);
  return world;
}

if (NO_REDIS_OF_OURS === undefined) {
  provesNoOverspend(() => world, [1]);
  provesLimits(() => world);
  provesDisconnects(() => world);
}

test("a ledger that is stopped for a minute under load is missed by nobody who has credit", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const [serving] = ledgers;
  const left = new Set<string>();
  const customers = await makeCustomers(control, [RICH_MICRO, RICH_MICRO]);
  const before = await region.owners();
  const signs = async () =>
    (await region.journal(before.at(-1)?.writerEpoch ?? -1)).filter(
      ({ type }) => type === "WriterAlive.v1",
    ).length;
  const crowd = startCrowd({ control, gateways, customers, seed: before.length, left });
  let [wokenMs, stoppedMs] = [0, 0];
  try {
    // It has just given a sign of life: for so long nobody takes it for dead.
    const known = await signs();
    await until("a sign of life", 60_000, async () => (await signs()) > known || undefined);
    serving.signal("SIGSTOP");
    stoppedMs = Date.now();
    await pause(STOPPED_MS);
    serving.signal("SIGCONT");
    wokenMs = Date.now();
    await region.served(before.length);
  } finally {
    await crowd.stop();
  }
  const seen = crowd.seen();
  const during = seen.filter(({ atMs }) => atMs > stoppedMs && atMs < wokenMs);
  const figures = {
    ...troubleIn(seen, wokenMs),
    servedMeanwhile: during.filter(({ status }) => status === 200).length,
  };
  process.stdout.write(`region-proofs, ledger stopped: ${JSON.stringify(figures)}\n`);
  expect(refusedIn(seen)).toBe(0);
  expect(figures.servedMeanwhile).toBeGreaterThan(100);
  expect(undefinedAnswers(seen)).toEqual([]);
  // It may have lost what was on its way when it was stopped, and then owns anew.
  const owners = (await region.owners()).slice(before.length);
  expect(owners.length).toBeLessThan(2);
  await untilNothingIsHeld(region, customers, 60_000);
  for (const { fundedMicro, orgId } of customers) {
    const events = (await eventsIn(region.store)).filter(
      ({ data }) => "orgId" in data && data.orgId === orgId,
    );
    const { chargedMicro } = ledgerOf(events);
    expect(await region.figures(orgId)).toMatchObject({
      balance: { spentMicro: chargedMicro, availableMicro: fundedMicro - chargedMicro },
    });
  }
});

if (NO_REDIS_OF_OURS === undefined) {
  provesReplay(async () => ({
    relai: world,
    readModels: join(folder, "control", "control", "us", "read-models"),
    priceTimes: 100,
    fromNothing,
  }));
}

test("canaries of callers, upstreams and keys are nowhere in what a region leaves", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const told = newCanaries();
  const upstream = await startTellingUpstream(told);
  const settings = {
    RELAI_LOG_LEVEL: "trace",
    RELAI_READ_ON_MS: "200",
    OPENAI_API_KEY: `sk-${told["host key"]}`,
    OPENAI_BASE_URL: upstream.baseUrl,
  };
  const [killed, other] = [
    await region.part("gateway", "telling-1", settings),
    await region.part("gateway", "telling-2", settings),
  ];
  await Promise.all([killed, other].map((each) => each.start()));
  const { key } = await newOrganization(world, { creditMicro: CREDIT_MICRO });
  const places = new Map<string, Buffer>();
  const statuses = new Set<number>();
  const keep = (place: string, bytes: Buffer) =>
    void places.set(place, Buffer.concat([places.get(place) ?? Buffer.alloc(0), bytes]));
  const said: Said = {
    add(name, status, head, body) {
      statuses.add(status);
      keep(`head: ${name}`, Buffer.from(head));
      keep(`body: ${name}`, Buffer.from(body));
    },
  };
  const load = (gateway: Part) => {
    const where = { gateway: gateway.url, control: control.url, internal: gateway.internal() };
    return loadWith(told, { ...where, key, adminToken: ADMIN_TOKEN }, said);
  };
  await load(killed);
  const streams = Array.from({ length: 10 }, () =>
    fetch(`${killed.url}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: fullRequest(told, "endless", { stream: true }),
    }),
  );
  expect((await Promise.all(streams)).map(({ status }) => status)).toEqual(streams.map(() => 200));
  await killed.end("SIGKILL");
  await load(other);
  await killed.start();
  const others = [...ledgers, ...gateways].map((part, at) => [`part ${at}`, part] as const);
  for (const [name, part] of [...Object.entries({ killed, other, control }), ...others]) {
    for (const path of ["metrics", "readyz"])
      keep(
        `${name}: ${path}`,
        Buffer.from(await (await fetch(`${part.internal()}/${path}`)).text()),
      );
    keep(`${name}: said`, Buffer.from(part.said()));
  }
  for (const [name, bytes] of filesIn(folder)) keep(name, bytes);
  for (const [name, bytes] of await keyspaceOf(region.redis.url)) keep(`Redis: ${name}`, bytes);
  for (const part of [killed, other]) await part.end("SIGTERM");
  upstream.close();

  // The load was what it says, and the places are those where it would be found.
  for (const status of [200, 400, 401, 403, 404, 405, 413, 415, 502])
    expect(statuses).toContain(status);
  const log = places.get("event-store/events.jsonl")?.toString("latin1") ?? "";
  for (const type of ["UsageRecorded", "RequestReleased", "KeyIssued"]) expect(log).toContain(type);
  const names = [...places.keys()];
  for (const found of [/^Redis: relai:us:\w+:\{org_/, /^Redis: relai:us:\w+:\{keys-/])
    expect(names).toContainEqual(expect.stringMatching(found));
  const own = { "key of its own": key.slice(-34, -6), "admin token": ADMIN_TOKEN };
  expect(search(places, { ...told, ...own })).toEqual([
    "admin token in control/control.json (plain)",
    // A fault of the request is told in the upstream's words.
    "refusal in body: upstream 400 (plain)",
    "refusal in body: upstream 400, streamed (plain)",
  ]);
});

test("the two gateways' clocks were an hour apart all the time, and the books are true", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const events = await eventsIn(region.store);
  const epochs = await region.lives("gateway");
  const aheadMs = epochs.map((epoch) => {
    const its = events.filter(({ stream }) => stream === `journal-us-${epoch}`);
    // Marks that a ledger put there carry its clock.
    return Math.max(...its.map(({ metadata, recordedAt }) => metadata.at - recordedAt));
  });
  expect(aheadMs.filter((ms) => ms > AHEAD_MS_MIN).length).toBeGreaterThan(0);
  expect(aheadMs.filter((ms) => ms < AHEAD_MS_MIN).length).toBeGreaterThan(0);
  expect(auditAll(events, world.catalogue)).toEqual([]);
  expect(await balanceOf(world)).toMatchObject({ held_micro: 0 });
});
