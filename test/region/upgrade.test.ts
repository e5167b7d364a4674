import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { streams } from "#domain/events/events.ts";
import { systemClock } from "#infra/clock.ts";
import { connectKurrent } from "#infra/event-store/kurrent/client.ts";
import { readKurrentUrl } from "#infra/event-store/kurrent/url.ts";
import { tailRevision } from "#services/writers.ts";
import { copyTree, type Copy } from "#test/mutants/runner.ts";
import { diceOf } from "#test/simulation/random.ts";
import { ask } from "#test/faults/clients.ts";
import { killAll, makeCustomer, readBalance, topUp } from "#test/faults/processes.ts";
import { pause, startRegion, until, type Part, type Region } from "./region.ts";
import { NO_REDIS_OF_OURS } from "./servers.ts";

/** A rolling upgrade half way: processes of an older version meet what a newer one has recorded. */

const FUNDED_MICRO = 1_000_000_000;
const NEWER_MICRO = 7_000_000;
const LATER_MICRO = 3_000_000;
const WORDS = { stream: true, words: "input=100 output=50" };

const folder = mkdtempSync(join(tmpdir(), "relai-region-upgrade-"));
let started: Region | undefined;
let newer: Copy | undefined;
afterAll(async () => {
  await started?.close();
  killAll();
  newer?.remove();
  rmSync(folder, { recursive: true, force: true });
});

/** The next version: a copy of this tree that knows one more event, which gives credit as CreditToppedUp.v1 does. */
function nextVersion(): Copy {
  const copy = copyTree();
  const change = (file: string, find: string, replace: string) => {
    const path = join(copy.folder, file);
    const text = readFileSync(path, "utf8");
    expect(text.split(find)).toHaveLength(2);
    writeFileSync(
      path,
      text.replace(find, () => `${replace}${find}`),
    );
  };
  change(
    "domain/events/schemas.ts",
    '  "KeyIssued.v1": z',
    '  "CreditToppedUp.v2": z.object({ orgId }),\n',
  );
  change(
    "domain/accounts/effects.ts",
    '  "KeyIssued.v1": (',
    `  "CreditToppedUp.v2": ({ data: { topUpId: lotId, pot, amountMicro: micro } }) => ({
       effect: "credited", lotId, pot, micro,
     }),\n`,
  );
  change(
    "domain/organization.ts",
    '      case "CreditToppedUp.v1": {',
    '      case "CreditToppedUp.v2":\n',
  );
  change("projections/accounts.ts", '    "KeyIssued.v1",', '    "CreditToppedUp.v2",\n');
  return copy;
}

/** Records an event as a newer version would, behind what a stream has. */
async function recordNewer(region: Region, stream: string, type: string, data: object) {
  const closing = new AbortController();
  const server = connectKurrent({
    address: readKurrentUrl(region.servers.RELAI_EVENTSTORE_URL, true),
    clock: systemClock(),
    answerMsMax: 10_000,
    closing: closing.signal,
  });
  const expected = await tailRevision(region.store, stream);
  const metadata = { at: 1, region: "us", actor: "control", $correlationId: "c", schema: 1 };
  const [dataJson, metadataJson] = [JSON.stringify(data), JSON.stringify(metadata)];
  const event = { id: crypto.randomUUID(), type, dataJson, metadataJson };
  const answer = await server.append(stream, [event], expected, 10_000);
  expect(answer.outcome).toBe("appended");
  await server.close();
}

/** What it has alarmed somebody with. */
const alarmsOf = (part: Part) =>
  [...part.said().matchAll(/"alarm":"(\w+)"/g)].map(([, what = ""]) => what);
const says = (part: Part) => alarmsOf(part).filter((what) => what === "event_unreadable").length;

async function isReady(part: Part): Promise<boolean> {
  const answer = await fetch(`${part.internal()}/readyz`);
  await answer.text();
  return answer.ok;
}

test("older ledgers and control APIs wait for the upgrade, gateways go on, and the newer ledger misses nothing", async (context) => {
  if (NO_REDIS_OF_OURS !== undefined) return context.skip(NO_REDIS_OF_OURS);
  const seed = Number(process.env["FAULTS_SEED"] ?? Date.now() % 1_000_000);
  process.stdout.write(`region-upgrade: FAULTS_SEED=${seed}\n`);
  const region = await startRegion(folder, diceOf(seed, "region-upgrade"));
  started = region;
  const [first, second] = [
    await region.part("ledger", "ledger-1"),
    await region.part("ledger", "ledger-2"),
  ];
  const gateway = await region.part("gateway", "gateway");
  const control = await region.part("control", "control");
  await first.start();
  await region.served(1);
  await Promise.all([second, gateway, control].map((each) => each.start()));
  const at = { control: control.url };
  const [one, other] = [await makeCustomer(at, FUNDED_MICRO), await makeCustomer(at, FUNDED_MICRO)];
  /** Asks once for each, whole, at the same cost every time. */
  async function serve(): Promise<void> {
    for (const { key } of [one, other])
      expect((await ask({ gateway: gateway.url, key }, WORDS)).complete).toBe(true);
  }
  const creditsOf = async ({ orgId }: { orgId: string }) =>
    (await readBalance(at, orgId)).credits_micro;
  await serve();
  const costMicro = FUNDED_MICRO - (await creditsOf(one));
  expect(costMicro).toBeGreaterThan(0);

  await recordNewer(region, streams.org(one.orgId), "CreditToppedUp.v2", {
    orgId: one.orgId,
    topUpId: "lot_00000000000000000000000009",
    amountMicro: NEWER_MICRO,
    source: "manual",
    pot: "paid",
    bodySha256: "0".repeat(64),
  });
  for (const each of [first, second])
    await until("it says what it has met, and is not ready", 30_000, async () => {
      return (says(each) > 0 && !(await isReady(each))) || undefined;
    });
  await until("the control API says so too", 30_000, async () => says(control) > 0 || undefined);
  const before = [await region.owners(), await region.lives("ledger")];
  // What admission holds is no more than the events leave, with or without what it has not heard of.
  await serve();
  expect(await creditsOf(one)).toBe(FUNDED_MICRO - 2 * costMicro);
  // It cannot decide on what it cannot read; elsewhere it can, and is told that nobody carries that in yet.
  await expect(topUp(at, one.orgId, LATER_MICRO)).rejects.toThrow("written by a newer relai");
  await topUp(at, other.orgId, LATER_MICRO);
  expect(await creditsOf(other)).toBe(FUNDED_MICRO - 2 * costMicro);
  // Nobody owns the store any more, and one that is started now does not claim it either.
  await first.end("SIGTERM");
  await first.start();
  await until("it says so", 30_000, async () => says(first) > 1 || undefined);
  await pause(3_000);
  expect([await region.owners(), await region.lives("ledger")]).toEqual(before);
  expect([first, second, control].map(says)).toEqual([2, 1, 1]);
  const alarms = [first, second, control].flatMap((each) => alarmsOf(each));
  expect(new Set(alarms)).toEqual(new Set(["event_unreadable"]));

  newer = nextVersion();
  const bin = join(newer.folder, "bin/relai.mjs");
  const upgraded = await region.part("ledger", "ledger-3", {}, bin);
  await upgraded.start();
  const owner = await region.served(2);
  expect(owner.ownerEpoch).toBe(2);
  // Until an organization is adopted, whoever only reads sees the state of the owner before.
  for (const [customer, moreMicro] of [
    [one, NEWER_MICRO],
    [other, LATER_MICRO],
  ] as const)
    await until("what waited is carried in", 20_000, async () => {
      const micro = FUNDED_MICRO + moreMicro - 2 * costMicro;
      return (await creditsOf(customer)) === micro || undefined;
    });
  await serve();
  await control.end("SIGTERM");
  const next = await region.part("control", "control", {}, bin);
  await next.start();
  await topUp({ control: next.url }, one.orgId, LATER_MICRO);
  expect(await readBalance({ control: next.url }, one.orgId)).toEqual({
    credits_micro: FUNDED_MICRO + NEWER_MICRO + LATER_MICRO - 3 * costMicro,
    available_micro: FUNDED_MICRO + NEWER_MICRO + LATER_MICRO - 3 * costMicro,
    held_micro: 0,
  });
  for (const each of [upgraded, next])
    await until("it is ready", 20_000, async () => (await isReady(each)) || undefined);
  for (const each of [first, second]) {
    expect(await isReady(each)).toBe(false);
    await each.end("SIGTERM");
  }

  // A gateway reads nothing but its own journal: a mark there that it does not know may forbid what it would take.
  const [epoch = -1] = await region.lives("gateway");
  await recordNewer(region, streams.journal("us", epoch), "OwnerFenced.v2", { ownerEpoch: 3 });
  const refused = await ask({ gateway: gateway.url, key: one.key }, WORDS);
  expect([refused.status, refused.code]).toEqual([503, "ledger_unavailable"]);
  await until("it says why", 10_000, async () => says(gateway) === 1 || undefined);
  await gateway.end("SIGKILL");
  for (const each of [next, upgraded]) await each.end("SIGTERM");
});
