import { spawn } from "node:child_process";
import { once } from "node:events";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import {
  ANY,
  EventStoreDBClient,
  jsonEvent,
  NO_STREAM,
  streamNameFilter,
  WrongExpectedVersionError,
  type AppendExpectedRevision,
  type JSONType,
  type AppendToStreamOptions,
} from "@eventstore/db-client";
import { afterEach, beforeEach, describe, expect, it, type TestContext } from "vitest";
import { readKurrentUrl } from "#infra/event-store/kurrent/url.ts";
import { openStore } from "#test/worlds/event-store-world.ts";
import { NEEDS_FAULTS, realServerUrl, serverUnderTest } from "#test/kurrent-stand-in/harness.ts";
import { startStandIn, type StandIn, type StandInOptions } from "#test/kurrent-stand-in/server.ts";
import { admissions } from "./event-samples.ts";

/**
 * What a real server and the client by itself do, one case for each fact that the adapter is built on. The stand-in must
 * give the same answers, and a new version of either is held to them where the tests find a real server.
 */
describe(`EventStoreDB's client against the ${serverUnderTest}`, () => {
  let standIns: StandIn[];
  let clients: EventStoreDBClient[];
  let client: EventStoreDBClient;
  let stream: string;

  beforeEach(async () => {
    standIns = [];
    clients = [];
    const url = realServerUrl ?? (await newStandIn()).url();
    client = newClient(url);
    stream = `journal-${randomUUID()}`;
  });
  afterEach(async () => {
    await Promise.all(clients.map((one) => one.dispose()));
    await Promise.all(standIns.map((one) => one.close()));
  });

  async function newStandIn(options: StandInOptions = {}): Promise<StandIn> {
    const standIn = await startStandIn(options);
    standIns.push(standIn);
    return standIn;
  }

  /** The stand-in of the case; on a real server the case is skipped. */
  function faultsOf(context: TestContext): StandIn {
    const [standIn] = standIns;
    return standIn ?? context.skip(NEEDS_FAULTS);
  }

  function newClient(url: string): EventStoreDBClient {
    const made = EventStoreDBClient.connectionString(url);
    clients.push(made);
    return made;
  }

  const { credentials } = readKurrentUrl(realServerUrl ?? "esdb://127.0.0.1?tls=false", true);
  const unary = { credentials };
  const event = (id: string, data = {}) => jsonEvent({ id, type: "Tried", data });
  const events = (...ids: string[]) => ids.map((id) => event(id));
  const append = (
    what: ReturnType<typeof events>,
    expectedRevision: AppendExpectedRevision,
    options: AppendToStreamOptions = unary,
  ) => client.appendToStream(stream, what, { ...options, expectedRevision });
  const count = async () => {
    let found = 0;
    for await (const _ of client.readStream(stream, unary)) found += 1;
    return found;
  };
  const [a, b, c, d] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];

  it("the adapter's messages, which it makes itself, are those of the client", async () => {
    const [mine, its] = [`${stream}-1`, `${stream}-2`];
    const given = admissions(stream, 0, 2);
    const store = await openStore(realServerUrl ?? standIns[0]?.url() ?? "");
    const appended = await store.append(mine, given, "no_stream");
    await store.close();
    expect(appended).toMatchObject({ outcome: "appended", revision: 1n });
    const asJson = given.map(({ id, type, dataJson, metadataJson }) => {
      const [data, metadata] = [dataJson, metadataJson].map((text) => JSON.parse(text) as JSONType);
      return jsonEvent({ id, type, data: data ?? {}, metadata });
    });
    await client.appendToStream(its, asJson, { ...unary, expectedRevision: NO_STREAM });
    const kept = async (name: string) => {
      const found = [];
      for await (const { event: read } of client.readStream(name, unary)) {
        const { id, type, isJson, data, metadata, revision } = read ?? {};
        found.push({ id, type, isJson, data, metadata, revision });
      }
      return found;
    };
    const found = await kept(mine);
    expect(found).toHaveLength(2);
    expect(found).toEqual(await kept(its));
    const raw = (name: string) =>
      standIns[0]?.log.stream(name)?.map(({ data, metadata }) => [data, metadata]);
    expect(raw(mine)).toEqual(raw(its));
  });

  describe("repeats are known by their revision", () => {
    it("the same id at a revision that is right now is written again", async () => {
      await append(events(a), NO_STREAM);
      expect((await append(events(a), 0n)).nextExpectedRevision).toBe(1n);
      expect(await count()).toBe(2);
    });

    it("the same id at its old revision is answered with the old revision and position, whatever its data", async () => {
      const first = await append(events(a), NO_STREAM);
      await append(events(b), 0n);
      expect(await append([event(a, { other: true })], NO_STREAM)).toEqual(first);
      expect(await count()).toBe(2);
    });

    it("part old ids and part new ones are a conflict, a shorter cut of old ones is a repeat", async () => {
      await append(events(a, b, c), NO_STREAM);
      for (const mixed of [events(a, b, c, d), events(a, d), events(b, c)])
        await expect(append(mixed, NO_STREAM)).rejects.toThrow(WrongExpectedVersionError);
      expect((await append(events(a, b), NO_STREAM)).nextExpectedRevision).toBe(1n);
      expect(await count()).toBe(3);
    });

    it("at any revision they are known until a restart", async (context) => {
      const first = await append(events(a), ANY);
      await append(events(b), ANY);
      expect(await append(events(a), ANY)).toEqual(first);
      const server = faultsOf(context);
      await server.stop();
      await server.restart();
      // The first calls may still meet the connection that was cut.
      const again = () =>
        append(events(a), ANY).then(({ nextExpectedRevision }) => nextExpectedRevision, String);
      await expect.poll(again).toBe(2n);
    });
  });

  it("a conflict tells the actual revision as a bigint, or that there is no stream", async () => {
    const told = { streamName: stream, expectedVersion: 5n };
    await expect(append(events(a), 5n)).rejects.toMatchObject({
      ...told,
      actualVersion: "no_stream",
    });
    await append(events(a, b), NO_STREAM);
    await expect(append(events(c), 5n)).rejects.toMatchObject({ ...told, actualVersion: 1n });
  });

  it("an append above 1 MiB is refused", async () => {
    const large = event(a, { text: "x".repeat(1024 * 1024) });
    await expect(append([large], NO_STREAM)).rejects.toMatchObject({
      type: "maximum-append-size-exceeded",
      maxAppendSize: 1024 * 1024,
    });
  });

  describe("a server that is stalled", () => {
    it("is waited for beyond the deadline by the batch append", async (context) => {
      const { faults } = faultsOf(context);
      await append(events(a), NO_STREAM, {});
      const { promise, resolve: goOn } = Promise.withResolvers<void>();
      faults.stall = promise;
      let settled = false;
      const late = append(events(b), 0n, { deadline: 200 }).finally(() => (settled = true));
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      expect(settled).toBe(false);
      goOn();
      expect((await late).nextExpectedRevision).toBe(1n);
    });

    it("is waited for until the deadline where the call has credentials", async (context) => {
      const { faults, log } = faultsOf(context);
      await append(events(a), NO_STREAM);
      const { promise, resolve: goOn } = Promise.withResolvers<void>();
      faults.stall = promise;
      const begunMs = performance.now();
      const late = append(events(b), 0n, { ...unary, deadline: 300 });
      await expect(late).rejects.toMatchObject({ type: "deadline-exceeded" });
      expect(performance.now() - begunMs).toBeGreaterThan(299);
      goOn();
      await promise;
      // And it may be written all the same.
      await expect.poll(() => log.stream(stream)?.length).toBe(2);
    });
  });

  describe("a store that dies", () => {
    it("takes the other stores' batch appends and then the process with it", async (context) => {
      const first = faultsOf(context);
      const second = await newStandIn();
      const { promise, resolve: goOn } = Promise.withResolvers<void>();
      const script = fileURLToPath(new URL("kurrent-child.ts", import.meta.url));
      // The second store answers its first append at once, and stalls from then on.
      const stopListening = second.log.onWrite(() => {
        stopListening();
        second.faults.stall = promise;
      });
      const child = spawn(process.execPath, [script, first.url(), second.url()], {
        stdio: ["ignore", "pipe", "pipe"],
      });
      const exited = once(child, "exit");
      let errors = "";
      child.stderr.on("data", (text: Buffer) => (errors += String(text)));
      const lines: string[] = [];
      for await (const line of createInterface({ input: child.stdout })) {
        lines.push(line);
        if (line === "sent") await first.stop();
        if (line.startsWith("rejected")) goOn();
      }
      // Rejected with the other store's error, and written all the same; its answer then meets nobody.
      expect(lines).toEqual(["sent", expect.stringMatching(/^rejected 14 UNAVAILABLE/)]);
      expect(second.log.stream("journal-second")).toHaveLength(2);
      expect((await exited)[0]).not.toBe(0);
      expect(errors).toContain("TypeError");
    });

    it("touches no other store's append where the calls have credentials", async (context) => {
      const first = faultsOf(context);
      const second = await newStandIn();
      const other = newClient(second.url());
      await append(events(a), NO_STREAM);
      const { promise, resolve: goOn } = Promise.withResolvers<void>();
      second.faults.stall = promise;
      const waiting = other.appendToStream(stream, events(b), {
        ...unary,
        expectedRevision: NO_STREAM,
      });
      await first.stop();
      await expect(append(events(c), 0n)).rejects.toMatchObject({ type: "unavailable" });
      goOn();
      expect((await waiting).success).toBe(true);
    });

    it("ends a subscription for good with one error, and takes appends as soon as it is back", async (context) => {
      const server = faultsOf(context);
      await append(events(a), NO_STREAM);
      const seen: string[] = [];
      const filter = streamNameFilter({ prefixes: ["journal-"] });
      const subscription = client.subscribeToAll({ ...unary, filter });
      subscription.on("data", ({ event }) => seen.push(event?.id ?? ""));
      const failures: unknown[] = [];
      subscription.on("error", (error) => failures.push(error));
      await expect.poll(() => seen).toEqual([a]);
      await server.stop();
      await expect.poll(() => failures).toEqual([expect.objectContaining({ type: "unavailable" })]);
      await expect(append(events(b), 0n)).rejects.toMatchObject({ type: "unavailable" });
      await server.restart();
      await expect
        .poll(() =>
          append(events(b), 0n).then(
            ({ success }) => success,
            () => false,
          ),
        )
        .toBe(true);
      await append(events(c), 1n);
      expect(seen).toEqual([a]);
      expect(failures).toHaveLength(1);
    });
  });

  it("credentials are not sent in plain text", async (context) => {
    faultsOf(context);
    const asking = await newStandIn({ user: { name: "relai", password: "right" } });
    client = newClient(asking.url());
    const known = { credentials: { username: "relai", password: "right" } };
    await expect(append(events(a), NO_STREAM, known)).rejects.toMatchObject({
      type: "access-denied",
    });
  });

  it("a URL of KurrentDB's own kind is not read", () => {
    expect(() => newClient("kurrentdb://127.0.0.1:2113?tls=false")).toThrow("expected esdb://");
  });
});
