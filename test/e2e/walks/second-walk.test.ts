import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test, vi } from "vitest";
import { NO_PROGRAM, REDIS_PROGRAM } from "#test/servers/redis-world.ts";
import { eventsIn } from "#test/e2e/money/books.ts";
import {
  balanceOf,
  leavesNothingRunning,
  newFolder,
  openai,
  post,
  startForAPerson,
} from "#test/e2e/relai.ts";

leavesNothingRunning();

const root = fileURLToPath(new URL("../../../", import.meta.url));
/** Where no engine and no event store is, whatever this machine has. */
const ALONE = { DOCKER_HOST: "unix:///nowhere.sock", RELAI_EVENTSTORE_HOME: "" };

/** The words behind `npm start --` where the README starts relai on servers of this machine. */
function argsOfTheReadme(): string[] {
  const text = readFileSync(join(root, "README.md"), "utf8");
  const section = text.slice(text.indexOf("\n## On servers"), text.indexOf("\n## Settings"));
  return /^```sh\nnpm start -- (.+)\n```$/m.exec(section)?.[1]?.split(" ") ?? [];
}

type Shown = Awaited<ReturnType<typeof startForAPerson>>;

/** What a start has shown: the gateway, the demo key's file, and where its Redis listens. */
function read({ shown }: Shown) {
  const found = (pattern: RegExp) => pattern.exec(shown)?.[1] ?? "";
  const file = found(/its key is in +(\S+)/);
  return {
    gateway: found(/gateway \(us\) +(\S+)\/v1/),
    key: /^export OPENAI_API_KEY=(\S+)$/m.exec(readFileSync(file, "utf8"))?.[1] ?? "",
    redis: Number(found(/Redis +redis:\/\/127\.0\.0\.1:(\d+) {2}\S+, started for this run\n/)),
    store: Number(found(/event store +esdb:\/\/127\.0\.0\.1:(\d+) {2}\S+, started for this run\n/)),
  };
}

const listens = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, "127.0.0.1", () => resolve(true)).on("error", () =>
      resolve(false),
    );
    socket.unref();
  });

/** By OpenAI's client; gives what it cost, in micro. */
async function ask(relai: ReturnType<typeof read>, content: string): Promise<number> {
  const { data, response } = await openai(relai)
    .chat.completions.create({ model: "sim-small", messages: [{ role: "user", content }] })
    .withResponse();
  expect(data.choices[0]?.message.content).toContain("all of it arrived");
  return Number(response.headers.get("x-relai-cost-micro"));
}

describe("the README's second walk: one command, and the first request is on real servers", () => {
  if (REDIS_PROGRAM === undefined) {
    test("works", (context) => context.skip(NO_PROGRAM));
    return;
  }
  let running: Shown[] = [];
  afterEach(async () => {
    await Promise.all(running.map((one) => one.kill()));
    running = [];
  });
  async function start(dataDir: string, settings: Record<string, string> = {}) {
    const args = argsOfTheReadme();
    const started = await startForAPerson({ dataDir, args, settings: { ...ALONE, ...settings } });
    running.push(started);
    return { ...started, ...read(started) };
  }

  test("is kept by the events through kill -9, with which the servers end; Ctrl-C ends them too", async () => {
    const dataDir = newFolder();
    const first = await start(dataDir);
    expect(first.shown).toMatch(/event store +none found: events stay in the data folder\n/);
    expect(await listens(first.redis)).toBe(true);
    const charged = await ask(first, "Hello");
    expect(charged).toBe(20);
    const cut = await post(first, "[sim chunks=100 delay=1000]", { stream: true });
    expect(cut.status).toBe(200);
    expect((await balanceOf(first)).held_micro).toBeGreaterThan(0);
    await first.kill();
    await cut.text().catch(() => {});
    await vi.waitFor(async () => expect(await listens(first.redis)).toBe(false), {
      timeout: 20_000,
    });

    const second = await start(dataDir);
    expect(await balanceOf(second)).toMatchObject({
      credits_micro: 10_000_000 - charged,
      held_micro: 0,
    });
    await ask(second, "Hello");
    const types = (await eventsIn({ dataDir })).map(({ type }) => type);
    const count = (wanted: string) => types.filter((type) => type === wanted).length;
    expect([count("UsageRecorded.v1"), count("RequestExpired.v1")]).toEqual([2, 1]);
    expect(await second.interrupt()).toBe(0);
    expect(await listens(second.redis)).toBe(false);
  });

  test("goes on with what was begun without servers, and the other way round", async () => {
    const dataDir = newFolder();
    const plain = await startForAPerson({ dataDir });
    running.push(plain);
    const charged = await ask(read(plain), "Hello");
    expect(await plain.interrupt()).toBe(0);
    const onServers = await start(dataDir);
    await ask(onServers, "Hello");
    expect(await onServers.interrupt()).toBe(0);
    const again = await startForAPerson({ dataDir });
    running.push(again);
    const { credits_micro } = await balanceOf(read(again));
    expect(credits_micro).toBe(10_000_000 - 2 * charged);
    expect(await again.interrupt()).toBe(0);
  });

  test("with an event store in the folder that is named: both are started, and end", async () => {
    const home = join(newFolder(), "eventstore");
    mkdirSync(home);
    const program = join(home, "EventStore.ClusterNode");
    const fake = fileURLToPath(new URL("../../kurrent-stand-in/as-program.ts", import.meta.url));
    writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${fake}" "$@"\n`);
    chmodSync(program, 0o755);
    const dataDir = newFolder();
    const relai = await start(dataDir, { RELAI_EVENTSTORE_HOME: home });
    expect([await listens(relai.redis), await listens(relai.store)]).toEqual([true, true]);
    const charged = await ask(relai, "Hello");
    expect(await balanceOf(relai)).toMatchObject({ credits_micro: 10_000_000 - charged });
    expect(await relai.interrupt()).toBe(0);
    expect([await listens(relai.redis), await listens(relai.store)]).toEqual([false, false]);
  });
});

test("where there is no Redis it says what to do, and starts nothing", async () => {
  const settings = { ...ALONE, PATH: "/nowhere" };
  const started = startForAPerson({ dataDir: newFolder(), args: argsOfTheReadme(), settings });
  await expect(started).rejects.toThrow(
    "relai ended with 2: relai: --servers found no Redis (no URL, no Docker engine, and no redis-server or valkey-server on the PATH): set RELAI_REDIS_URL, install redis-server, or start without --servers.",
  );
});
