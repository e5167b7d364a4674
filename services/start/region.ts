import type { FastifyInstance } from "fastify";
import type { Gateway } from "#services/gateway/gateway.ts";
import { createGatewayServer, stopGateway } from "#services/gateway/http/server.ts";
import { keepAlive, openJournal } from "#services/journal.ts";
import type { Ledger } from "#services/ledger/ledger.ts";
import type { Author } from "#services/writers.ts";
import { openEmbedded, type RegionParts } from "./embedded.ts";

/** One region in one process on embedded parts: its ledger and its gateways, in the order that keeps money safe. */
export interface Region {
  readonly ledger: Ledger;
  readonly gateways: readonly { readonly gateway: Gateway; readonly server: FastifyInstance }[];
  /** Stops accepting, lets what runs finish within `drainMs`, then ends the gateways' journals cleanly. */
  drain(drainMs: number): Promise<void>;
  /** Ends the ledger and its journal, once nobody asks it any more. */
  stop(): Promise<void>;
}

/** Opens a region whose data folder this process has locked. Nothing listens yet. */
export async function openRegion(parts: RegionParts): Promise<Region> {
  const { store, clock, region } = parts;
  const ledgerAuthor: Author = { region, actor: "ledger" };
  const { ledger, ledgerEpoch, gateways: opened } = await openEmbedded(parts);
  const telemetry = parts.telemetry;
  const opening = { store, telemetry, clock, author: ledgerAuthor, writerEpoch: ledgerEpoch };
  // Its own signs of life are what a ledger counts the others' silence by.
  const journal = parts.death === "silence" ? await openJournal(opening) : undefined;
  const stopBeats = journal && keepAlive(journal, clock, ledgerAuthor);
  const gateways = opened.map((gateway) => ({ gateway, server: createGatewayServer(gateway) }));
  return {
    ledger,
    gateways,
    async drain(drainMs) {
      await Promise.all(
        gateways.map(({ gateway, server }) => stopGateway(gateway, server, drainMs)),
      );
    },
    async stop() {
      stopBeats?.();
      await ledger.stop();
      await (journal ?? (await openJournal(opening))).seal();
    },
  };
}
