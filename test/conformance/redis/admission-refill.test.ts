import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { adopt, emptyAdmission } from "#domain/accounts/admission.ts";
import type { RecordedEvent } from "#domain/events/events.ts";
import { sha256Hex } from "#domain/hash.ts";
import { auditAll } from "#domain/invariants.ts";
import { startRedis, type StartedRedis } from "#infra/backing/redis.ts";
import { createRedisAdmission } from "#infra/admission/redis.ts";
import { systemClock } from "#infra/clock.ts";
import { createRedisKeyDirectory } from "#infra/key-directory/redis.ts";
import { orgSnapshots } from "#projections/accounts-rows.ts";
import { startLedger, type Ledger } from "#services/ledger/ledger.ts";
import type { AdmissionStore, KeyDirectory, Projector } from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import { newestOwner, registerWriter } from "#services/writers.ts";
import { history, keyTextOf, orgIdOf } from "#test/bench/scale/history.ts";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import { booksOf, booksOnRedis } from "#test/servers/redis-books.ts";
import { connect, NO_PROGRAM, REDIS_PROGRAM } from "#test/servers/redis-world.ts";

/** The region with many organizations and a long history that test/bench/scale measures, in small. */

const ORGS = 300;
const FULL_MS_MAX = 30_000;
const PREFIX = "relai:us:";
const author = { region: "us", actor: "ledger" };

describe("a Redis with many organizations", () => {
  if (REDIS_PROGRAM === undefined) {
    test("is filled again", (context) => context.skip(NO_PROGRAM));
    return;
  }
  const program = REDIS_PROGRAM;
  const clock = systemClock();
  const store = createMemoryEventStore({ clock });
  const undo: (() => Promise<unknown> | void)[] = [];
  let server: StartedRedis;
  let raw: Redis;
  let admission: AdmissionStore;
  let directory: KeyDirectory;
  let projector: Projector;
  let ledger: Ledger;

  beforeAll(async () => {
    const revisions = new Map<string, bigint>();
    for (const { stream, events } of history({ orgs: ORGS, events: 4_000 })) {
      const answer = await store.append(stream, events, revisions.get(stream) ?? "no_stream");
      if (answer.outcome !== "appended") throw new Error(`not written: ${answer.outcome}`);
      revisions.set(stream, answer.revision);
    }
    server = await startRedis({ program });
    undo.push(() => server.kill());
    raw = new Redis(server.url, { protocol: 2, retryStrategy: () => 20 });
    raw.on("error", () => {});
    undo.push(() => raw.disconnect());
    const redis = await connect(server.url);
    undo.push(() => redis.close());
    admission = createRedisAdmission({ redis, prefix: PREFIX });
    directory = createRedisKeyDirectory({ redis, prefix: PREFIX, clock });
    const ending = new AbortController();
    undo.push(() => ending.abort());
    const telemetry = { requestDone() {}, alarm() {} };
    projector = await startProjector({
      store,
      readModels: createMemoryReadModels(),
      clock,
      signal: ending.signal,
      onAlarm: telemetry.alarm,
    });
    const data = { process: "ledger", instance: "test" } as const;
    const writerEpoch = await registerWriter(store, clock, author, data);
    const parts = { store, clock, telemetry, author, admission, directory, projector };
    ledger = await startLedger({ ...parts, writerEpoch, death: { by: "silence" } });
    undo.push(() => ledger.stop());
  });
  afterAll(async () => {
    for (const each of undo.reverse()) await each();
  });

  /** Every organization stands there as the events leave it, under this owner; every key is known, and another is nobody's. */
  async function isFull(ownerEpoch: number): Promise<void> {
    const states = () =>
      Promise.all(directory.parts.map((part) => directory.stateOf(part, ownerEpoch))).then(
        (all) => [...new Set(all)],
        () => undefined,
      );
    await expect.poll(states, { timeout: FULL_MS_MAX }).toEqual(["kept"]);
    const { rows } = await projector.rows("accounts", await store.head());
    const orgs = [...orgSnapshots(rows)];
    expect(orgs).toHaveLength(ORGS);
    for (const state of orgs) {
      const should = emptyAdmission({ server: "server-1" });
      adopt(should, { ownerEpoch, servers: ["server-1"], state });
      const org = should.orgs.get(state.orgId);
      const books = () => booksOnRedis(raw, PREFIX, state.orgId);
      await expect.poll(books, { timeout: FULL_MS_MAX }).toEqual(org && booksOf(org));
    }
    for (let org = 0; org < ORGS; org++) {
      const entry = await directory.lookup(sha256Hex(keyTextOf(org)));
      expect(entry).toMatchObject({ orgId: orgIdOf(org) });
    }
    expect(await directory.lookup(sha256Hex(`nobody ${ownerEpoch}`))).toBeUndefined();
  }

  /** Takes money that no event will ever tell of. */
  async function take(ownerEpoch: number): Promise<void> {
    const [requestId, keyId] = [`req_${ownerEpoch}`, orgIdOf(7).replace("org", "key")];
    const ask = { orgId: orgIdOf(7), ownerEpoch, requestId, writerEpoch: 1_000, keyId };
    expect(await admission.admit({ ...ask, holdMicro: 10 })).toMatchObject({ outcome: "admitted" });
  }

  test("is filled from a history that keeps every rule, after a flush, and after a restart without memory", async () => {
    const epoch = (await newestOwner(store, "us"))?.ownerEpoch ?? 0;
    const events: RecordedEvent[] = [];
    const head = await store.head();
    const { signal } = new AbortController();
    for await (const batch of store.follow({ after: "start", signal })) {
      events.push(...batch);
      if (batch.at(-1)?.position === head) break;
    }
    expect(auditAll(events)).toEqual([]);
    await isFull(epoch);
    await take(epoch);
    await raw.flushall();
    await isFull(epoch + 1);
    await take(epoch + 1);
    await server.kill();
    server = await startRedis({ program, port: server.port });
    await isFull(epoch + 2);
    expect(ledger.isReady()).toBe(true);
  });
});
