import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { cpuUs, cpuUsed, memoryMiB, othersBetween } from "#test/bench/measure.ts";
import { quantile } from "#test/bench/stats.ts";
import { orgIdOf } from "./history.ts";
import { startRegion, type Filling, type Region } from "./region.ts";
import { startTrickle, type Asked } from "./trickle.ts";

/**
 * What a region with many customers and a long history does when Redis is empty, when a ledger starts, when another takes
 * over and when a gateway dies, as processes on a redis-server and the event store's stand-in:
 * `node test/bench/scale/scale.ts --orgs 100000 --events 1000000 --rounds 3`. `--silence` adds what waits for a minute's
 * silence: the ledger and a gateway killed.
 */

const PER_SECOND = 50;
const SETTLE_MS = 4_000;
const SILENCE_MS = 90_000;

const { values } = parseArgs({
  options: {
    orgs: { type: "string", default: "100000" },
    events: { type: "string", default: "1000000" },
    rounds: { type: "string", default: "3" },
    silence: { type: "boolean", default: false },
  },
});
const scale = { orgs: Number(values.orgs), events: Number(values.events) };

const say = (line: string) => void process.stdout.write(`${line}\n`);
const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
const mib = (pid: number) => `${Math.round(memoryMiB(pid, "now"))} MiB`;
const memory = (pid: number) => `${mib(pid)} (at most ${Math.round(memoryMiB(pid, "peak"))})`;

function sayFilling(fromMs: number, { ownedMs, keysMs, allMs }: Filling): void {
  const rate = Math.round((scale.orgs * 1000) / (allMs - keysMs));
  say(
    `  owned after ${seconds(ownedMs - fromMs)}, all keys in after ${seconds(keysMs - fromMs)}, everything after ${seconds(allMs - fromMs)}: ${rate} organizations/s`,
  );
}

/** What callers saw from a moment on. */
function sayAsked(asked: readonly Asked[], fromMs: number): void {
  const since = asked.filter(({ beganMs }) => beganMs >= fromMs);
  const served = since.filter(({ status }) => status === 200);
  const refused = since.filter(({ status }) => status !== 200);
  const firstMs = Math.min(...served.map(({ endedMs }) => endedMs)) - fromMs;
  const lastMs = Math.max(fromMs, ...refused.map(({ endedMs }) => endedMs)) - fromMs;
  const tookMs = served.map(({ beganMs, endedMs }) => endedMs - beganMs);
  const statuses = Object.entries(Object.groupBy(refused, ({ status }) => status));
  say(
    `  first request served after ${seconds(firstMs)}; of ${since.length} ${served.length} served (p50 ${Math.round(quantile(tookMs, 0.5))} ms, p99 ${Math.round(quantile(tookMs, 0.99))} ms), refused ${statuses.map(([status, of]) => `${of?.length} × ${status}`).join(", ") || "none"}${refused.length > 0 ? `, the last after ${seconds(lastMs)}` : ""}`,
  );
}

/** Does something under the trickle, waits until a new owner has filled everything, and says how that went. */
async function lose(
  region: Region,
  what: string,
  pids: readonly number[],
  url: string,
  act: () => Promise<unknown>,
): Promise<void> {
  const trickle = startTrickle(url, PER_SECOND, scale.orgs);
  await pause(SETTLE_MS);
  const { owner } = await region.look();
  const begun = cpuUsed();
  const before = pids.map(cpuUs);
  await act();
  const fromMs = performance.now();
  const filling = await region.filled(owner);
  const used = [...pids.map((pid, at) => cpuUs(pid) - (before[at] ?? 0)), cpuUs(region.redisPid())];
  const { share } = othersBetween(begun, cpuUsed());
  await pause(SETTLE_MS);
  await trickle.stop();
  say(what);
  sayAsked(trickle.asked, fromMs);
  sayFilling(fromMs, filling);
  const [ledger, gateway, redis] = used.map((us) => seconds(us / 1000));
  say(
    `  CPU until then: ledger ${ledger}, gateway ${gateway}, Redis ${redis} since its start; others ${Math.round(share * 100)} % of a core`,
  );
}

/** How long the ledger stood still at most while requests went on, and what callers saw. */
async function watchCarrying(region: Region, url: string, forMs: number): Promise<string> {
  const trickle = startTrickle(url, PER_SECOND, scale.orgs);
  const fromMs = performance.now();
  let last = await region.carriedTo();
  let sinceMs = fromMs;
  let longestMs = 0;
  while (performance.now() < fromMs + forMs) {
    await pause(5);
    const now = await region.carriedTo();
    if (now === last) continue;
    longestMs = Math.max(longestMs, performance.now() - sinceMs);
    [last, sinceMs] = [now, performance.now()];
  }
  await trickle.stop();
  sayAsked(trickle.asked, fromMs);
  return seconds(longestMs);
}

async function sayRedis({ redis, prefix }: Region): Promise<void> {
  const info = await redis.info("memory");
  const figure = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, "m").exec(info)?.[1]);
  const usage = async (key: string) =>
    Number(await redis.call("MEMORY", "USAGE", key, "SAMPLES", 0));
  const orgs = Array.from({ length: 1000 }, (_, at) => Math.floor((at * scale.orgs) / 1000));
  const mean = async (name: string) => {
    const sizes = await Promise.all(orgs.map((org) => usage(`${prefix}{${orgIdOf(org)}}:${name}`)));
    return Math.round(sizes.reduce((sum, size) => sum + size, 0) / sizes.length);
  };
  const shards = await Promise.all(
    Array.from({ length: 256 }, (_, at) =>
      usage(`${prefix}{keys-${at.toString(16).padStart(2, "0")}}`),
    ),
  );
  const perKey = Math.round(shards.reduce((sum, size) => sum + size, 0) / scale.orgs);
  const used = figure("used_memory");
  say(
    `Redis: ${Math.round(used / 2 ** 20)} MiB in use (${Math.round(figure("used_memory_rss") / 2 ** 20)} MiB resident), ${await redis.dbsize()} keys; ${Math.round(used / scale.orgs)} bytes an organization in all: state ${await mean("state")}, free ${await mean("free")}, key directory ${perKey}`,
  );
}

async function main(folder: string): Promise<void> {
  const beganMs = performance.now();
  const region = await startRegion(folder, scale);
  say(
    `${scale.events} events, ${scale.orgs} organizations: made in ${seconds(performance.now() - beganMs)}, ${mib(region.standInPid)} in the stand-in`,
  );
  try {
    let fromMs = performance.now();
    let one = await region.start("ledger", "ledger-1");
    say("a ledger's first start, which folds everything from event 0");
    sayFilling(fromMs, await region.filled(0));
    say(`  CPU ${seconds(cpuUs(one.child.pid) / 1000)}, memory ${memory(one.child.pid)}`);
    await sayRedis(region);
    await one.child.stop();
    for (let round = 0; round < 2; round++) {
      const { owner } = await region.look();
      fromMs = performance.now();
      one = await region.start("ledger", "ledger-1");
      say("a ledger's start from its checkpoint");
      sayFilling(fromMs, await region.filled(owner));
      say(`  CPU ${seconds(cpuUs(one.child.pid) / 1000)}, memory ${memory(one.child.pid)}`);
      if (round === 0) await one.child.stop();
    }

    const gateway = await region.start("gateway", "gateway-1");
    const pids = [one.child.pid, gateway.child.pid];
    for (let round = 0; round < Number(values.rounds); round++)
      await lose(region, "FLUSHALL", pids, gateway.url, () => region.redis.flushall());
    for (let round = 0; round < Number(values.rounds); round++)
      await lose(
        region,
        "redis-server killed, and back empty",
        pids,
        gateway.url,
        region.restartEmpty,
      );
    say(`memory: ledger ${memory(one.child.pid)}, gateway ${memory(gateway.child.pid)}`);
    await sayRedis(region);

    fromMs = performance.now();
    const two = await region.start("ledger", "ledger-2");
    await region.folded("ledger-2");
    say(
      `a second ledger stands by: it folded everything in ${seconds(performance.now() - fromMs)}`,
    );
    await lose(
      region,
      "the serving ledger is stopped, and the other takes over",
      [two.child.pid, gateway.child.pid],
      gateway.url,
      () => one.child.stop(),
    );
    if (values.silence) {
      const dying = await region.start("gateway", "gateway-2");
      const load = startTrickle(dying.url, PER_SECOND, scale.orgs);
      await pause(SETTLE_MS);
      dying.child.process.kill("SIGKILL");
      say("a gateway is killed; a minute later its journal is sealed, and it is swept");
      const stoodMs = await watchCarrying(region, gateway.url, SILENCE_MS);
      say(`  the ledger carried nothing for at most ${stoodMs}`);
      await load.stop();
      one = await region.start("ledger", "ledger-1");
      await region.folded("ledger-1");
      await lose(
        region,
        "the serving ledger is killed, and the other takes over",
        [one.child.pid, gateway.child.pid],
        gateway.url,
        async () => two.child.process.kill("SIGKILL"),
      );
    } else await two.child.stop();
    await one.child.stop();
    await gateway.child.stop();
  } finally {
    await region.close();
  }
}

const folder = mkdtempSync(join(tmpdir(), "relai-scale-"));
try {
  await main(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
