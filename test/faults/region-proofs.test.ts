import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildCatalogue } from "#domain/catalogue/build.ts";
import { balanceOf, newOrganization } from "#test/e2e/relai.ts";
import { offerOf } from "#test/chat-way.ts";
import { provesDisconnects, READS_ON_LITTLE } from "#test/proofs/disconnects.ts";
import { provesLimits } from "#test/proofs/limits.ts";
import { provesNoOverspend } from "#test/proofs/overspend.ts";
import type { ProofWorld } from "#test/proofs/world.ts";
import { diceOf } from "#test/simulation/random.ts";
import { readBook } from "#test/simulator-book.ts";
import { auditAll } from "#domain/invariants.ts";
import { eventsIn } from "./books.ts";
import { ADMIN_TOKEN, killAll } from "./processes.ts";
import { startRegion, type Region } from "./region.ts";
import { NO_REDIS_OF_OURS } from "./region-servers.ts";

/**
 * The proofs of one process on a region of two gateways, two ledgers and a control API. The second gateway's clock is an
 * hour ahead of the first one's all the time: what may be taken and what is held is judged by no gateway's clock.
 */

const AHEAD = fileURLToPath(new URL("./clock-ahead.ts", import.meta.url));
const AHEAD_MS_MIN = 3_500_000;
const CREDIT_MICRO = 100_000_000;
/** A model whose prices are whole micro-dollars a token, at a tier that a hold is made for when it is named. */
const ASKS = { model: "gpt-5.5", service_tier: "default" };
const [INPUT_MICRO, OUTPUT_MICRO] = [5, 30];

const folder = mkdtempSync(join(tmpdir(), "relai-region-proofs-"));
let region: Region;
let world: ProofWorld;

beforeAll(async () => {
  if (NO_REDIS_OF_OURS !== undefined) return;
  const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
  process.stdout.write(`region-proofs: FAULTS_SEED=${seed}\n`);
  region = await startRegion(folder, diceOf(seed, "region-proofs"));
  const [first, second] = [
    await region.part("ledger", "ledger-1"),
    await region.part("ledger", "ledger-2"),
  ];
  const ahead = { ...READS_ON_LITTLE, NODE_OPTIONS: `--import=${AHEAD}` };
  const gateways = [
    await region.part("gateway", "gateway-1", READS_ON_LITTLE),
    await region.part("gateway", "gateway-2", ahead),
  ];
  const control = await region.part("control", "control");
  await first.start();
  await region.served(1);
  // The first gateway registers first, so that the test knows whose journal is whose.
  for (const gateway of gateways) await gateway.start();
  await Promise.all([second, control].map((each) => each.start()));
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

if (NO_REDIS_OF_OURS === undefined) {
  provesNoOverspend(() => world, [1]);
  provesLimits(() => world);
  provesDisconnects(() => world);
}

test("the two gateways' clocks were an hour apart all the time, and the books are true", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const events = await eventsIn(region.store);
  const epochs = await region.lives("gateway");
  const aheadMs = epochs.map((epoch) => {
    const its = events.filter(({ stream }) => stream === `journal-us-${epoch}`);
    return Math.min(...its.map(({ metadata, recordedAt }) => metadata.at - recordedAt));
  });
  expect(aheadMs).toEqual([expect.any(Number), expect.any(Number)]);
  expect(Math.abs(aheadMs[0] ?? Infinity)).toBeLessThan(AHEAD_MS_MIN);
  expect(aheadMs[1]).toBeGreaterThan(AHEAD_MS_MIN);
  expect(auditAll(events, world.catalogue)).toEqual([]);
  expect(await balanceOf(world)).toMatchObject({ held_micro: 0 });
});
