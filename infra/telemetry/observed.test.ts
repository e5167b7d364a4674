import { beforeEach, expect, test } from "vitest";
import { emptyAccounts, toSnapshot } from "#domain/accounts/accounts.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import type { LuaScript } from "#infra/redis/lua-scripts.ts";
import type { AppendOutcome, EventStore } from "#services/ports.ts";
import { admissions, fence } from "#test/conformance/event-store/event-samples.ts";
import { manualClock, type ManualClock } from "#test/doubles/manual-clock.ts";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { createLog } from "./log.ts";
import { observeAdmission, observeEventStore, observeRedis } from "./observed.ts";
import { createTelemetry, type ProcessTelemetry } from "./telemetry.ts";

const STREAM = "journal-us-1";
let clock: ManualClock;
let telemetry: ProcessTelemetry;
beforeEach(() => {
  clock = manualClock();
  telemetry = createTelemetry({ log: createLog({ level: "silent" }), models: new Set() });
});

/** The series of a metric that are not zero. */
async function seriesOf(metric: string): Promise<string[]> {
  const lines = (await telemetry.metricsText()).split("\n");
  return lines.filter((line) => line.startsWith(metric) && !line.endsWith(" 0")).toSorted();
}

test("what is recorded is counted by its type, and calls that come to nothing by their reason", async () => {
  const memory = createMemoryEventStore({ clock });
  const store = observeEventStore(memory, { clock, telemetry });
  await store.append(STREAM, admissions(STREAM, 1, 3), "no_stream");
  await store.fence(STREAM, fence(STREAM, 2));
  expect(await seriesOf("relai_events_appended_total")).toEqual([
    'relai_events_appended_total{type="OwnerFenced.v1"} 1',
    'relai_events_appended_total{type="RequestAdmitted.v1"} 3',
  ]);
  for (const answer of [
    { outcome: "refused", reason: "disk_full" },
    { outcome: "unknown", reason: "whatever a server says" },
    { outcome: "conflict", actual: 1n },
  ] satisfies AppendOutcome[]) {
    memory.append = () => Promise.resolve(answer);
    expect(await store.append(STREAM, admissions(STREAM, 4, 1), 3n)).toBe(answer);
  }
  memory.read = () => Promise.reject(new Error("gone"));
  const newest = { from: "end", direction: "backward", max: 1 } as const;
  await expect(store.read(STREAM, newest)).rejects.toThrow("gone");
  expect(await seriesOf("relai_store_errors_total")).toEqual([
    'relai_store_errors_total{store="event_store",call="append",reason="disk_full"} 1',
    'relai_store_errors_total{store="event_store",call="append",reason="unknown"} 1',
    'relai_store_errors_total{store="event_store",call="read",reason="failed"} 1',
  ]);
  expect(await seriesOf("relai_store_call_seconds_count")).toEqual([
    'relai_store_call_seconds_count{store="event_store",call="append"} 4',
    'relai_store_call_seconds_count{store="event_store",call="fence"} 1',
    'relai_store_call_seconds_count{store="event_store",call="read"} 1',
  ]);
});

test("a call takes the time until its answer, and its events wait as long", async () => {
  const memory = createMemoryEventStore({ clock });
  const { append } = memory;
  memory.append = async (...asked) => {
    await new Promise<void>((resolve) => clock.timer(70, resolve));
    return append(...asked);
  };
  const store = observeEventStore(memory, { clock, telemetry });
  const appending = store.append(STREAM, admissions(STREAM, 1, 2), "no_stream");
  expect(await seriesOf("relai_append_waiting_events")).toEqual(["relai_append_waiting_events 2"]);
  await clock.advance(70);
  await appending;
  expect(await seriesOf("relai_append_waiting_events")).toEqual([]);
  expect(await seriesOf("relai_store_call_seconds_sum")).toEqual([
    'relai_store_call_seconds_sum{store="event_store",call="append"} 0.07',
  ]);
});

test("a reader is behind by what it was handed, until it asks for more", async () => {
  const memory: EventStore = createMemoryEventStore({ clock });
  const store = observeEventStore(memory, { clock, telemetry });
  await store.append(STREAM, admissions(STREAM, 1, 3), "no_stream");
  const stop = new AbortController();
  const reading = store.follow({ after: "start", signal: stop.signal })[Symbol.asyncIterator]();
  expect(store.lag()).toEqual({ events: 0, ms: 0 });
  expect((await reading.next()).value).toHaveLength(3);
  await clock.advance(4_000);
  expect(store.lag()).toEqual({ events: 3, ms: 4_000 });
  const more = reading.next();
  await clock.advance(1);
  expect(store.lag()).toEqual({ events: 0, ms: 0 });
  stop.abort();
  expect((await more).done).toBe(true);
});

test("admission's answers are counted by what they say, fenced ones by why", async () => {
  const memory = createMemoryAdmission({ clock, server: "one" });
  const admission = observeAdmission(memory, { telemetry });
  const [orgId, keyId] = ["org_A", "key_A"];
  const ask = { orgId, keyId, ownerEpoch: 2, requestId: "req_1", writerEpoch: 1, holdMicro: 1 };
  const state = toSnapshot(emptyAccounts(orgId));
  await admission.admit(ask);
  await admission.adopt({ ownerEpoch: 2, servers: ["one"], state });
  await admission.admit(ask);
  await admission.admit({ ...ask, ownerEpoch: 1 });
  memory.close = () => Promise.reject(new Error("no answer"));
  const broken = observeAdmission(memory, { telemetry });
  await expect(broken.close({ ...ask, chargedMicro: 1 })).rejects.toThrow("no answer");
  expect(await seriesOf("relai_admission_answers_total")).toEqual([
    'relai_admission_answers_total{verb="admit",answer="fenced_absent"} 1',
    'relai_admission_answers_total{verb="admit",answer="fenced_older"} 1',
    'relai_admission_answers_total{verb="admit",answer="refused"} 1',
    'relai_admission_answers_total{verb="adopt",answer="adopted"} 1',
    'relai_admission_answers_total{verb="close",answer="failed"} 1',
  ]);
});

test("round trips to Redis are counted by script and command, and failures by their kind, never by their text", async () => {
  const errors = [
    Object.assign(new Error("READONLY You can't write"), { name: "ReplyError" }),
    new Error("Command timed out"),
    new Error("connect ECONNREFUSED redis.internal:6379"),
  ];
  const redis = observeRedis(
    {
      tags: [""],
      takes: () => Promise.resolve(true),
      run: () => Promise.resolve(["admitted"]),
      command: () => Promise.reject(errors.shift() ?? new Error("too often")),
      seek: () => Promise.resolve(["id"]),
      close: () => Promise.resolve(),
      removeAllBut: () => Promise.resolve(),
    },
    { clock, telemetry },
  );
  const script: LuaScript<"a"> = { name: "admit", text: "", sha1: "", keys: [], args: ["a"] };
  expect(await redis.run(script, [], { a: 1 })).toEqual(["admitted"]);
  for (const _ of [1, 2, 3]) await expect(redis.command("SET", "key", 1)).rejects.toThrow();
  expect(await seriesOf("relai_store_errors_total")).toEqual([
    'relai_store_errors_total{store="redis",call="set",reason="refused"} 1',
    'relai_store_errors_total{store="redis",call="set",reason="timed_out"} 1',
    'relai_store_errors_total{store="redis",call="set",reason="unreachable"} 1',
  ]);
  expect(await seriesOf("relai_store_call_seconds_count")).toEqual([
    'relai_store_call_seconds_count{store="redis",call="admit"} 1',
    'relai_store_call_seconds_count{store="redis",call="set"} 3',
  ]);
});
