import { emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
import type { Effect } from "#domain/accounts/types.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { findProgram } from "#infra/backing/find.ts";
import { startRedis } from "#infra/backing/redis.ts";
import { openRedis, type RedisConnection } from "#infra/redis/connection.ts";
import { itemsOf } from "#test/worlds/accounts-world.ts";

/**
 * What admission costs on Redis: `node test/bench/admission.ts`, ten seconds against a server of its own on 127.0.0.1.
 * Rates are per core of the server: decisions by its own count of CPU seconds, so that what else runs here does not matter
 * much. Round trips are of one caller that waits for each answer.
 */

const KEY = "key_01JCQ8Z3N5M7P9R1S3T5V7W9X1";
const ORGS = Array.from({ length: 16 }, (_, at) => `org_01JCQ8Z3N5M7P9R1S3T5V7W9${10 + at}`);
const COUNT = 40_000;
const AT_ONCE = 64;
const ROUND_TRIPS = 10_000;
const LOT_MICRO = 1_000_000_000_000;
const OWNER_EPOCH = 1;

const sayLine = (text: string) => void process.stdout.write(`${text}\n`);

async function cpuSeconds(redis: RedisConnection): Promise<number> {
  const text = (await redis.command("INFO", "cpu")) as string;
  const used = (name: string) => Number(new RegExp(`^${name}:([0-9.]+)`, "m").exec(text)?.[1]);
  return used("used_cpu_user") + used("used_cpu_sys");
}

/** Decides `count` times, so many at once, and says what that cost the server. */
async function measure(
  redis: RedisConnection,
  name: string,
  count: number,
  decide: (number: number) => Promise<{ outcome: string }>,
  expected: string,
): Promise<void> {
  const cpuBefore = await cpuSeconds(redis);
  const begun = performance.now();
  let next = 0;
  const caller = async () => {
    while (next < count) {
      const answer = await decide(next++);
      if (answer.outcome !== expected) throw new Error(`${name}: ${JSON.stringify(answer)}`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, caller));
  const seconds = (performance.now() - begun) / 1000;
  const cpu = (await cpuSeconds(redis)) - cpuBefore;
  const perCore = Math.round(count / cpu).toLocaleString("en");
  const micros = ((cpu / count) * 1e6).toFixed(1);
  sayLine(
    `${name.padEnd(28)} ${perCore.padStart(8)}/s per core  ${micros.padStart(6)} µs of the server each  (${Math.round(count / seconds).toLocaleString("en")}/s here)`,
  );
}

async function roundTrips(name: string, decide: (number: number) => Promise<unknown>) {
  const micros: number[] = [];
  for (let number = 0; number < ROUND_TRIPS; number += 1) {
    const begun = performance.now();
    await decide(number);
    micros.push((performance.now() - begun) * 1000);
  }
  micros.sort((one, other) => one - other);
  const at = (share: number) => Math.round(micros[Math.floor(micros.length * share)] ?? 0);
  sayLine(`${name.padEnd(28)} p50 ${at(0.5)} µs, p99 ${at(0.99)} µs`);
}

const orgOf = (number: number) => ORGS[number % ORGS.length] ?? "";
const idOf = (number: number) => `req_01JCQ8Z3N5M7P9R1S3${String(number).padStart(8, "0")}`;
const ofOrg = (orgId: string) => ({ orgId, ownerEpoch: OWNER_EPOCH });

async function main(): Promise<void> {
  const program = findProgram("redis", process.env);
  if (program === undefined) return sayLine("no redis-server on the PATH");
  const server = await startRedis({ program });
  const redis = await openRedis({ urls: [server.url], commandMsMax: 5000 });
  try {
    const store = createRedisAdmission({ redis, prefix: "relai:" });
    const servers = await store.seek([]);
    const funded: Effect[] = [
      {
        effect: "credited",
        lotId: "lot_01JCQ8Z3N5M7P9R1S3T5V7W9X1",
        pot: "paid",
        micro: LOT_MICRO,
      },
      { effect: "key_issued", keyId: KEY, limits: { budgetMicro: LOT_MICRO, rpm: 1_000_000 } },
    ];
    for (const orgId of ORGS) {
      const state = toSnapshot(emptyAccounts(orgId));
      await store.adopt({ ownerEpoch: OWNER_EPOCH, servers, state });
      await store.apply({ ...ofOrg(orgId), items: itemsOf(funded.map((effect) => [effect])) });
    }
    const admit = (number: number) =>
      store.admit({
        ...ofOrg(orgOf(number)),
        requestId: idOf(number),
        writerEpoch: 7,
        keyId: KEY,
        holdMicro: 50_000,
      });
    await measure(
      redis,
      "nothing (PING)",
      COUNT,
      async () => ({ outcome: String(await redis.command("PING", "x")) }),
      "x",
    );
    await measure(redis, "admit, budget and rate limit", COUNT, admit, "admitted");
    const close = (number: number) =>
      store.close({ ...ofOrg(orgOf(number)), requestId: idOf(number), chargedMicro: 34_950 });
    await measure(redis, "close", COUNT, close, "closed");
    await roundTrips("admit, one after the other", (number) => admit(COUNT + number));
    await roundTrips("close, one after the other", (number) => close(COUNT + number));
  } finally {
    await redis.close();
    await server.kill();
  }
}

await main();
