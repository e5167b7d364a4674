import type { FastifyInstance } from "fastify";
import { createGateway, type Gateway } from "#services/gateway/gateway.ts";
import type { GatewayParts } from "#services/gateway/parts.ts";
import { createGatewayServer, stopGateway } from "#services/gateway/server.ts";
import { openWriter, registerGateway, type WriterParts } from "#services/gateway/writer.ts";
import { openJournal } from "#services/journal.ts";
import { startLedger, type Ledger } from "#services/ledger/ledger.ts";
import type { Projector } from "#services/ports.ts";
import { registerWriter, type Author } from "#services/writers.ts";

/** One region in one process on embedded parts: its ledger and its gateways, in the order that keeps money safe. */
export interface Region {
  readonly ledger: Ledger;
  readonly gateways: readonly { readonly gateway: Gateway; readonly server: FastifyInstance }[];
  /** Stops accepting, lets what runs finish within `drainMs`, then ends the gateways' journals cleanly. */
  drain(drainMs: number): Promise<void>;
  /** Ends the ledger and its journal, once nobody asks it any more. */
  stop(): Promise<void>;
}

export interface RegionParts extends GatewayParts {
  readonly projector: Projector;
  /** How many gateways, each with a listener and a journal of its own. */
  readonly gatewayCount: number;
}

/**
 * Opens a region whose data folder this process has locked. Every writer registers first; then the ledger claims the
 * admission store, seals what earlier starts left, fences these writers, folds and adopts; then the gateways read who
 * owns the store and open their journals. Nothing listens yet.
 */
export async function openRegion(parts: RegionParts): Promise<Region> {
  const { store, clock, region, telemetry } = parts;
  const ledgerAuthor: Author = { region, actor: "ledger" };
  const author: Author = { region, actor: "gateway" };
  const ledgerEpoch = await registerWriter(store, clock, ledgerAuthor, {
    process: "ledger",
    instance: `${parts.instance}/ledger`,
  });
  const writers: { parts: WriterParts; writerEpoch: number }[] = [];
  for (let number = 1; number <= parts.gatewayCount; number++) {
    const instance = `${parts.instance}/gateway-${number}`;
    const writerParts = { store, clock, telemetry, author, instance, beats: false };
    writers.push({ parts: writerParts, writerEpoch: await registerGateway(writerParts) });
  }
  const ledger = await startLedger({
    store,
    clock,
    telemetry,
    author: ledgerAuthor,
    admission: parts.admission,
    directory: parts.directory,
    projector: parts.projector,
    writerEpoch: ledgerEpoch,
    death: { by: "lock", firstEpoch: ledgerEpoch },
  });
  void ledger.superseded.then(() => telemetry.alarm("ledger_superseded", { region }));
  const gateways: { gateway: Gateway; server: FastifyInstance }[] = [];
  for (const { parts: writerParts, writerEpoch } of writers) {
    const gateway = createGateway(parts, await openWriter(writerParts, writerEpoch), author);
    gateways.push({ gateway, server: createGatewayServer(gateway) });
  }
  return {
    ledger,
    gateways,
    async drain(drainMs) {
      await Promise.all(
        gateways.map(({ gateway, server }) => stopGateway(gateway, server, drainMs)),
      );
    },
    async stop() {
      await ledger.stop();
      const journal = await openJournal({
        store,
        clock,
        author: ledgerAuthor,
        writerEpoch: ledgerEpoch,
      });
      await journal.seal();
    },
  };
}
