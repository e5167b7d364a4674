import type { FastifyInstance, InjectOptions } from "fastify";
import { systemClock } from "#infra/clock.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { createMemoryEventStore, type MemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { systemRandom } from "#infra/random.ts";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";
import { createControl, type Control, type ControlParts } from "#services/control/commands.ts";
import { createControlServer } from "#services/control/server.ts";
import { createReadiness } from "#services/internal/readiness.ts";
import { startLedger } from "#services/ledger/ledger.ts";
import type { EventStore, KeyDirectory, KeyEntry } from "#services/ports.ts";
import { startProjector } from "#services/projector/projector.ts";
import { registerWriter } from "#services/writers.ts";

export const ADMIN_TOKEN = "an-admin-token-of-a-test";

/** What the process of such a server says that it runs with. */
export const RUNNING_SETTINGS = [
  { name: "RELAI_DRAIN_MS", value: "1234", source: "file" },
  { name: "RELAI_LOG_LEVEL", value: "info", source: "default" },
  { name: "OPENAI_API_KEY", value: "(hidden)", source: "environment" },
  { name: "OPENAI_AREA", value: null, source: "default" },
];

/** Management on parts in memory: the real ledger and projector behind it. */
export interface ControlWorld {
  readonly store: MemoryEventStore;
  readonly parts: ControlParts;
  readonly control: Control;
  readonly directory: ReadonlyMap<string, KeyEntry>;
  readonly alarms: string[];
  /** A server of the control API; listens only when it is told to. */
  server(changes?: Partial<ControlParts>): ReturnType<typeof createControlServer>;
  close(): Promise<void>;
}

export async function controlWorld(): Promise<ControlWorld> {
  const clock = systemClock();
  const random = systemRandom();
  const store = createMemoryEventStore({ clock });
  const alarms: string[] = [];
  const telemetry = {
    requestDone: () => {},
    alarm: (what: string) => void alarms.push(what),
  };
  const projector = await startProjector({
    store,
    readModels: createMemoryReadModels(),
    clock,
    batchMs: 5,
    signal: new AbortController().signal,
    onAlarm: telemetry.alarm,
  });
  const entries = new Map<string, KeyEntry>();
  const kept = createMemoryKeyDirectory();
  const directory: KeyDirectory = {
    ...kept,
    put(keys) {
      for (const [tokenHash, entry] of keys) entries.set(tokenHash, entry);
      return kept.put(keys);
    },
  };
  const admission = createMemoryAdmission({ clock, server: "one" });
  const author = { region: "us", actor: "ledger" };
  const data = { process: "ledger", instance: "test" } as const;
  const writerEpoch = await registerWriter(store, clock, author, data);
  const ledger = await startLedger({
    store,
    clock,
    telemetry,
    author,
    admission,
    directory,
    projector,
    writerEpoch,
    death: { by: "lock", firstEpoch: writerEpoch },
  });
  await ledger.filled("all", 5_000);
  const parts: ControlParts = {
    store,
    clock,
    random,
    region: "us",
    author: { region: "us", actor: "control" },
    applied: (orgId, position, limitMs) => ledger.applied(orgId, position, limitMs),
    admission,
    projector,
  };
  return {
    store,
    parts,
    control: createControl(parts),
    directory: entries,
    alarms,
    server: (changes = {}) =>
      createControlServer({
        control: createControl({ ...parts, ...changes }),
        adminToken: ADMIN_TOKEN,
        settings: RUNNING_SETTINGS,
        clock,
        random,
        telemetry,
        readiness: createReadiness({
          clock,
          checks: { event_store: () => "up", ledger: () => (ledger.isReady() ? "up" : "down") },
          isStopping: () => false,
        }),
      }),
    async close() {
      await ledger.stop();
      await projector.close();
      await store.close();
    },
  };
}

/** A store whose next append is lost, done, or answered with something else: `before` may do it, or not. */
export function interposed(
  store: EventStore,
  before: (
    inner: EventStore,
    ...call: Parameters<EventStore["append"]>
  ) => ReturnType<EventStore["append"]>,
): EventStore {
  return {
    append: (...call) => before(store, ...call),
    read: (stream, options) => store.read(stream, options),
    fence: (stream, event) => store.fence(stream, event),
    follow: (options) => store.follow(options),
    head: () => store.head(),
    identity: () => store.identity(),
    eventAt: (position) => store.eventAt(position),
  };
}

export const bearer = { authorization: `Bearer ${ADMIN_TOKEN}` };

type Headers = Readonly<Record<string, string>>;

/** Calls to a server of the control API that does not listen. A body that is a text or bytes is sent as it is. */
export function callsTo(app: FastifyInstance) {
  return {
    ask: (method: "GET" | "DELETE" | "PUT", url: string) =>
      app.inject({ method, url, headers: bearer }),
    post(url: string, body?: unknown, headers: Headers = {}) {
      const call: InjectOptions = {
        method: "POST",
        url,
        headers: { ...bearer, "content-type": "application/json", ...headers },
      };
      if (body === undefined) return app.inject(call);
      const isRaw = typeof body === "string" || Buffer.isBuffer(body);
      return app.inject({ ...call, payload: isRaw ? body : JSON.stringify(body) });
    },
  };
}
