import { buildCatalogue } from "#domain/catalogue/build.ts";
import { makeKeyText } from "#domain/key-text.ts";
import { systemClock } from "#infra/clock.ts";
import { createMemoryKeyDirectory } from "#infra/key-directory/memory.ts";
import { systemRandom } from "#infra/random.ts";
import { createUpstream } from "#infra/upstream/undici.ts";
import { createGateway } from "#services/gateway/gateway.ts";
import { createGatewayServer } from "#services/gateway/http/server.ts";
import { openWriter } from "#services/gateway/money/writer.ts";
import type { AdmissionStore, EventStore } from "#services/ports.ts";
import { announce, type Ready } from "./child.ts";

/**
 * The product's own way of a request without its books: the gateway wired with ports that answer at once and keep
 * nothing. The difference to the product is what the ledger costs. Never a setting of the product.
 */
async function startRelayOnly(upstreamUrl: string): Promise<Ready> {
  const clock = systemClock();
  const random = systemRandom();
  const region = "us";
  const orgId = "org_01ARZ3NDEKTSV4RRFFQ69G5FAV";
  const keyId = "key_01ARZ3NDEKTSV4RRFFQ69G5FAV";
  const key = makeKeyText(region, (count) => random.bytes(count));
  const telemetry = { requestDone() {}, alarm() {} };
  const store = forgetfulStore();
  const parts = {
    region,
    knownRegions: new Set([region]),
    instance: "bench",
    store,
    admission: generousAdmission(orgId),
    directory: {
      ...createMemoryKeyDirectory(),
      lookup: () => Promise.resolve({ keyId, orgId, revoked: false }),
    },
    catalogue: buildCatalogue({
      openai: { processingArea: region, pinsServiceTier: false },
      simulator: false,
      processingArea: region,
    }),
    hosts: new Map([["openai", { baseUrl: upstreamUrl, credential: "bench", hostKey: "bench" }]]),
    upstream: createUpstream({
      clock,
      connectMs: 5_000,
      firstByteMs: 300_000,
      idleMs: 120_000,
      connectionsMax: 512,
      waitingMax: 512,
    }),
    clock,
    random,
    telemetry,
    limits: {
      bodyBytesMax: 20 * 1024 * 1024,
      bodyDepthMax: 64,
      answerBytesMax: 20 * 1024 * 1024,
      inFlightBytesMax: 256 * 1024 * 1024,
      readOnMs: 60_000,
      readOnBytesMax: 4 * 1024 * 1024,
      clientIdleMs: 120_000,
    },
  };
  const author = { region, actor: "bench" };
  const writer = await openWriter({ ...parts, author, beats: false }, 0);
  const server = createGatewayServer(createGateway(parts, writer, author));
  return { url: await server.listen({ host: "127.0.0.1", port: 0 }), key };
}

/** Answers every append as written and has nothing to read. */
function forgetfulStore(): EventStore {
  let position = 0n;
  return {
    append(_stream, events, expected) {
      const before = expected === "no_stream" ? -1n : expected;
      position += BigInt(events.length);
      return Promise.resolve({
        outcome: "appended",
        revision: before + BigInt(events.length),
        position,
      });
    },
    read: () => Promise.resolve([]),
    fence: () => Promise.resolve(0n),
    async *follow() {},
    head: () => Promise.resolve("start"),
    identity: () => Promise.resolve("forgetful"),
    eventAt: () => Promise.resolve(undefined),
  };
}

function generousAdmission(orgId: string): AdmissionStore {
  const figures = { fundedMicro: 1, spentMicro: 0, heldMicro: 0, availableMicro: 1 };
  return {
    seek: () => Promise.resolve(["bench"]),
    admit: (ask) =>
      Promise.resolve({
        outcome: "admitted",
        atMs: 0,
        accounts: [
          { account: `${orgId}/balance`, period: "total", micro: ask.holdMicro, lots: [] },
        ],
      }),
    extend: (ask) =>
      Promise.resolve({ outcome: "raised", totalMicro: ask.totalMicro, accounts: [] }),
    drop: () => Promise.resolve({ outcome: "dropped" }),
    close: () => Promise.resolve({ outcome: "closed" }),
    figures: () =>
      Promise.resolve({
        outcome: "figures",
        balance: figures,
        unspentLots: 1,
        position: "start",
        asOfMs: 0,
      }),
    want: () => Promise.resolve(),
    wanted: () => Promise.resolve([]),
    apply: () => Promise.resolve({ outcome: "applied", position: 0n }),
    adopt: () => Promise.resolve({ outcome: "adopted" }),
    sweep: () => Promise.resolve({ outcome: "swept" }),
  };
}

await announce(() => startRelayOnly(process.argv[2] ?? ""));
