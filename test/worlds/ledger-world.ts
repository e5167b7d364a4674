import { emptyAdmission } from "#domain/accounts/admission.ts";
import { newEvent, streams, type NewEvent } from "#domain/events/events.ts";
import { createMemoryAdmission } from "#infra/admission/memory.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import type { AdmissionStore, EventStore, KeyDirectory, Projector } from "#services/ports.ts";
import { startLedger, type Ledger } from "#services/ledger/ledger.ts";
import { startProjector } from "#services/projector/projector.ts";
import { registerWriter } from "#services/writers.ts";
import { manualClock } from "#test/doubles/manual-clock.ts";
import { createMemoryEventStore } from "#test/doubles/memory-event-store.ts";
import { createMemoryReadModels } from "#test/doubles/memory-read-models.ts";

/** A ledger on parts in memory, with organizations on record that it is about to adopt; the test holds up what it likes. */

export const metadata = {
  at: 1,
  region: "us",
  actor: "control",
  $correlationId: "c",
  schema: 1,
} as const;
const SHA = "0".repeat(64);
export const CREDIT_MICRO = 1_000;

export const idOf = (prefix: string, number: number) =>
  `${prefix}_${String(number).padStart(26, "0")}`;
export const orgOf = (number: number) => idOf("org", number);
export const hashOf = (number: number) => number.toString(16).padStart(64, "0");

/** Lets calls pass, or holds them until it is opened. */
export function gate() {
  let held = Promise.withResolvers<void>();
  held.resolve();
  return {
    shut: () => void (held = Promise.withResolvers<void>()),
    open: () => held.resolve(),
    /** Lets those pass who come from now on; whoever is held stays so until the returned function is called. */
    openToOthers() {
      const { resolve } = held;
      held = Promise.withResolvers<void>();
      held.resolve();
      return resolve;
    },
    pass: () => held.promise,
  };
}

/** A region with so many organizations on record, each with a top-up and a key, whose ledger is about to start. */
export async function ledgerWorld(count: number) {
  const clock = manualClock();
  const events = createMemoryEventStore({ clock });
  const state = emptyAdmission({ server: "server-1" });
  const memory = createMemoryAdmission({ clock, server: state.server, state });
  const directory: KeyDirectory = createMemoryKeyDirectory();
  const [slices, adoptions, following, folding] = [gate(), gate(), gate(), gate()];
  const adopted: string[] = [];
  let [adopting, mostAdopting] = [0, 0];
  const sliced: number[] = [];
  const alarms: string[] = [];
  const telemetry = { requestDone: () => {}, alarm: (what: string) => void alarms.push(what) };

  async function append(stream: string, made: NewEvent[]): Promise<void> {
    const [last] = await events.read(stream, { from: "end", direction: "backward", max: 1 });
    const answer = await events.append(stream, made, last?.revision ?? "no_stream");
    if (answer.outcome !== "appended") throw new Error(`not written: ${answer.outcome}`);
  }
  function topUp(number: number, topUpId: string): Promise<void> {
    const stream = streams.org(orgOf(number));
    const money = { amountMicro: CREDIT_MICRO, source: "manual", pot: "paid" } as const;
    const data = { orgId: orgOf(number), topUpId, ...money, bodySha256: SHA };
    return append(stream, [newEvent(stream, topUpId, "CreditToppedUp.v1", data, metadata)]);
  }
  async function create(number: number): Promise<void> {
    const [orgId, keyId] = [orgOf(number), idOf("key", number)];
    const [org, key] = [streams.org(orgId), streams.key(keyId)];
    const named = { orgId, name: "test", homeRegion: "us", bodySha256: SHA };
    await append(org, [newEvent(org, orgId, "OrganizationCreated.v1", named, metadata)]);
    await topUp(number, idOf("lot", number));
    const facts = { keyId, orgId, scope: "regional", homeRegion: "us", name: "test" } as const;
    const rest = { tokenHash: hashOf(number), displayPrefix: "x", limits: {}, bodySha256: SHA };
    await append(key, [newEvent(key, keyId, "KeyIssued.v1", { ...facts, ...rest }, metadata)]);
  }
  for (let number = 1; number <= count; number++) await create(number);

  /** The same events, as somebody follows them who is held up. */
  const followed = (held: ReturnType<typeof gate>): EventStore => ({
    ...events,
    async *follow(options) {
      for await (const batch of events.follow(options)) {
        await held.pass();
        yield batch;
      }
    },
  });
  const folded = await startProjector({
    store: followed(folding),
    clock,
    readModels: createMemoryReadModels(),
    signal: new AbortController().signal,
    onAlarm: telemetry.alarm,
  });
  const projector: Projector = {
    ...folded,
    async rows(projection, atLeast, tables, slice) {
      if (slice && "in" in slice && projection === "accounts") await slices.pass();
      const found = await folded.rows(projection, atLeast, tables, slice);
      if (slice && "in" in slice) sliced.push(slice.max);
      return found;
    },
  };
  const admission: AdmissionStore = {
    ...memory,
    async adopt(ask) {
      adopted.push(ask.state.orgId);
      mostAdopting = Math.max(mostAdopting, (adopting += 1));
      await adoptions.pass();
      adopting -= 1;
      return memory.adopt(ask);
    },
  };
  let beforeFence = async (_stream: string) => {};
  const store: EventStore = {
    ...followed(following),
    async fence(stream, event) {
      await beforeFence(stream);
      return events.fence(stream, event);
    },
  };
  const author = { region: "us", actor: "ledger" };
  const stops: (() => Promise<unknown>)[] = [];
  return {
    clock,
    state,
    admission,
    directory,
    projector,
    slices,
    adoptions,
    following,
    folding,
    adopted,
    mostAdopting: () => mostAdopting,
    append,
    async stop() {
      for (const stop of stops.splice(0).reverse()) await stop();
    },
    interrupt: (by: typeof beforeFence) => void (beforeFence = by),
    sliced,
    alarms,
    create,
    topUp,
    async start(): Promise<Ledger> {
      const data = { process: "ledger", instance: "test" } as const;
      const writerEpoch = await registerWriter(store, clock, author, data);
      const parts = { store, clock, telemetry, author, admission, directory, projector };
      const death = { by: "lock", firstEpoch: writerEpoch } as const;
      // One that lives, and is fenced.
      const gateway = { process: "gateway", instance: "other" } as const;
      await registerWriter(store, clock, author, gateway);
      const starting = startLedger({ ...parts, writerEpoch, death });
      await clock.advance(100);
      const ledger = await starting;
      stops.push(async () => {
        for (const each of [slices, adoptions, following, folding]) each.open();
        await Promise.all([ledger.stop(), clock.advance(10_000)]);
      });
      return ledger;
    },
    /** What is available to an organization, or why that is not known. */
    async available(number: number) {
      const found = await memory.figures({ orgId: orgOf(number) });
      return found.outcome === "figures" ? found.balance.availableMicro : found.fenced;
    },
    async owners(): Promise<number> {
      const stream = streams.writers("us");
      const all = await events.read(stream, { from: "start", direction: "forward", max: 100 });
      return all.filter(({ type }) => type === "OwnerChanged.v1").length;
    },
  };
}
